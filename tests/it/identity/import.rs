//! `import consul` declares what a live Consul has: a plan of the result shows the adoption, and then nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tempfile::TempDir;

use super::adoption::create_objects;
use super::fixture::{DEMO, IdentityFixture, lines};
use super::{create_everything, everything};
use crate::consul_real::server::{Acls, ConsulRelease, MANAGEMENT, RealConsul};
use crate::e2e::harness::OperatorProcess;

at_both_consuls! {
    imported_older_set_up_is_adopted_and_then_quiet
    imported_set_up_of_an_operator_is_the_declared_one
}

/// Runs `import consul` as the management token's owner; exit code, standard output, and standard error.
async fn import(url: &str, management: &str) -> (Option<i32>, String, String) {
    let directory = TempDir::new().unwrap();
    let token_file = directory.path().join("token");
    std::fs::write(&token_file, management).unwrap();
    let arguments = ["import", "consul", "--address", url, "--cluster", DEMO, "--token-file"];
    let arguments = [&arguments[..], &[token_file.to_str().unwrap()]].concat();
    let mut process = OperatorProcess::start(directory.path(), "import", &BTreeMap::new(), &arguments);
    (process.code().await, process.stdout(), process.stderr())
}

/// The imported `ConsulAuth`'s spec.
async fn imported_spec(fixture: &IdentityFixture) -> Value {
    let (code, manifests, report) = import(&fixture.url, fixture.token.as_ref().unwrap()).await;
    assert!(matches!(code, Some(0 | 2)), "{report}");
    let documents: Vec<Value> =
        manifests.split("---\n").map(|text| serde_saphyr::from_str(text).unwrap()).collect();
    documents.into_iter().find(|document| document["kind"] == "ConsulAuth").unwrap()["spec"].clone()
}

async fn imported_older_set_up_is_adopted_and_then_quiet(fixture: IdentityFixture) {
    create_objects(&fixture).await;
    let auth = imported_spec(&fixture).await;
    let plan = fixture.plan(Some(&auth)).await;
    let adopted = lines(&plan);
    assert_eq!(adopted.len(), 12, "{adopted:#?}");
    let is_adoption = |line: &String| {
        let is_node = line.starts_with(&format!("update node {DEMO}: "));
        line.starts_with("update ") && (is_node || line.ends_with(": Description"))
    };
    assert!(adopted.iter().all(is_adoption), "{adopted:#?}");
    assert_eq!(fixture.run(Some(&auth)).await.writes(), 12);
    assert_eq!(lines(&fixture.plan(Some(&auth)).await), BTreeSet::new());
    let again = imported_spec(&fixture).await;
    assert_eq!(lines(&fixture.plan(Some(&again)).await), BTreeSet::new());
}

async fn imported_set_up_of_an_operator_is_the_declared_one(fixture: IdentityFixture) {
    create_everything(&fixture).await;
    let auth = imported_spec(&fixture).await;
    assert_eq!(lines(&fixture.plan(Some(&auth)).await), BTreeSet::new());
    assert_eq!(fixture.run(Some(&auth)).await.writes(), 0);
    let declared = everything();
    for (section, field) in [
        ("serviceTokens", "boundPrincipals"),
        ("serviceTokens", "stsEndpoint"),
        ("clientTokens", "boundPrincipals"),
    ] {
        assert_eq!(auth[section][field], declared[section][field], "{auth:#}");
    }
    assert_eq!(auth["anonymousPolicy"], declared["anonymousPolicy"]);
    let gateways = |spec: &Value| -> BTreeSet<String> {
        spec["serviceTokens"]["gateways"].as_array().unwrap().iter().map(Value::to_string).collect()
    };
    assert_eq!(gateways(&auth), gateways(&declared));
}

/// For 1.8, whose auth methods have no type for roles of AWS.
#[tokio::test]
async fn consul_without_logins_by_roles_has_nothing_to_import() {
    let what = "an import from the oldest Consul";
    let Some(server) = RealConsul::start(ConsulRelease::Oldest, what, Acls::On).await else { return };
    server.create_auth_method("iam-ecs-service-token").await;
    let (code, manifests, error) = import(server.url(), MANAGEMENT).await;
    assert_eq!((code, manifests.as_str()), (Some(1), ""), "{error}");
    assert!(error.contains("no auth method of type aws-iam"), "{error}");
}

//! An auth method's configuration is compared as Consul reads it, in any spelling.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::fixture::{AclPlanFixture, everything};
use crate::desired::Edition;
use ecs_mesh_core::plan::report::ObjectKind::AuthMethod;

const METHOD: &str = "iam-ecs-service-token";

#[test]
fn repair_body_has_each_key_once_in_consul_spelling() {
    let mut world = AclPlanFixture::made(everything());
    world.edit(AuthMethod, METHOD, |method| {
        let config = method["Config"].as_object_mut().unwrap();
        config.insert("iamendpoint".to_owned(), json!("https://iam.evil"));
        config.insert("stsENDPOINT".to_owned(), json!("https://sts.evil"));
        config.insert("maxretries".to_owned(), json!(3));
        config.insert("SomethingNew".to_owned(), json!("stays"));
    });
    world.run();
    let config = world.object(AuthMethod, METHOD)["Config"].clone();
    assert_eq!(
        config,
        json!({
            "BoundIAMPrincipalARNs": ["arn:aws:iam::000000000000:role/consul-ecs/*"],
            "EnableIAMEntityDetails": true,
            "IAMEntityTags": [
                "consul.hashicorp.com.gateway-kind",
                "consul.hashicorp.com.namespace",
                "consul.hashicorp.com.service-name",
            ],
            "MaxRetries": 3,
            "STSEndpoint": "https://sts.us-east-1.amazonaws.com",
            "SomethingNew": "stays",
        })
    );
}

#[test]
fn adoption_ignores_case_of_method_settings() {
    let mut spec = everything();
    spec["adopt"] = json!([METHOD]);
    let mut world = AclPlanFixture::made(spec);
    world.edit(AuthMethod, METHOD, |method| {
        method["Description"] = json!("made by hand");
        let config = std::mem::take(&mut method["Config"]);
        method["Config"] = config
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (name[..1].to_ascii_lowercase() + &name[1..], value.clone()))
            .collect::<serde_json::Map<_, _>>()
            .into();
        method["Config"]["enableIAMEntityDetails"] = json!("true");
        method["Config"]["boundIAMPrincipalARNs"] = json!("arn:aws:iam::000000000000:role/consul-ecs/*");
    });
    assert_eq!(world.lines(), ["update auth method iam-ecs-service-token (Description)"]);
    world.run();
    assert_eq!(world.lines(), Vec::<String>::new());
}

#[test]
fn enterprise_tokens_map_to_declared_namespaces_only() {
    let mut spec = everything();
    spec.as_object_mut().unwrap().remove("anonymousPolicy");
    let mut world = AclPlanFixture::empty(spec);
    world.edition = Edition::Enterprise { partition: "ecs".into(), namespaces: BTreeSet::new() };
    world.run();
    assert_eq!(world.lines(), Vec::<String>::new());
    let rules =
        |world: &mut AclPlanFixture, method: &str| world.object(AuthMethod, method)["NamespaceRules"].clone();
    assert_eq!(rules(&mut world, "iam-ecs-client-token"), Value::Null, "what is empty is not sent");
    assert_eq!(rules(&mut world, METHOD).as_array().unwrap().len(), 1);
    for method in [METHOD, "iam-ecs-client-token"] {
        world.edit(AuthMethod, method, |method| {
            if method["NamespaceRules"].is_null() {
                method["NamespaceRules"] = json!([]);
            }
            let more = json!({ "Selector": "", "BindNamespace": "admin" });
            method["NamespaceRules"].as_array_mut().unwrap().push(more);
        });
    }
    assert_eq!(
        world.lines(),
        [
            "update auth method iam-ecs-client-token (NamespaceRules)",
            "update auth method iam-ecs-service-token (NamespaceRules)",
        ]
    );
    world.run();
    assert_eq!(world.lines(), Vec::<String>::new());
    assert_eq!(rules(&mut world, "iam-ecs-client-token"), Value::Null);
}

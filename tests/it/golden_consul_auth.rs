//! Golden files of the desired ACL objects: each file of `tests/golden/consul-auth/` has manifests, and below the line
//! `---` the desired objects. `UPDATE_GOLDEN=1` renews the objects.

use std::collections::BTreeMap;
use std::fs;

use ecs_mesh_api::ConsulConnection;
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_consul_acl::desired::{
    AclContext, DatacenterRole, DesiredObject, DesiredObjects, DesiredState, Edition, ObjectId, OperatorIds,
    UndeclaredPolicy, desired, named_clusters,
};
use ecs_mesh_manifests::ManifestSources;
use ecs_mesh_model::OperatorId;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::golden_cases::{assert_comments, assert_outcomes};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ConsulAuthCase {
    /// Further fields of the `ControlPlane` named `consul`.
    #[serde(default)]
    consul: Map<String, Value>,
    manifests: BTreeMap<String, Value>,
    #[serde(default)]
    datacenter: DatacenterCase,
    /// The namespaces that `*` matches.
    #[serde(default)]
    namespaces: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum DatacenterCase {
    #[default]
    Primary,
    Secondary,
    Unknown,
}

fn load(case: &ConsulAuthCase) -> (ManifestSet, Vec<String>) {
    let directory = tempfile::tempdir().unwrap();
    let mut consul = json!({ "address": "https://consul.internal:8501" });
    consul.as_object_mut().unwrap().extend(case.consul.clone());
    let mut all =
        BTreeMap::from([("ControlPlane/consul".to_owned(), json!({ "type": "consul", "consul": consul }))]);
    all.extend(case.manifests.clone());
    for (id, spec) in all {
        let (kind, name) = id.split_once('/').unwrap();
        let document = json!({
            "apiVersion": "ecs-mesh.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec,
        });
        fs::write(directory.path().join(format!("{kind}-{name}.json")), document.to_string()).unwrap();
    }
    let loaded = ManifestSources::new([directory.path().to_owned()]).load(None).into_loaded().unwrap();
    let errors = loaded.errors.iter().map(|error| format!("{}: {}", error.path, error.message)).collect();
    (ManifestSet::clone(&loaded.set), errors)
}

fn outcome(case: &ConsulAuthCase) -> Value {
    let (set, errors) = load(case);
    if !errors.is_empty() {
        return json!({ "manifestErrors": errors });
    }
    let operators = OperatorIds::new(OperatorId::parse("golden").unwrap());
    let clusters = named_clusters(&set, "consul");
    let consul: &ConsulConnection = set.control_planes["consul"].consul.as_ref().unwrap();
    let namespaces = case.namespaces.iter().map(|name| name.as_str().into()).collect();
    let around = AclContext {
        operators: &operators,
        clusters: &clusters,
        edition: Edition::of(consul, &namespaces),
        datacenter: match case.datacenter {
            DatacenterCase::Primary => DatacenterRole::Primary,
            DatacenterCase::Secondary => DatacenterRole::Secondary,
            DatacenterCase::Unknown => DatacenterRole::Unknown("permission denied".to_owned()),
        },
    };
    let spec = set.consul_auths.values().next().unwrap();
    let DesiredObjects { objects, undeclared, .. } = desired(spec, &around);
    let mut out = Map::new();
    if undeclared == UndeclaredPolicy::Remove {
        out.insert("undeclared".to_owned(), json!("removed"));
    }
    out.insert("objects".to_owned(), objects.iter().map(describe_object).collect::<Vec<_>>().into());
    out.into()
}

fn describe_object(object: &DesiredObject) -> Value {
    let DesiredObject { id, state: want, .. } = object;
    let mut out = json!({ "object": id.to_string() });
    if id.scope.partition.is_some() {
        out["in"] = json!(id.scope);
    }
    let names = |ids: &[ObjectId]| ids.iter().map(|id| id.name.as_ref().into()).collect::<Vec<Value>>();
    match want {
        DesiredState::Present { body, .. } => out["body"] = body.clone(),
        DesiredState::Absent => out["absent"] = json!(true),
        DesiredState::PolicyLinks { attach, detach } => {
            out["attach"] = names(attach).into();
            out["detach"] = names(detach).into();
        }
        DesiredState::Blocked(reason) => out["held"] = json!(reason),
    }
    out
}

#[test]
fn each_consul_auth_matches_its_golden_file() {
    assert_outcomes("consul-auth", |case: &ConsulAuthCase| serde_saphyr::to_string(&outcome(case)).unwrap());
}

#[test]
fn every_golden_file_has_a_case_and_a_comment() {
    assert_comments("consul-auth", 10);
}

//! Desired objects of manifests, in addition to the golden files in `tests/golden/consul-auth`.

use super::*;
use ecs_mesh_api::manifests::Binding;
use ecs_mesh_api::{BindingSelector, GatewayKind, MeshBindingSpec};
use ecs_mesh_model::{Glob, OperatorId};

const DEMO: &str = "arn:aws:ecs:eu-west-1:111122223333:cluster/demo";

fn spec(text: serde_json::Value) -> ConsulAuthSpec {
    serde_json::from_value(text).unwrap()
}

fn around<'a>(
    operators: &'a OperatorIds,
    clusters: &'a BTreeSet<ClusterArn>,
    edition: Edition,
) -> AclContext<'a> {
    AclContext { operators, clusters, edition, datacenter: DatacenterRole::Primary }
}

#[test]
fn object_follows_its_dependencies() {
    let (operator, clusters) = (
        OperatorIds::new(OperatorId::parse("op").unwrap()),
        BTreeSet::from([ClusterArn::parse(DEMO).unwrap()]),
    );
    let spec = spec(json!({
        "controlPlane": "consul",
        "serviceTokens": {
            "boundPrincipals": ["arn:aws:iam::111122223333:role/a"],
            "gateways": ["mesh-gateway", "terminating-gateway", "api-gateway"],
        },
        "clientTokens": { "boundPrincipals": ["arn:aws:iam::111122223333:role/b"] },
        "anonymousPolicy": "present",
        "enterprise": { "crossNamespace": "present" },
    }));
    let edition = Edition::Enterprise { partition: "ecs".into(), namespaces: BTreeSet::new() };
    let desired = desired(&spec, &around(&operator, &clusters, edition)).objects;
    let mut before = BTreeSet::new();
    for object in &desired {
        let needs = match &object.state {
            DesiredState::Present { needs, .. } => needs.clone(),
            DesiredState::PolicyLinks { attach, .. } => attach.clone(),
            _ => Vec::new(),
        };
        assert!(needs.iter().all(|need| before.contains(need)), "{}", object.id);
        assert!(before.insert(object.id.clone()), "{} is there twice", object.id);
    }
    assert_eq!(desired.len(), 19);
}

#[test]
fn omitted_parts_are_not_declared() {
    let (operator, clusters) = (OperatorIds::new(OperatorId::parse("op").unwrap()), BTreeSet::new());
    let around = around(&operator, &clusters, Edition::Community);
    assert_eq!(
        desired(&spec(json!({ "controlPlane": "consul" })), &around),
        around.nothing_declared(),
        "a manifest that says nothing wants nothing"
    );
    let some = spec(json!({
        "controlPlane": "consul",
        "serviceTokens": { "boundPrincipals": ["arn:aws:iam::111122223333:role/a"] },
    }));
    let names: Vec<String> =
        desired(&some, &around).objects.iter().map(|object| object.id.to_string()).collect();
    let expected = ["auth method iam-ecs-service-token", "binding rule iam-ecs-service-token/service"];
    assert_eq!(names, expected, "no kind of gateway");
}

#[test]
fn only_literal_clusters_of_consul_bindings_count() {
    let binding = |name: &str, control_plane: &str, kind, clusters: &[&str]| {
        let clusters: Vec<Glob> = clusters.iter().copied().map(Glob::new).collect();
        let selector = BindingSelector { clusters, ..BindingSelector::default() };
        let mut spec: MeshBindingSpec =
            serde_json::from_value(json!({ "controlPlane": control_plane, "selector": { "clusters": [] } }))
                .unwrap();
        spec.selector = selector;
        let binding =
            Binding { name: name.into(), spec, control_plane_type: kind, guard_released_until: None };
        (Arc::from(name), Arc::new(binding))
    };
    let other = DEMO.replace("demo", "other");
    let set = ManifestSet {
        bindings: [
            binding("a", "consul", ControlPlaneType::Consul, &[DEMO, "*:cluster/prod-*"]),
            binding("b", "consul-2", ControlPlaneType::Consul, &[&other]),
            binding("c", "kuma", ControlPlaneType::Kuma, &[&other]),
        ]
        .into(),
        ..ManifestSet::default()
    };
    assert_eq!(named_clusters(&set, "consul"), BTreeSet::from([ClusterArn::parse(DEMO).unwrap()]));
}

#[test]
fn star_means_all_existing_namespaces() {
    let mut consul: ConsulConnection =
        serde_json::from_value(json!({ "address": "https://consul.internal:8501" })).unwrap();
    let all = BTreeSet::from(["default".into(), "team".into()]);
    assert_eq!(Edition::of(&consul, &all), Edition::Community);
    consul.namespaces = vec!["*".into()];
    assert_eq!(
        Edition::of(&consul, &all),
        Edition::Enterprise { partition: "default".into(), namespaces: all.clone() }
    );
}

#[test]
fn existing_rule_is_named_like_a_declared_one() {
    let operator = OperatorId::parse("op").unwrap();
    let marked = |text: &str| with_mark(text, &operator);
    for kind in GatewayKind::ALL {
        let made = RuleKey::all_well_known("m").into_iter().find(|made| made.what == kind.as_str()).unwrap();
        let (bind_type, bind_name) = &made.key.bind;
        let rule = json!({
            "AuthMethod": "m", "Description": marked(made.key.text), "BindType": bind_type,
            "BindName": &**bind_name, "ID": "4fa6e11c-21d1-3462-a316-99515e5544f7",
        });
        assert_eq!(rule_name(&rule), format!("m/{}", kind.as_str()));
        let id = ObjectId {
            kind: ObjectKind::BindingRule,
            scope: ObjectScope::default(),
            name: rule_name(&rule).into(),
        };
        let field = format!("serviceTokens.absentGateways: [{}]", kind.as_str());
        assert_eq!(absent_by(&id).as_deref(), Some(&*field));
    }
    let of_others = json!({"AuthMethod": "m", "BindType": "role", "BindName": "admins", "ID": "1"});
    assert_eq!(rule_name(&of_others), "m/admins");
}

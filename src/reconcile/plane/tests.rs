use super::*;
use ecs_mesh_kuma::{HttpTransport, KumaControlPlane, NoObserver, settings};
use ecs_mesh_manifests::Sources;
use ecs_mesh_model::OperatorId;

fn plane() -> Plane {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let spec: ControlPlaneSpec = serde_json::from_value(
        serde_json::json!({"type": "kuma", "kuma": {"address": "http://127.0.0.1:1"}}),
    )
    .unwrap();
    let transport = HttpTransport::new(settings(spec.kuma.as_ref().unwrap())).unwrap();
    let mesh = KumaControlPlane::new(transport, OperatorId::parse("op").unwrap(), Arc::new(NoObserver));
    Plane::new("kuma".into(), Arc::new(spec), Connected::new(Arc::new(mesh)), 1)
}

#[test]
fn only_clusters_that_a_binding_of_this_control_plane_selects_are_its_business() {
    let document = |kind: &str, name: &str, spec: &str| {
        format!(
            "apiVersion: ecs-mesh.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n---\n"
        )
    };
    let arn = |name: &str| format!("arn:aws:ecs:eu-west-1:111122223333:cluster/{name}");
    let binding = |name: &str, control_plane: &str| {
        let spec = format!("{{controlPlane: {control_plane}, selector: {{clusters: ['{}']}}}}", arn(name));
        document("MeshBinding", name, &spec)
    };
    let at = "{type: kuma, kuma: {address: 'http://127.0.0.1:1'}}";
    let text = [
        document("ControlPlane", "kuma", at),
        document("ControlPlane", "other", &at.replace(":1'", ":2'")),
        binding("one", "kuma"),
        binding("two", "other"),
    ];
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("all.yaml"), text.concat()).unwrap();
    let loaded = Sources::new([directory.path().to_owned()]).load(None).into_loaded().unwrap();
    assert_eq!(loaded.errors, []);
    let (plane, cluster) = (plane(), |name| ClusterArn::parse(&arn(name)).unwrap());
    let binds = ["one", "two", "three"].map(|name| plane.binds(&loaded.set, &cluster(name)));
    assert_eq!(binds, [true, false, false]);
}

/// A part of that name.
#[derive(Debug)]
struct Named(&'static str);

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl ecs_mesh_control_plane::Part for Named {
    fn holds(&self, _id: &RegistrationId) -> bool {
        true
    }
}

#[test]
fn work_begins_with_the_first_part_that_is_listed_and_all_is_listed_only_without_a_failed_one() {
    let plane = plane();
    let failed = |name| {
        let error = MeshError { kind: MeshErrorKind::Forbidden, message: String::new(), retry_after: None };
        FailedPart { part: Arc::new(Named(name)), error }
    };
    assert!(!plane.is_listed());
    assert_eq!(plane.was_listed(&[failed("a"), failed("b")]), (true, Vec::new()));
    assert_eq!((plane.is_listed(), plane.is_listed_whole()), (true, false));
    assert_eq!(plane.unlisted(), ["a", "b"]);
    assert_eq!(plane.was_listed(&[failed("b")]), (false, vec!["a".to_owned()]));
    assert_eq!(plane.was_listed(&[]), (false, vec!["b".to_owned()]));
    assert!(plane.is_listed_whole() && plane.unlisted().is_empty());
    // Later failures do not take that back, and are shown.
    plane.was_listed(&[failed("a")]);
    assert_eq!((plane.is_listed_whole(), plane.unlisted()), (true, vec!["a".to_owned()]));
}

#[test]
fn an_unknown_target_is_told_of_once_after_a_while_and_again_when_it_is_found() {
    let (plane, mesh) = (plane(), MeshName::parse("default").unwrap());
    let sweep = |unknown: &[&str], seconds: i64| {
        let unknown = unknown.iter().map(|name| (*name).to_owned()).collect();
        plane.unknown_targets(&mesh, unknown, Timestamp(seconds * 1_000))
    };
    let none: (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    assert_eq!(sweep(&["kv"], 0), none);
    assert_eq!(sweep(&["kv"], 59), none);
    assert_eq!(sweep(&["kv"], 60), (vec!["kv".to_owned()], Vec::new()));
    assert_eq!(sweep(&["kv"], 600), none);
    assert_eq!(sweep(&[], 601), (Vec::new(), vec!["kv".to_owned()]));
}

#[test]
fn what_goes_out_many_in_a_request_is_one_write() {
    let plane = plane();
    let paid = |together| (0..130).filter(|_| plane.pays_for_a_write(together)).count();
    assert_eq!(paid(1), 130);
    assert_eq!(paid(64), 3);
}

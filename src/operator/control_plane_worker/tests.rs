use super::*;
use ecs_mesh_controller::NoSecrets;
use ecs_mesh_kuma::{HttpTransport, KumaControlPlane, NoObserver, settings};
use ecs_mesh_manifests::ManifestSources;
use ecs_mesh_model::OperatorId;

fn kuma_worker() -> ControlPlaneWorker {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let spec: ControlPlaneSpec = serde_json::from_value(
        serde_json::json!({"type": "kuma", "kuma": {"address": "http://127.0.0.1:1"}}),
    )
    .unwrap();
    let settings = settings(spec.kuma.as_ref().unwrap(), &ecs_mesh_api::AllowList::default());
    let transport = HttpTransport::new(settings, Arc::new(NoSecrets)).unwrap();
    let mesh = KumaControlPlane::new(transport, OperatorId::parse("op").unwrap(), Arc::new(NoObserver));
    ControlPlaneWorker::new(
        "kuma".into(),
        Arc::new(spec),
        Connected::new(Arc::new(mesh)),
        Arc::new(Journal::new(ecs_mesh_clock::Clock::system())),
        1,
    )
}

#[test]
fn control_plane_handles_only_bound_clusters() {
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
    let loaded = ManifestSources::new([directory.path().to_owned()]).load(None).into_loaded().unwrap();
    assert_eq!(loaded.errors, []);
    let (worker, cluster) = (kuma_worker(), |name| ClusterArn::parse(&arn(name)).unwrap());
    let binds = ["one", "two", "three"].map(|name| worker.selects_cluster(&loaded.set, &cluster(name)));
    assert_eq!(binds, [true, false, false]);
}

/// A part of that name.
#[derive(Debug)]
struct NamedSegment(&'static str);

impl std::fmt::Display for NamedSegment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl ecs_mesh_control_plane::ListSegment for NamedSegment {
    fn contains(&self, _id: &RegistrationId) -> bool {
        true
    }
}

#[test]
fn worker_is_fully_synced_only_without_failed_segment() {
    let worker = kuma_worker();
    let failed = |name| {
        let error = MeshError::new(MeshErrorKind::Forbidden, "");
        FailedSegment { segment: Arc::new(NamedSegment(name)), error }
    };
    assert!(!worker.is_synced());
    assert_eq!(worker.record_list_result(&[failed("a"), failed("b")]), (true, Vec::new()));
    assert_eq!((worker.is_synced(), worker.is_fully_synced()), (true, false));
    assert_eq!(worker.unlisted_segments(), ["a", "b"]);
    assert_eq!(worker.record_list_result(&[failed("b")]), (false, vec!["a".to_owned()]));
    assert_eq!(worker.record_list_result(&[]), (false, vec!["b".to_owned()]));
    assert!(worker.is_fully_synced() && worker.unlisted_segments().is_empty());
    // Later failures do not take that back, and are shown.
    worker.record_list_result(&[failed("a")]);
    assert_eq!((worker.is_fully_synced(), worker.unlisted_segments()), (true, vec!["a".to_owned()]));
}

#[test]
fn unknown_outbound_warns_once_and_logs_recovery() {
    let (worker, mesh) = (kuma_worker(), MeshName::parse("default").unwrap());
    let sweep = |unknown: &[&str], seconds: i64| {
        let unknown = unknown.iter().map(|name| (*name).to_owned()).collect();
        worker.record_unknown_outbounds(&mesh, unknown, Timestamp(seconds * 1_000))
    };
    let none: (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    assert_eq!(sweep(&["kv"], 0), none);
    assert_eq!(sweep(&["kv"], 59), none);
    assert_eq!(sweep(&["kv"], 60), (vec!["kv".to_owned()], Vec::new()));
    assert_eq!(sweep(&["kv"], 600), none);
    assert_eq!(sweep(&[], 601), (Vec::new(), vec!["kv".to_owned()]));
}

#[test]
fn unbound_mesh_has_no_unknown_outbounds() {
    let worker = kuma_worker();
    let meshes = ["default", "other"].map(|name| MeshName::parse(name).unwrap());
    for mesh in &meshes {
        worker.record_unknown_outbounds(mesh, ["kv".to_owned()].into(), Timestamp(0));
        worker.raise_unbindable(mesh);
    }
    worker.retain_meshes(&[meshes[0].clone()].into());
    assert_eq!(worker.unknown_outbound_counts(), [("default".into(), 1)].into());
    assert!(!worker.raise_unbindable(&meshes[0]));
    assert!(worker.raise_unbindable(&meshes[1]), "it is reported again once it is bound again");
}

#[test]
fn batched_removals_are_charged_as_one_write() {
    let worker = kuma_worker();
    let paid = |together| (0..130).filter(|_| worker.writes.is_charged(together)).count();
    assert_eq!(paid(1), 130);
    assert_eq!(paid(64), 3);
}

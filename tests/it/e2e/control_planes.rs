//! Control planes that cannot be used: each is told of once, in words that say what to do, is not asked again and
//! again, and holds up nobody else.

use std::collections::BTreeMap;
use std::time::Duration;

use ecs_mesh_sandbox::kuma::{KumaConfig, KumaMode};

use super::harness::{Harness, OperatorProcess, binding, control_plane, tag, workload};
use super::servers::{TestKuma, TestServer, absent, self_signed, silent, unknown, website};

/// A few tasks, a few sweeps and every first retry come to some twenty calls; a loop comes to thousands.
const MOST_CALLS: usize = 60;
/// One of the trouble; one of the circuit, or of what could not be learned.
const MOST_LINES: usize = 2;

/// A control plane at which nothing works.
struct BrokenControlPlane {
    name: &'static str,
    server: TestServer,
    /// Further fields of `spec.kuma`.
    more: String,
    mesh: &'static str,
    /// The `reason` of the warning, and a part of its text.
    warning: (&'static str, &'static str),
}

impl BrokenControlPlane {
    fn new(name: &'static str, server: TestServer, warning: (&'static str, &'static str)) -> Self {
        Self { name, server, more: String::new(), mesh: "default", warning }
    }

    /// The fields of the warning.
    fn fields(&self) -> [(&'static str, &'static str); 4] {
        let (reason, part) = self.warning;
        [("level", "WARN"), ("control_plane", self.name), ("reason", reason), ("*", part)]
    }

    /// Binds a cluster of its own, with two tasks, to it. Gives the manifests.
    async fn furnish(&self, house: &Harness) -> String {
        let name = self.name;
        let made = house.ecs().create_cluster().cluster_name(name).send().await.unwrap();
        let cluster = made.cluster.unwrap().cluster_arn.unwrap();
        house.role(name).await;
        let mesh = tag("kuma.io/mesh", self.mesh);
        house.iam().tag_role().role_name(format!("{name}-task")).tags(mesh).send().await.unwrap();
        house.define(name).await;
        house.serve(name, name, 2).await;
        let binding = binding(name, name, &cluster, "");
        [
            control_plane(name, &self.server.url, &self.more),
            binding.replace("mesh: default", &format!("mesh: {}", self.mesh)),
            workload(name, name),
        ]
        .concat()
    }

    /// It is told of as it should be, not often, and not called often.
    async fn assert_told_once(&self, operator: &OperatorProcess) {
        operator.line(&self.fields()).await;
        let lines = operator.lines(&[("control_plane", self.name)]).into_iter();
        let loud: Vec<String> =
            lines.filter(|line| line["level"] != "INFO").map(|line| line.to_string()).collect();
        assert!(loud.len() <= MOST_LINES, "{} lines:\n{}", loud.len(), loud.join("\n"));
        assert!(self.server.count_call() <= MOST_CALLS, "{}: {} calls", self.name, self.server.count_call());
    }
}

#[tokio::test]
async fn unusable_control_plane_does_not_block_others() {
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "planted-wrong-token").unwrap();
    let closed = KumaConfig {
        localhost_is_admin: false,
        admin_token: Some("the-right-one".to_owned()),
        ..KumaConfig::default()
    };
    let closed = TestKuma::start(closed, Duration::ZERO).await;
    let other_mesh = TestKuma::start(KumaConfig::default(), Duration::ZERO).await;
    let read_only =
        TestKuma::start(KumaConfig { read_only: true, ..KumaConfig::default() }, Duration::ZERO).await;
    let global = KumaConfig { mode: KumaMode::Global, ..KumaConfig::default() };
    let global = TestKuma::start(global, Duration::ZERO).await;
    let all = [
        BrokenControlPlane::new("absent", absent(), ("unreachable", "ControlPlane.spec.kuma.address")),
        BrokenControlPlane::new("unknown", unknown(), ("unreachable", "kuma.invalid")),
        BrokenControlPlane::new("website", website().await, ("unexpected_response", "HTML")),
        BrokenControlPlane::new("self-signed", self_signed(), ("unreachable", "ControlPlane.spec.kuma.caFile")),
        BrokenControlPlane {
            more: format!(", tokenFile: \"{}\"", token.path().display()),
            ..BrokenControlPlane::new("closed", closed.server, ("forbidden", "tokenFile"))
        },
        BrokenControlPlane {
            mesh: "nowhere",
            ..BrokenControlPlane::new("other-mesh", other_mesh.server, ("mesh_not_found", "MeshBinding.spec.mesh"))
        },
        BrokenControlPlane::new("read-only", read_only.server, ("read_only", "ControlPlane.spec.kuma.address")),
        BrokenControlPlane::new("global", global.server, ("read_only", "ControlPlane.spec.kuma.address")),
    ];
    let house = Harness::open().await;
    let mut manifests = house.usual();
    for broken in &all {
        manifests.push_str(&broken.furnish(&house).await);
    }
    house.manifest("all.yaml", &manifests);
    let queue = house.variable("ECS_MESH_QUEUE_URL").to_owned();
    let mut operator = house.operator(&["--queue-url", &queue]);
    house.deploy("app", 2).await;
    house.dataplanes_once("Dataplanes at the good control plane", |found| found.len() == 2).await;
    house.scale("app", 0).await;
    house.dataplanes_once("removals at the good control plane", BTreeMap::is_empty).await;
    // Sweeps come one after the other, so that by then there were retries enough.
    operator.wait_for_sweeps(3).await;
    for broken in &all {
        broken.assert_told_once(&operator).await;
    }
    assert!(!operator.stderr().contains("planted-wrong-token"));
    assert!(!operator.stderr().contains("MeshError"), "words for persons: {}", operator.stderr());
    for kuma in [&closed.cp, &other_mesh.cp, &read_only.cp, &global.cp] {
        assert_eq!(kuma.lock().unwrap().dataplanes().count(), 0);
    }
    assert!(operator.is_running());
}

#[tokio::test]
async fn hung_control_plane_does_not_block_others() {
    let house = Harness::open().await;
    // Longer than anybody waits here: whoever waits for it is never done.
    let hanging = BrokenControlPlane {
        more: ", timeout: 2m".to_owned(),
        ..BrokenControlPlane::new("hanging", silent().await, ("unreachable", ""))
    };
    let manifests = [house.usual(), hanging.furnish(&house).await].concat();
    house.manifest("all.yaml", &manifests);
    let queue = house.variable("ECS_MESH_QUEUE_URL").to_owned();
    let mut operator = house.operator(&["--queue-url", &queue, "--graceful-shutdown-timeout", "1s"]);
    house.deploy("app", 3).await;
    house.dataplanes_once("Dataplanes while it hangs", |found| found.len() == 3).await;
    house.scale("app", 0).await;
    house.dataplanes_once("removals while it hangs", BTreeMap::is_empty).await;
    assert!(operator.lines(&hanging.fields()).is_empty(), "a call ended before its time limit");
    assert!((1..=MOST_CALLS).contains(&hanging.server.count_call()), "{} calls", hanging.server.count_call());
    operator.signal("TERM");
    assert_eq!(operator.code().await, Some(0));
}

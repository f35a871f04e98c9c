//! Control planes that cannot be used: each is told of once, in words that say what to do, is not asked again and
//! again, and holds up nobody else.

use std::collections::BTreeMap;
use std::time::Duration;

use ecs_mesh_sandbox::kuma::{KumaConfig, KumaMode};

use super::house::{House, Process, binding, control_plane, eventually, tag, workload};
use super::servers::{Kuma, Server, absent, self_signed, silent, unknown, website};

/// A few tasks, a few sweeps and every first retry come to some twenty calls; a loop comes to thousands.
const MOST_CALLS: usize = 60;
/// One of the trouble; one of the circuit, or of what could not be learned.
const MOST_LINES: usize = 2;

/// A control plane at which nothing works.
struct Broken {
    name: &'static str,
    server: Server,
    /// Further fields of `spec.kuma`.
    more: String,
    mesh: &'static str,
    /// What the log must say.
    words: &'static [&'static str],
}

impl Broken {
    fn new(name: &'static str, server: Server, words: &'static [&'static str]) -> Self {
        Self { name, server, more: String::new(), mesh: "default", words }
    }

    /// Binds a cluster of its own, with two tasks, to it. Gives the manifests.
    async fn furnish(&self, house: &House) -> String {
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
    async fn assert_told_once(&self, operator: &Process) {
        let quoted = format!("\"{}\"", self.name);
        operator.says(&[&[quoted.as_str()], self.words].concat()).await;
        let lines = operator.said(&[&quoted]).into_iter();
        let loud: Vec<String> =
            lines.filter(|line| line["level"] != "INFO").map(|line| line.to_string()).collect();
        assert!(loud.len() <= MOST_LINES, "{} lines:\n{}", loud.len(), loud.join("\n"));
        assert!(self.server.calls() <= MOST_CALLS, "{}: {} calls", self.name, self.server.calls());
    }
}

#[tokio::test]
async fn control_planes_that_cannot_be_used_are_told_of_once_and_hold_up_nobody_else() {
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "planted-wrong-token").unwrap();
    let closed = KumaConfig {
        localhost_is_admin: false,
        admin_token: Some("the-right-one".to_owned()),
        ..KumaConfig::default()
    };
    let closed = Kuma::start(closed, Duration::ZERO).await;
    let other_mesh = Kuma::start(KumaConfig::default(), Duration::ZERO).await;
    let read_only =
        Kuma::start(KumaConfig { read_only: true, ..KumaConfig::default() }, Duration::ZERO).await;
    let global = KumaConfig { mode: KumaMode::Global, ..KumaConfig::default() };
    let global = Kuma::start(global, Duration::ZERO).await;
    let all = [
        Broken::new("absent", absent(), &["is not reached", "ControlPlane.spec.kuma.address"]),
        Broken::new("unknown", unknown(), &["kuma.invalid", "ControlPlane.spec.kuma.address"]),
        Broken::new("website", website().await, &["HTML", "check"]),
        Broken::new("self-signed", self_signed(), &["TLS", "ControlPlane.spec.kuma.caFile"]),
        Broken {
            more: format!(", tokenFile: \"{}\"", token.path().display()),
            ..Broken::new("closed", closed.server, &["401", "tokenFile"])
        },
        Broken {
            mesh: "nowhere",
            ..Broken::new("other-mesh", other_mesh.server, &["nowhere", "MeshBinding.spec.mesh"])
        },
        Broken::new("read-only", read_only.server, &["read-only", "ControlPlane.spec.kuma.address"]),
        Broken::new("global", global.server, &["global", "ControlPlane.spec.kuma.address"]),
    ];
    let house = House::open().await;
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
    eventually("sweeps", || async { (operator.said(&["\"swept\""]).len() >= 3).then_some(()) }).await;
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
async fn a_control_plane_that_hangs_holds_up_nobody_else() {
    let house = House::open().await;
    // Longer than anybody waits here: whoever waits for it is never done.
    let hanging = Broken {
        more: ", timeout: 2m".to_owned(),
        ..Broken::new("hanging", silent().await, &["gave no whole answer"])
    };
    let manifests = [house.usual(), hanging.furnish(&house).await].concat();
    house.manifest("all.yaml", &manifests);
    let queue = house.variable("ECS_MESH_QUEUE_URL").to_owned();
    let mut operator = house.operator(&["--queue-url", &queue, "--drain-deadline", "1s"]);
    house.deploy("app", 3).await;
    house.dataplanes_once("Dataplanes while it hangs", |found| found.len() == 3).await;
    house.scale("app", 0).await;
    house.dataplanes_once("removals while it hangs", BTreeMap::is_empty).await;
    assert!(operator.said(hanging.words).is_empty(), "it has not hung all the time");
    assert!((1..=MOST_CALLS).contains(&hanging.server.calls()), "{} calls", hanging.server.calls());
    operator.signal("TERM");
    assert_eq!(operator.code().await, Some(0));
}

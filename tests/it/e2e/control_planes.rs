//! Unusable control planes: each is reported once with a remedy, is not called in a loop, and delays no other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ecs_mesh_sandbox::kuma::{KumaConfig, KumaMode};

use super::harness::{Harness, OperatorProcess, binding, control_plane, eventually, tag, workload};
use super::servers::{
    TestKuma, TestServer, hanging_server, html_server, refused_address, self_signed_server, unresolvable_name,
};

/// Some tasks, sweeps and first retries make about twenty calls; a loop would make thousands.
const MAX_CALLS: usize = 60;
/// One line for the error, one for the circuit or for missing capabilities.
const MAX_LINES: usize = 2;

/// A control plane that cannot be used.
struct BrokenControlPlane {
    name: &'static str,
    server: TestServer,
    /// Further fields of `spec.kuma`.
    more: String,
    mesh: &'static str,
    /// The `reason` of the expected warning and a part of its line.
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

    /// Creates a cluster with two tasks and returns manifests that bind it to the control plane.
    async fn create(&self, harness: &Harness) -> String {
        let name = self.name;
        let made = harness.ecs().create_cluster().cluster_name(name).send().await.unwrap();
        let cluster = made.cluster.unwrap().cluster_arn.unwrap();
        harness.role(name).await;
        let mesh = tag("kuma.io/mesh", self.mesh);
        harness.iam().tag_role().role_name(format!("{name}-task")).tags(mesh).send().await.unwrap();
        harness.define(name).await;
        harness.serve(name, name, 2).await;
        let binding = binding(name, name, &cluster, "");
        [
            control_plane(name, &self.server.url, &self.more),
            binding.replace("mesh: default", &format!("mesh: {}", self.mesh)),
            workload(name, name),
        ]
        .concat()
    }

    /// Checks that the warning is logged, and that lines and calls stay few.
    async fn assert_reported_once(&self, operator: &OperatorProcess) {
        operator.line(&self.fields()).await;
        let lines = operator.lines(&[("control_plane", self.name)]).into_iter();
        let warnings: Vec<String> =
            lines.filter(|line| line["level"] != "INFO").map(|line| line.to_string()).collect();
        assert!(warnings.len() <= MAX_LINES, "{} lines:\n{}", warnings.len(), warnings.join("\n"));
        assert!(self.server.call_count() <= MAX_CALLS, "{}: {} calls", self.name, self.server.call_count());
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
        BrokenControlPlane::new(
            "absent",
            refused_address(),
            ("unreachable", "ControlPlane.spec.kuma.address"),
        ),
        BrokenControlPlane::new("unknown", unresolvable_name(), ("unreachable", "kuma.invalid")),
        BrokenControlPlane::new("website", html_server().await, ("unexpected_response", "HTML")),
        BrokenControlPlane::new(
            "self-signed",
            self_signed_server(),
            ("unreachable", "ControlPlane.spec.kuma.caFile"),
        ),
        BrokenControlPlane {
            more: format!(", tokenFile: \"{}\"", token.path().display()),
            ..BrokenControlPlane::new("closed", closed.server, ("forbidden", "tokenFile"))
        },
        BrokenControlPlane {
            mesh: "nowhere",
            ..BrokenControlPlane::new(
                "other-mesh",
                other_mesh.server,
                ("mesh_not_found", "MeshBinding.spec.mesh"),
            )
        },
        BrokenControlPlane::new(
            "read-only",
            read_only.server,
            ("read_only", "ControlPlane.spec.kuma.address"),
        ),
        BrokenControlPlane::new("global", global.server, ("read_only", "ControlPlane.spec.kuma.address")),
    ];
    let harness = Harness::start().await;
    let mut manifests = harness.base_manifests();
    for broken in &all {
        manifests.push_str(&broken.create(&harness).await);
    }
    harness.manifest("all.yaml", &manifests);
    let queue = harness.variable("ECS_MESH_QUEUE_URL").to_owned();
    let mut operator = harness.operator(&["--queue-url", &queue]);
    harness.deploy("app", 2).await;
    harness.wait_for_dataplanes("Dataplanes at the good control plane", |found| found.len() == 2).await;
    harness.scale("app", 0).await;
    harness.wait_for_dataplanes("removals at the good control plane", BTreeMap::is_empty).await;
    // Three sweeps leave enough time for retries.
    operator.wait_for_sweeps(3).await;
    for broken in &all {
        broken.assert_reported_once(&operator).await;
    }
    assert!(!operator.stderr().contains("planted-wrong-token"));
    assert!(!operator.stderr().contains("MeshError"), "Debug output in the log: {}", operator.stderr());
    for kuma in [&closed.cp, &other_mesh.cp, &read_only.cp, &global.cp] {
        assert_eq!(kuma.lock().unwrap().dataplanes().count(), 0);
    }
    assert!(operator.is_running());
}

#[tokio::test]
async fn hung_control_plane_does_not_block_others() {
    let harness = Harness::start().await;
    // Longer than the test waits, so that waiting for this call would fail the test.
    let hanging = BrokenControlPlane {
        more: ", timeout: 2m".to_owned(),
        ..BrokenControlPlane::new("hanging", hanging_server().await, ("unreachable", ""))
    };
    let manifests = [harness.base_manifests(), hanging.create(&harness).await].concat();
    harness.manifest("all.yaml", &manifests);
    let queue = harness.variable("ECS_MESH_QUEUE_URL").to_owned();
    let mut operator = harness.operator(&["--queue-url", &queue, "--graceful-shutdown-timeout", "1s"]);
    harness.deploy("app", 3).await;
    harness.wait_for_dataplanes("Dataplanes while it hangs", |found| found.len() == 3).await;
    harness.scale("app", 0).await;
    harness.wait_for_dataplanes("removals while it hangs", BTreeMap::is_empty).await;
    assert!(operator.lines(&hanging.fields()).is_empty(), "a call ended before its time limit");
    assert!((1..=MAX_CALLS).contains(&hanging.server.call_count()), "{} calls", hanging.server.call_count());
    operator.signal("TERM");
    assert_eq!(operator.code().await, Some(0));
}

#[tokio::test]
async fn unsupported_control_plane_is_not_written_to() {
    let kuma = TestKuma::start(KumaConfig::default(), Duration::ZERO).await;
    let harness = Harness::start().await;
    let manifests = [
        control_plane("upgraded", &kuma.server.url, ""),
        binding("harness", "upgraded", harness.variable("ECS_MESH_CLUSTER_ARN"), ""),
        workload("app", "app"),
    ];
    harness.manifest("all.yaml", &manifests.concat());
    harness.deploy("app", 2).await;
    harness.running(2).await;
    let queue = harness.variable("ECS_MESH_QUEUE_URL").to_owned();
    let operator = harness.operator(&["--queue-url", &queue, "--metrics-address", "127.0.0.1:0"]);
    let listens = operator.line(&[("level", "INFO"), ("address", "")]).await;
    let url = |path: &str| format!("http://{}{path}", listens["address"].as_str().unwrap());
    eventually("both tasks are registered", || async { (kuma.dataplanes() == 2).then_some(()) }).await;

    let set_version = |version| kuma.cp.lock().unwrap().set_version(version);
    set_version("4.0.1");
    // The last answer about the version permits writes for some seconds.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let writes = kuma.writes();
    // Something to drain and to remove, and something to register.
    let stopped = harness.task_ids().await.remove(0);
    harness.ecs().stop_task().cluster("sandbox").task(&stopped).send().await.unwrap();
    let unsupported = [("level", "ERROR"), ("control_plane", "upgraded"), ("reason", "Kuma 4.0.1")];
    operator.line(&unsupported).await;
    operator.line(&[("task", &stopped), ("reason", "unsupported_control_plane")]).await;
    // The replacement runs, and the stopped task has gone.
    eventually("the replacement runs", || async {
        let ids = harness.task_ids().await;
        (ids.len() == 2 && !ids.contains(&stopped)).then_some(())
    })
    .await;
    let ids = harness.running(2).await;
    let before = operator.sweeps("").len();
    operator.wait_for_sweeps(before + 2).await;
    assert_eq!(kuma.writes(), writes, "{}", operator.stderr());
    assert_eq!(operator.lines(&unsupported).len(), 1, "{}", operator.stderr());

    let ready = harness.http.get(url("/readyz")).send().await.unwrap();
    assert_eq!(ready.status(), 503);
    let state: serde_json::Value = serde_json::from_str(&ready.text().await.unwrap()).unwrap();
    assert!(state["pending"][0].as_str().unwrap().contains("Kuma 4.0.1"), "{state}");
    let metrics = harness.http.get(url("/metrics")).send().await.unwrap().text().await.unwrap();
    let gauge = "ecs_mesh_control_plane_unsupported{control_plane=\"upgraded\"} 1";
    assert!(metrics.lines().any(|line| line == gauge), "{metrics}");
    let (code, plan) = harness.plan().await;
    assert_eq!(
        (code, &plan["unsupportedControlPlanes"][0]["controlPlane"]),
        (1, &"upgraded".into()),
        "{plan}"
    );
    let changes = plan["changes"].as_array().unwrap().iter();
    let mut changes: Vec<_> =
        changes.map(|one| (one["change"].as_str().unwrap(), one["blockedBy"].as_str().unwrap())).collect();
    changes.sort_unstable();
    let blocked = "unsupportedControlPlane";
    assert_eq!(changes, [("create", blocked), ("hold", blocked), ("remove", blocked)], "{plan}");
    let (code, text, _) = harness.run_to_end(&["plan"]).await;
    assert!(code == 1 && text.lines().next().unwrap().contains("Kuma 4.0.1"), "{text}");
    let (code, doctor, _) = harness.run_to_end(&["doctor"]).await;
    assert!(code == 1 && doctor.contains("Kuma 4.0.1"), "{code}: {doctor}");

    set_version("2.14.3");
    eventually("writes resume", || async {
        let names: BTreeSet<String> =
            kuma.cp.lock().unwrap().dataplanes().map(|(_, name, _)| name.to_owned()).collect();
        (names == ids.iter().cloned().collect()).then_some(())
    })
    .await;
    let ready = harness.http.get(url("/readyz")).send().await.unwrap();
    assert_eq!(ready.status(), 200);
}

/// A manifest could otherwise send any variable and any one-line file of the operator to an address of its own.
#[tokio::test]
async fn manifest_may_not_name_every_variable_and_file() {
    let harness = Harness::start().await;
    let secret = tempfile::tempdir_in("/tmp").unwrap();
    let file = secret.path().join("token");
    std::fs::write(&file, "hunter2").unwrap();
    std::os::unix::fs::symlink(&file, harness.path("link")).unwrap();
    let link = format!(", tokenFile: \"{}\"", harness.path("link").display());
    let collector = html_server().await;
    let all = [
        control_plane("by-variable", &collector.url, ", tokenEnv: AWS_SECRET_ACCESS_KEY"),
        control_plane("by-link", &collector.url, &link),
        binding("by-link", "by-link", "arn:aws:ecs:eu-west-1:111122223333:cluster/by-link", ""),
    ];
    harness.manifest("all.yaml", &(harness.base_manifests() + &all.concat()));
    let mut environment = harness.environment.clone();
    let only = harness.directory.path().display().to_string();
    environment.insert("ECS_MESH_ALLOW_DIR".to_owned(), only);
    harness.deploy("app", 1).await;
    let operator = harness.operator_with("operator", &environment, &[]);
    harness.wait_for_dataplanes("a Dataplane at the good control plane", |found| found.len() == 1).await;
    let refused = [("control_plane", "by-variable"), ("error", "tokenEnv: AWS_SECRET_ACCESS_KEY")];
    operator.line(&[&[("level", "ERROR")], &refused[..]].concat()).await;
    let refused = [("control_plane", "by-link"), ("reason", "forbidden"), ("error", "--allow-dir")];
    operator.line(&[&[("level", "WARN")], &refused[..]].concat()).await;
    assert_eq!(collector.call_count(), 0);
    assert!(!operator.stderr().contains("hunter2"), "{}", operator.stderr());
    let plan = harness.run_to_end(&["doctor", "--output", "json"]).await;
    assert!(plan.1.contains("tokenEnv: AWS_SECRET_ACCESS_KEY"), "{plan:?}");
}

//! Dataplanes that the operator does not own: those of sidecars in template mode, and those that it only observes.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::test_fixture::{OperatorFixture, document};
use ecs_mesh_aws::aws::AwsErrorKind;
use ecs_mesh_aws::fakes::{definition_arn, task_arn};
use ecs_mesh_core::plan::report::{BlockedBy, Change, PlannedChange};
use ecs_mesh_model::{
    ClusterArn, ClusterId, DesiredStatus, LastStatus, RoleArn, SidecarDataplane, Task, TaskId,
};

/// A Workload for the tasks of the service `web` whose Dataplanes have this owner.
fn web(dataplanes: &str) -> String {
    let inbound = "{name: http, containerPort: 8080, port: 15000, protocol: http}";
    let spec = format!(
        "selector: {{services: [web]}}, service: web, dataplanes: {dataplanes}, inbounds: [{inbound}]"
    );
    document("Workload", "web", &spec)
}

/// The labels of a template for the task `n`.
fn labels(n: usize) -> Value {
    let cluster = ClusterArn::parse("arn:aws:ecs:eu-west-1:111122223333:cluster/c").unwrap();
    json!({
        "ecs-mesh.dev/operator": "op", "ecs-mesh.dev/cluster": "c",
        "ecs-mesh.dev/cluster-id": ClusterId::of(&cluster).as_str(), "ecs-mesh.dev/task-id": n.to_string(),
    })
}

impl OperatorFixture {
    /// One task of `web`, whose Dataplane has this owner.
    fn of_web(dataplanes: &str, sidecar: SidecarDataplane) -> Self {
        let mut fixture = Self::new(&[("web", 1)]);
        fixture.cleanup = "{sweepInterval: 1m, drain: 1s}".to_owned();
        fixture.ecs.sidecars.lock().unwrap().insert(definition_arn(1), sidecar);
        fixture.edit(&web(dataplanes));
        fixture
    }

    /// The sidecar of the task `n` connects with its template.
    fn connect(&self, name: &str, port: u16, labels: &Value) {
        let tags = json!({"kuma.io/service": "web", "kuma.io/protocol": "http"});
        let inbound = json!({"port": port, "servicePort": 8080, "tags": tags});
        let template = json!({
            "type": "Dataplane", "mesh": "default", "name": name, "labels": labels,
            "networking": {"address": "10.0.0.1", "inbound": [inbound]},
        });
        let mut kuma = self.kuma.lock().unwrap();
        kuma.connect_with_template(("default", name), "10.0.0.1", &template, self.clock.now()).unwrap();
    }

    /// ECS stops the task `n`, or has stopped it.
    fn set_status(&self, n: usize, last_status: LastStatus) {
        let id = TaskId::parse(&n.to_string()).unwrap();
        let mut tasks = self.ecs.tasks.lock().unwrap();
        let task = tasks.get_mut(&id).unwrap();
        task.version += 1;
        (task.desired_status, task.last_status) = (DesiredStatus::Stopped, last_status);
    }

    /// Another task of `web` runs, with the same address.
    fn start_task(&self, n: usize) {
        let mut tasks = self.ecs.tasks.lock().unwrap();
        let first = tasks[&TaskId::parse("0").unwrap()].clone();
        let task = Task { arn: task_arn(n), ..first };
        tasks.insert(TaskId::parse(&n.to_string()).unwrap(), task);
    }

    fn names(&self) -> Vec<String> {
        self.kuma.lock().unwrap().dataplanes().map(|(_, name, _)| name.to_owned()).collect()
    }

    /// The operator's writes so far: method and name.
    fn writes(&self) -> Vec<String> {
        let journal = self.kuma.lock().unwrap().take_journal();
        journal.iter().map(|entry| format!("{} {}", entry.method, entry.name)).collect()
    }

    fn has_metric(&self, line: &str) -> bool {
        let metrics = self.operator.as_ref().unwrap().context.metrics().render();
        metrics.lines().any(|found| found == line)
    }

    fn is_checked_as(&self, owner: &str, state: &str) -> bool {
        let labels = format!("control_plane=\"kuma\",dataplanes=\"{owner}\",state=\"{state}\"");
        self.has_metric(&format!("ecs_mesh_checked_dataplanes{{{labels}}} 1"))
    }

    async fn planned(&self) -> Vec<PlannedChange> {
        self.plan().await.changes.into_iter().map(|entry| entry.change).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn dataplane_of_a_sidecar_is_checked_and_never_written() {
    let mut fixture = OperatorFixture::of_web("sidecar", SidecarDataplane::Template);
    fixture.start();
    sleep(Duration::from_secs(30)).await;
    assert!(fixture.is_checked_as("sidecar", "missing"));
    let warned = "ecs_mesh_tasks_with_warnings{control_plane=\"kuma\",reason=\"dataplane_missing\"}";
    assert!(fixture.has_metric(&format!("{warned} 0")), "sidecars start at their own pace");
    sleep(Duration::from_mins(2)).await;
    assert!(fixture.has_metric(&format!("{warned} 1")));

    fixture.connect("0", 15_000, &labels(0));
    sleep(Duration::from_mins(2)).await;
    assert!(fixture.is_checked_as("sidecar", "as_declared"));
    assert!(fixture.has_metric(&format!("{warned} 0")));

    fixture.connect("0", 15_001, &labels(0));
    sleep(Duration::from_mins(2)).await;
    assert!(fixture.is_checked_as("sidecar", "differs"));

    fixture.connect("0", 15_000, &json!({"ecs-mesh.dev/operator": "op"}));
    sleep(Duration::from_mins(2)).await;
    assert!(fixture.is_checked_as("sidecar", "unlabelled"));
    assert_eq!(fixture.writes(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn labelled_dataplane_of_a_killed_task_is_removed() {
    let mut fixture = OperatorFixture::of_web("sidecar", SidecarDataplane::Template);
    fixture.connect("0", 15_000, &labels(0));
    fixture.start();
    sleep(Duration::from_mins(2)).await;
    fixture.set_status(0, LastStatus::Deactivating);
    sleep(Duration::from_mins(2)).await;
    assert_eq!(fixture.writes(), [""; 0], "it is not drained");
    fixture.kuma.lock().unwrap().kill_sidecar("default", "0", fixture.clock.now());
    fixture.set_status(0, LastStatus::Stopped);
    sleep(Duration::from_mins(2)).await;
    assert_eq!(fixture.writes(), ["DELETE 0"]);
}

#[tokio::test(start_paused = true)]
async fn unlabelled_dataplane_of_a_killed_task_is_reported() {
    let mut fixture = OperatorFixture::of_web("sidecar", SidecarDataplane::Template);
    fixture.connect("0", 15_000, &json!({}));
    fixture.start();
    sleep(Duration::from_mins(2)).await;
    fixture.kuma.lock().unwrap().kill_sidecar("default", "0", fixture.clock.now());
    fixture.set_status(0, LastStatus::Stopped);
    sleep(Duration::from_mins(3)).await;
    assert_eq!((fixture.names(), fixture.writes()), (vec!["0".to_owned()], Vec::new()));
    assert!(fixture.is_checked_as("sidecar", "left_behind"));
    let warned = "ecs_mesh_tasks_with_warnings{control_plane=\"kuma\",reason=\"dataplane_left_behind\"} 1";
    assert!(fixture.has_metric(warned));
}

#[tokio::test(start_paused = true)]
async fn clean_stop_of_a_sidecar_leaves_nothing_to_report() {
    let mut fixture = OperatorFixture::of_web("sidecar", SidecarDataplane::Template);
    fixture.connect("0", 15_000, &json!({}));
    fixture.start();
    sleep(Duration::from_mins(2)).await;
    fixture.kuma.lock().unwrap().disconnect_sidecar("default", "0", fixture.clock.now());
    fixture.set_status(0, LastStatus::Stopped);
    sleep(Duration::from_secs(15)).await;
    fixture.kuma.lock().unwrap().tick(fixture.clock.now());
    sleep(Duration::from_mins(2)).await;
    assert_eq!(fixture.names(), [""; 0]);
    assert!(!fixture.is_checked_as("sidecar", "left_behind"));
}

/// The registration of a running task stays as it is, and is still drained and removed when the task stops.
#[tokio::test(start_paused = true)]
async fn own_registration_is_kept_when_the_sidecar_becomes_the_owner() {
    let mut fixture = OperatorFixture::of_web("operator", SidecarDataplane::Named);
    fixture.start();
    sleep(Duration::from_mins(1)).await;
    assert_eq!(fixture.writes(), ["PUT 0"]);
    fixture.edit(&web("sidecar").replace("15000", "15001"));
    // Another process knows only what the control plane has.
    fixture.start();
    sleep(Duration::from_mins(3)).await;
    assert_eq!(fixture.writes(), [""; 0]);
    assert!(fixture.is_checked_as("sidecar", "differs"));
    fixture.set_status(0, LastStatus::Deactivating);
    sleep(Duration::from_mins(3)).await;
    assert_eq!(fixture.writes(), ["PUT 0"], "drained");
    fixture.set_status(0, LastStatus::Stopped);
    sleep(Duration::from_mins(3)).await;
    assert_eq!(fixture.writes(), ["DELETE 0"]);
}

#[tokio::test(start_paused = true)]
async fn task_in_template_mode_is_held_when_the_operator_becomes_the_owner() {
    for labelled in [labels(0), json!({})] {
        let mut fixture = OperatorFixture::of_web("sidecar", SidecarDataplane::Template);
        fixture.connect("0", 15_001, &labelled);
        fixture.start();
        sleep(Duration::from_mins(2)).await;
        fixture.edit(&web("operator"));
        sleep(Duration::from_mins(5)).await;
        assert_eq!(fixture.writes(), [""; 0], "{labelled}");
        let held = "ecs_mesh_tasks_with_warnings{control_plane=\"kuma\",reason=\"template_mode\"} 1";
        assert!(fixture.has_metric(held), "{labelled}");
        assert!(!fixture.is_checked_as("sidecar", "differs"), "the operator is the owner");
    }
}

/// Another process, which knows nothing of the sidecar, reads the definition first.
#[tokio::test(start_paused = true)]
async fn leaving_template_task_is_not_drained_by_a_new_process() {
    let mut fixture = OperatorFixture::of_web("sidecar", SidecarDataplane::Template);
    fixture.connect("0", 15_000, &labels(0));
    fixture.set_status(0, LastStatus::Deactivating);
    fixture.binding = ", drain: {maxHold: 0s}".to_owned();
    fixture.edit(&web("operator"));
    fixture.start();
    sleep(Duration::from_mins(5)).await;
    assert_eq!(fixture.writes(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn unreadable_definition_keeps_the_dataplane_of_a_live_task() {
    // The Workload was removed, or names the operator now.
    for documents in [String::new(), web("operator")] {
        let mut fixture = OperatorFixture::of_web("sidecar", SidecarDataplane::Template);
        *fixture.ecs.definition_fails.lock().unwrap() = Some(AwsErrorKind::Denied);
        fixture.connect("0", 15_001, &labels(0));
        fixture.edit(&documents);
        fixture.start();
        sleep(Duration::from_mins(30)).await;
        assert_eq!(fixture.writes(), [""; 0], "{documents}");
        let unknown = "ecs_mesh_tasks_with_warnings{control_plane=\"kuma\",reason=\"unknown\"} 1";
        assert!(fixture.has_metric(unknown), "{documents}");
    }
}

/// The sidecar may have a template, which its definition does not show.
#[tokio::test(start_paused = true)]
async fn hidden_sidecar_keeps_its_dataplane_when_the_workload_is_removed() {
    let mut fixture = OperatorFixture::of_web("sidecar", SidecarDataplane::Template);
    fixture.ecs.sidecars.lock().unwrap().clear();
    fixture.connect("0", 15_000, &labels(0));
    fixture.start();
    sleep(Duration::from_mins(2)).await;
    fixture.edit("");
    sleep(Duration::from_mins(30)).await;
    assert_eq!(fixture.writes(), [""; 0]);
    assert!(fixture.is_checked_as("sidecar", "stale"));
    fixture.set_status(0, LastStatus::Stopped);
    sleep(Duration::from_mins(3)).await;
    assert_eq!(fixture.writes(), ["DELETE 0"]);
}

/// A task whose sidecar's definition shows neither a template nor a name, which the operator has registered. Its Workload
/// leaves the Dataplane to the sidecar now, as another process of the operator finds it.
async fn left_to_a_hidden_sidecar() -> OperatorFixture {
    let mut fixture = OperatorFixture::of_web("operator", SidecarDataplane::Named);
    fixture.ecs.sidecars.lock().unwrap().clear();
    let role = RoleArn::parse("arn:aws:iam::111122223333:role/web").unwrap();
    fixture.ecs.tasks.lock().unwrap().values_mut().for_each(|task| task.role_override = Some(role.clone()));
    fixture.start();
    sleep(Duration::from_mins(1)).await;
    assert_eq!(fixture.writes(), ["PUT 0"]);
    fixture.edit(&web("sidecar"));
    fixture.start();
    sleep(Duration::from_mins(2)).await;
    assert_eq!(fixture.writes(), [""; 0]);
    fixture
}

impl OperatorFixture {
    /// The binding requires the tags that the role lacks.
    fn revoke(&mut self, dataplanes: &str) {
        self.role_tags = "enforce";
        self.edit(&web(dataplanes));
    }

    fn warnings(&self, reason: &str) -> usize {
        let labels = format!("control_plane=\"kuma\",reason=\"{reason}\"");
        (0..=1)
            .find(|n| self.has_metric(&format!("ecs_mesh_tasks_with_warnings{{{labels}}} {n}")))
            .unwrap_or_else(|| panic!("no metric of {reason}"))
    }
}

#[tokio::test(start_paused = true)]
async fn revoked_task_loses_what_the_operator_wrote() {
    let mut fixture = left_to_a_hidden_sidecar().await;
    fixture.revoke("sidecar");
    sleep(Duration::from_mins(3)).await;
    assert_eq!(fixture.writes(), ["PUT 0", "DELETE 0"], "drained and removed");
    assert_eq!((fixture.warnings("rejected"), fixture.warnings("not_revocable")), (1, 0));
}

/// The sidecar overwrites the operator's copy before a list shows that.
#[tokio::test(start_paused = true)]
async fn revoked_task_keeps_what_its_sidecar_overwrote() {
    let mut fixture = left_to_a_hidden_sidecar().await;
    fixture.connect("0", 15_000, &labels(0));
    fixture.revoke("sidecar");
    sleep(Duration::from_mins(3)).await;
    assert_eq!(fixture.writes(), [""; 0]);
    assert!(fixture.is_checked_as("sidecar", "not_allowed"));
    assert_eq!((fixture.warnings("rejected"), fixture.warnings("not_revocable")), (1, 1));
}

/// No check came before: the task was not allowed from the start.
#[tokio::test(start_paused = true)]
async fn unlabelled_dataplane_of_a_task_that_is_not_allowed_is_reported() {
    let mut fixture = OperatorFixture::of_web("sidecar", SidecarDataplane::Template);
    fixture.revoke("sidecar");
    fixture.start();
    sleep(Duration::from_mins(2)).await;
    assert_eq!((fixture.warnings("rejected"), fixture.warnings("not_revocable")), (1, 0));
    fixture.connect("0", 15_000, &json!({}));
    sleep(Duration::from_mins(2)).await;
    assert!(fixture.is_checked_as("sidecar", "not_allowed"));
    assert_eq!((fixture.warnings("rejected"), fixture.warnings("not_revocable")), (1, 1));
    assert_eq!(fixture.writes(), [""; 0]);
}

/// The sidecar of the new task has not connected yet, and its name is that of a killed task's Dataplane.
#[tokio::test(start_paused = true)]
async fn removal_waits_for_a_sidecar_that_is_about_to_register_the_name() {
    let mut fixture = OperatorFixture::of_web("sidecar", SidecarDataplane::Template);
    fixture.binding = r#", dataplaneName: "{hostname}""#.to_owned();
    fixture.edit(&web("sidecar"));
    fixture.connect("ip-10-0-0-1", 15_000, &labels(0));
    fixture.start();
    sleep(Duration::from_mins(2)).await;
    fixture.kuma.lock().unwrap().kill_sidecar("default", "ip-10-0-0-1", fixture.clock.now());
    fixture.start_task(1);
    sleep(Duration::from_secs(90)).await;
    fixture.set_status(0, LastStatus::Stopped);
    sleep(Duration::from_secs(90)).await;
    assert_eq!(fixture.names(), ["ip-10-0-0-1"]);
    assert_eq!(fixture.warnings("awaiting_sidecar"), 1);
    sleep(Duration::from_mins(4)).await;
    assert_eq!(fixture.writes(), ["DELETE ip-10-0-0-1"], "its sidecar has given up");
    assert_eq!(fixture.warnings("awaiting_sidecar"), 0);
}

#[tokio::test(start_paused = true)]
async fn observed_task_is_planned_and_never_written() {
    let mut fixture = OperatorFixture::of_web("observe", SidecarDataplane::Named);
    fixture.start();
    sleep(Duration::from_mins(2)).await;
    assert!(fixture.is_checked_as("observe", "missing"));
    let [created] = &fixture.planned().await[..] else { panic!("one change") };
    assert_eq!((created.change, created.blocked_by), (Change::Create, Some(BlockedBy::DataplaneOwner)));
    assert!(created.registration.is_some());

    fixture.edit(&web("operator"));
    sleep(Duration::from_mins(1)).await;
    assert_eq!(fixture.writes(), ["PUT 0"]);
    fixture.edit(&web("observe").replace("15000", "15001"));
    sleep(Duration::from_mins(1)).await;
    assert!(fixture.is_checked_as("observe", "differs"));
    fixture.set_status(0, LastStatus::Stopped);
    sleep(Duration::from_mins(2)).await;
    assert!(fixture.is_checked_as("observe", "stale"));
    let [removed] = &fixture.planned().await[..] else { panic!("one change") };
    assert_eq!((removed.change, removed.blocked_by), (Change::Remove, Some(BlockedBy::DataplaneOwner)));
    assert_eq!(fixture.writes(), [""; 0]);
}

/// ECS no longer shows the task, and a `ZoneIngress` has no service: another process cannot tell the Workload.
#[tokio::test(start_paused = true)]
async fn observed_zone_ingress_of_a_forgotten_task_stays() {
    for (dataplanes, expected) in [("observe", &[][..]), ("operator", &["DELETE 0"])] {
        let mut fixture = OperatorFixture::new(&[("zi", 1), ("a", 1)]);
        fixture.cleanup = "{sweepInterval: 30s, graceAge: 1m, drain: 1s}".to_owned();
        let zone_ingress = |dataplanes: &str| {
            let selector = "selector: {services: [zi]}, service: zi, proxy: zoneIngress";
            document("Workload", "zi", &format!("{selector}, dataplanes: {dataplanes}"))
        };
        fixture.edit(&zone_ingress("operator"));
        fixture.start();
        sleep(Duration::from_mins(2)).await;
        assert_eq!(fixture.writes(), ["PUT 0"]);
        fixture.edit(&zone_ingress(dataplanes));
        fixture.ecs.tasks.lock().unwrap().retain(|id, _| id.as_str() != "0");
        fixture.start();
        sleep(Duration::from_mins(10)).await;
        assert_eq!(fixture.writes(), expected, "{dataplanes}");
    }
}

#[tokio::test(start_paused = true)]
async fn plan_shows_what_a_sidecar_registers() {
    let fixture = OperatorFixture::of_web("sidecar", SidecarDataplane::Template);
    let [missing] = &fixture.planned().await[..] else { panic!("one change") };
    assert_eq!((missing.change, missing.blocked_by), (Change::Create, Some(BlockedBy::DataplaneOwner)));
    fixture.connect("0", 15_001, &labels(0));
    let [differs] = &fixture.planned().await[..] else { panic!("one change") };
    assert_eq!((differs.change, differs.blocked_by), (Change::Update, Some(BlockedBy::DataplaneOwner)));
    assert_eq!(differs.fields[0].path, "networking.inbound[0].port");
    fixture.connect("0", 15_000, &json!({}));
    let [unlabelled] = &fixture.planned().await[..] else { panic!("one change") };
    assert_eq!(unlabelled.change, Change::Unmanaged);
    fixture.connect("0", 15_000, &labels(0));
    assert_eq!(fixture.planned().await[0].change, Change::Unchanged);
}

/// A name that recurs with the address: the new task's sidecar has registered before the old task's leftover is removed.
#[tokio::test(start_paused = true)]
async fn recurring_name_never_costs_a_new_task_its_dataplane() {
    for labelled in [labels(1), json!({})] {
        let mut fixture = OperatorFixture::of_web("sidecar", SidecarDataplane::Template);
        fixture.connect("web-10-0-0-1", 15_000, &labels(0));
        fixture.start();
        sleep(Duration::from_mins(2)).await;
        fixture.connect("web-10-0-0-1", 15_000, &labelled);
        fixture.set_status(0, LastStatus::Stopped);
        sleep(Duration::from_mins(5)).await;
        assert_eq!(fixture.names(), ["web-10-0-0-1"], "{labelled}");
        assert_eq!(fixture.writes(), [""; 0], "{labelled}");
    }
}

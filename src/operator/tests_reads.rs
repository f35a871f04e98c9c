//! The operator's view for readers: verdicts, readiness, and what others have registered.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use super::OperatorReads;
use super::test_fixture::{OperatorFixture, document, workload, workloads};
use crate::read_api::{ReadSource as _, Snapshot};
use ecs_mesh_core::plan::report::{PlanReport, TaskVerdict};
use ecs_mesh_model::{DesiredStatus, LastStatus, TaskId};
use ecs_mesh_read_api::{OutboundStateView, ServiceStateView, ServiceView, TaskView};

const NO_SUCH_WORKLOAD: &str =
    "selector: {services: [none]}, service: none, inbounds: [{containerPort: 1, port: 1}]";

impl OperatorFixture {
    /// Starts an operator that someone reads.
    fn start_with_reads(&mut self) -> Arc<OperatorReads> {
        self.start();
        self.operator.as_ref().unwrap().reads(1_000)
    }
}

fn service<'s>(snapshot: &'s Snapshot, name: &str) -> &'s ServiceView {
    snapshot.services.iter().find(|service| &*service.name == name).unwrap()
}

/// The verdict of the read API on each task, without the line of its control plane.
fn live(reads: &OperatorReads, snapshot: &Snapshot) -> Vec<(String, String)> {
    let text = |task: &TaskView| {
        let [verdict] = reads.task_facts(task).verdict.try_into().unwrap();
        (task.arn.to_string(), verdict.text)
    };
    snapshot.tasks.iter().map(text).collect()
}

/// The verdict of a plan on each task.
fn planned(report: &PlanReport) -> Vec<(String, String)> {
    let mut tasks: Vec<_> = report.changes.iter().filter_map(|entry| entry.task.clone()).collect();
    tasks.dedup();
    let text = |task: &ecs_mesh_model::TaskArn| {
        let of_task = |of: Option<String>| of == Some(task.to_string());
        let entries =
            report.changes.iter().filter(|entry| of_task(entry.task.as_ref().map(ToString::to_string)));
        let entries: Vec<_> = entries.cloned().collect();
        let warnings: Vec<_> =
            report.warnings.iter().filter(|warning| of_task(Some(warning.task.clone()))).cloned().collect();
        let [verdict] = TaskVerdict::by_control_plane(&entries, &warnings).try_into().unwrap();
        (task.to_string(), anstream::adapter::strip_str(&verdict.render()).to_string())
    };
    tasks.iter().map(text).collect()
}

/// A run's verdict after its writes is that of a plan made then: registered, rejected, ignored, held by a guard.
#[tokio::test(start_paused = true)]
async fn verdict_of_a_run_is_that_of_a_plan() {
    for (role_tags, documents) in [
        ("off", workloads(&["web"])),
        // The tasks have no role.
        ("enforce", workloads(&["web"])),
        ("off", document("Workload", "none", NO_SUCH_WORKLOAD)),
    ] {
        let mut fixture = OperatorFixture::new(&[("web", 2)]);
        fixture.role_tags = role_tags;
        fixture.edit(&documents);
        let reads = fixture.start_with_reads();
        sleep(Duration::from_mins(1)).await;
        let found = live(&reads, &reads.snapshot());
        assert_eq!(found, planned(&fixture.plan().await), "{role_tags}");
        assert_eq!(found.len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn verdict_names_the_change_and_its_obstacle() {
    let mut fixture = OperatorFixture::new(&[("web", 1)]);
    fixture.cleanup = "{sweepInterval: 1m, drain: 1s}".to_owned();
    fixture.edit(&workloads(&["web"]));
    let reads = fixture.start_with_reads();
    sleep(Duration::from_mins(1)).await;
    let verdict = |reads: &OperatorReads| {
        let snapshot = reads.snapshot();
        let [verdict] = reads.task_facts(&snapshot.tasks[0]).verdict.try_into().unwrap();
        (verdict.change.as_deref().map(str::to_owned), verdict.blocked_by.as_deref().map(str::to_owned))
    };
    assert_eq!(verdict(&reads), (None, None));
    fixture.binding = ", paused: true".to_owned();
    fixture.edit(&workloads(&["web"]));
    let task = TaskId::parse("0").unwrap();
    fixture.ecs.tasks.lock().unwrap().get_mut(&task).unwrap().version += 1;
    let stop = |fixture: &OperatorFixture| {
        let mut tasks = fixture.ecs.tasks.lock().unwrap();
        let stopped = tasks.get_mut(&task).unwrap();
        (stopped.desired_status, stopped.last_status) = (DesiredStatus::Stopped, LastStatus::Stopped);
    };
    stop(&fixture);
    sleep(Duration::from_mins(3)).await;
    assert_eq!(verdict(&reads), (Some("remove".to_owned()), Some("paused".to_owned())));
}

/// A reader that comes before the first sweep is told so.
#[tokio::test(start_paused = true)]
async fn nothing_is_missing_before_it_was_read() {
    let mut fixture = OperatorFixture::new(&[("web", 1)]);
    let calls = "outbounds: [{service: kv, targetPort: 80, listen: {port: 8081}}]";
    let inbound = "inbounds: [{containerPort: 8080, port: 15000, protocol: http}]";
    let spec = format!("selector: {{services: [web]}}, service: web, {inbound}, {calls}");
    fixture.edit(&document("Workload", "web", &spec));
    fixture.forbidden = vec!["/dataplanes"];
    let reads = fixture.start_with_reads();
    let first = reads.snapshot();
    assert!(first.status.counts.is_none(), "{:?}", first.status.counts);
    sleep(Duration::from_secs(5)).await;
    let unread = reads.snapshot();
    assert_eq!(service(&unread, "web").state, ServiceStateView::NotRead);
    assert_eq!(unread.outbounds[0].state, OutboundStateView::NotRead);

    fixture.forbidden.clear();
    fixture.start();
    let reads = fixture.operator.as_ref().unwrap().reads(10);
    sleep(Duration::from_secs(30)).await;
    let snapshot = reads.snapshot();
    assert_eq!(service(&snapshot, "kv").state, ServiceStateView::Missing);
    assert_eq!(snapshot.outbounds[0].state, OutboundStateView::NotRead, "the service may be on its way");
    sleep(Duration::from_mins(1)).await;
    assert_eq!(reads.snapshot().outbounds[0].state, OutboundStateView::UnknownTarget);
    assert!(reads.status().counts.is_some_and(|counts| counts.tasks == 1));
}

/// The sweep is a day away: readers alone cause the lists.
#[tokio::test(start_paused = true)]
async fn readiness_and_others_are_read_while_someone_reads() {
    let mut fixture = OperatorFixture::new(&[("web", 2)]);
    fixture.edit(&workload("web", "web"));
    let reads = fixture.start_with_reads();
    sleep(Duration::from_mins(10)).await;
    let tags = json!({"kuma.io/service": "legacy", "kuma.io/protocol": "http"});
    let other = json!({
        "type": "Dataplane", "mesh": "default", "name": "legacy-1",
        "networking": {"address": "10.9.0.1", "inbound": [{"port": 80, "tags": tags}]},
    });
    fixture.put("/meshes/default/dataplanes/legacy-1", &other);
    let (name, address) = {
        let kuma = fixture.kuma.lock().unwrap();
        let of_web = kuma.dataplanes().find(|(_, name, _)| *name != "legacy-1").unwrap();
        (of_web.1.to_owned(), of_web.2["networking"]["address"].as_str().unwrap().to_owned())
    };
    let before = reads.snapshot();
    assert_eq!(service(&before, "web").registrations.total, 2);
    assert!(before.services.iter().all(|service| &*service.name != "legacy"));
    {
        let (mut kuma, now) = (fixture.kuma.lock().unwrap(), fixture.clock.now());
        assert!(kuma.connect_sidecar("default", &name, &address, now));
        kuma.set_app_up("default", &name, 8080, true, now);
    }
    sleep(Duration::from_secs(6)).await;
    let listed = reads.snapshot();
    sleep(Duration::from_secs(6)).await;
    let after = reads.snapshot();
    for snapshot in [&listed, &after] {
        assert_eq!(service(snapshot, "legacy").state, ServiceStateView::Undeclared);
        assert_eq!(service(snapshot, "legacy").others.map(|others| others.total), Some(1));
    }
    let web = service(&after, "web");
    assert_eq!((web.registrations.ready, web.registrations.unknown, web.registrations.total), (1, 0, 2));
    assert!(web.others.is_none() && web.readiness_observed_at.is_some(), "{web:?}");
}

/// The called service is registered; its sidecar connects later.
#[tokio::test(start_paused = true)]
async fn call_has_no_ready_target_until_a_sidecar_serves() {
    let mut fixture = OperatorFixture::new(&[("web", 1), ("kv", 1)]);
    let calls = "outbounds: [{service: kv, targetPort: 80, listen: {port: 8081}}]";
    let inbound = "inbounds: [{containerPort: 8080, port: 15000, protocol: http}]";
    let web = format!("selector: {{services: [web]}}, service: web, {inbound}, {calls}");
    fixture.edit(&(document("Workload", "web", &web) + &workload("kv", "kv")));
    let reads = fixture.start_with_reads();
    // The first reader causes the list that the next one sees.
    let read = async || {
        reads.snapshot();
        sleep(Duration::from_secs(6)).await;
        reads.snapshot()
    };
    sleep(Duration::from_secs(30)).await;
    let unread = reads.snapshot();
    assert_eq!(unread.outbounds[0].state, OutboundStateView::Ok, "the readiness was not read yet");
    let snapshot = read().await;
    assert_eq!(service(&snapshot, "kv").state, ServiceStateView::Down);
    assert_eq!(snapshot.outbounds[0].state, OutboundStateView::NoReadyTarget);
    assert!(snapshot.outbounds[0].reason.is_some());
    {
        let (mut kuma, now) = (fixture.kuma.lock().unwrap(), fixture.clock.now());
        assert!(kuma.connect_sidecar("default", "1", "10.0.0.2", now));
        kuma.set_app_up("default", "1", 8080, true, now);
    }
    // The list that the last snapshot caused was made before.
    read().await;
    let snapshot = read().await;
    assert_eq!(service(&snapshot, "kv").state, ServiceStateView::Ok);
    assert_eq!((snapshot.outbounds[0].state, &snapshot.outbounds[0].reason), (OutboundStateView::Ok, &None));
}

/// A resource of its own is of no mesh, although its binding names one.
#[tokio::test(start_paused = true)]
async fn registered_zone_proxy_is_never_missing() {
    let proxies = [("zi", "zoneIngress"), ("ze", "zoneEgress")];
    let workload = |(name, kind): (&str, &str)| {
        let spec = format!("selector: {{services: [{name}]}}, service: {name}, proxy: {kind}");
        document("Workload", name, &spec)
    };
    let mut fixture = OperatorFixture::new(&[("zi", 1), ("ze", 1)]);
    fixture.edit(&proxies.map(workload).concat());
    let reads = fixture.start_with_reads();
    for _ in 0..2 {
        sleep(Duration::from_mins(1)).await;
        let snapshot = reads.snapshot();
        for (name, _) in proxies {
            let all: Vec<_> = snapshot.services.iter().filter(|service| *service.name == *name).collect();
            let [only] = &all[..] else { panic!("{name} is {} services: {all:#?}", all.len()) };
            assert_ne!(only.state, ServiceStateView::Missing, "{name}");
            assert_eq!((only.mesh.as_deref(), only.registrations.total, only.declared), (None, 1, true));
        }
    }
}

//! Gateways and zone proxies of a running operator: registered, found again after a restart, and removed with their tasks.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::test_fixture::{OperatorFixture, document, workload};
use ecs_mesh_aws::fakes::task;
use ecs_mesh_core::plan::report::{BlockedBy, Change};
use ecs_mesh_model::{DesiredStatus, LastStatus, Task, TaskGroup, TaskId};
use ecs_mesh_sandbox::kuma::KumaRequest;

/// Longer than two sweeps and the grace age.
const WHILE: Duration = Duration::from_mins(5);

/// A workload of that ECS service with such a proxy.
fn proxy(service: &str, settings: &str) -> String {
    document(
        "Workload",
        service,
        &format!("selector: {{services: [{service}]}}, service: {service}, {settings}"),
    )
}

fn all_kinds() -> String {
    [
        workload("a", "a"),
        proxy("edge", "proxy: gateway"),
        proxy("zi", "proxy: zoneIngress"),
        proxy("ze", "proxy: zoneEgress"),
    ]
    .concat()
}

impl OperatorFixture {
    fn send(&self, method: &'static str, path: &str, body: &Value) -> (u16, Value) {
        let request = KumaRequest::json(method, path, body.to_string().into_bytes());
        let response = self.kuma.lock().unwrap().handle(self.clock.now(), &request);
        (response.status, serde_json::from_slice(&response.body).unwrap_or_default())
    }

    /// The task ids and names of what a list has.
    fn listed(&self, list: &str) -> Vec<String> {
        let (status, page) = self.send("GET", &format!("/{list}?size=1000"), &Value::Null);
        assert_eq!(status, 200, "{list}");
        let name = |item: &Value| item["name"].as_str().unwrap().to_owned();
        page["items"].as_array().unwrap().iter().map(name).collect()
    }

    fn stop_task(&self, n: usize, service: &str) {
        let group = TaskGroup::parse(&format!("service:{service}"));
        let stopped = Task { group, ..task(n, LastStatus::Stopped) };
        self.ecs.tasks.lock().unwrap().insert(TaskId::parse(&n.to_string()).unwrap(), stopped);
    }
}

#[tokio::test(start_paused = true)]
async fn each_proxy_is_found_again_and_removed_with_its_task() {
    let mut fixture = OperatorFixture::new(&[("a", 1), ("edge", 1), ("zi", 2), ("ze", 1)]);
    fixture.cleanup = "{sweepInterval: 30s, graceAge: 1m, drain: 1s}".to_owned();
    fixture.edit(&all_kinds());
    fixture.start();
    sleep(WHILE).await;
    assert_eq!(fixture.listed("dataplanes"), ["0", "1"], "a sidecar and a gateway");
    assert_eq!(
        (fixture.listed("zoneingresses"), fixture.listed("zoneegresses")),
        (vec!["2".to_owned(), "3".to_owned()], vec!["4".to_owned()],)
    );
    let (_, ingress) = fixture.send("GET", "/zoneingresses/2", &Value::Null);
    assert_eq!(
        (&ingress["networking"]["port"], &ingress["labels"]["ecs-mesh.dev/task-id"]),
        (&json!(10001), &json!("2"))
    );
    assert!(!fixture.plan().await.will_write());
    fixture.kuma.lock().unwrap().take_journal();

    // Another process finds what this one has registered, although the manifests are the same.
    fixture.start();
    sleep(WHILE).await;
    assert_eq!(fixture.kuma.lock().unwrap().take_journal().len(), 0, "nothing is written again");
    for (n, service) in [(1, "edge"), (2, "zi"), (4, "ze")] {
        fixture.stop_task(n, service);
    }
    fixture.start();
    sleep(WHILE).await;
    assert_eq!(fixture.listed("dataplanes"), ["0"]);
    assert_eq!(
        (fixture.listed("zoneingresses"), fixture.listed("zoneegresses").len()),
        (vec!["3".to_owned()], 0)
    );
}

#[tokio::test(start_paused = true)]
async fn absent_zone_proxies_are_removed_within_the_guard() {
    let mut fixture = OperatorFixture::new(&[("zi", 12), ("a", 1)]);
    fixture.cleanup = "{sweepInterval: 30s, graceAge: 1m, drain: 1s}".to_owned();
    fixture.edit(&all_kinds());
    fixture.start();
    sleep(WHILE).await;
    assert_eq!(fixture.listed("zoneingresses").len(), 12);
    // ECS no longer shows them, and no event has reported their end.
    fixture.ecs.tasks.lock().unwrap().retain(|id, _| id.as_str() == "12");
    fixture.start();
    sleep(Duration::from_secs(50)).await;
    assert_eq!(fixture.listed("zoneingresses").len(), 12, "before the grace age");
    sleep(WHILE).await;
    let left = fixture.listed("zoneingresses").len();
    assert_eq!(left, 9, "the guard admits 30 % of 13 an hour");
}

#[tokio::test(start_paused = true)]
async fn zone_ingress_of_another_zone_is_left_alone() {
    let mut fixture = OperatorFixture::new(&[("zi", 1)]);
    fixture.cleanup = "{sweepInterval: 30s, graceAge: 1m, drain: 1s}".to_owned();
    fixture.edit(&all_kinds());
    fixture.start();
    sleep(WHILE).await;
    // A resource that a federation syncs has the labels of its owner, which may be the same operator.
    let (_, mut copy) = fixture.send("GET", "/zoneingresses/0", &Value::Null);
    copy["name"] = "0-5f2c8e1d".into();
    copy["labels"]["kuma.io/origin"] = "global".into();
    copy["labels"]["ecs-mesh.dev/task-id"] = "99".into();
    copy["labels"].as_object_mut().unwrap().remove("kuma.io/zone");
    assert_eq!(fixture.send("PUT", "/zoneingresses/0-5f2c8e1d", &copy).0, 201);
    fixture.start();
    sleep(WHILE).await;
    assert_eq!(fixture.listed("zoneingresses"), ["0", "0-5f2c8e1d"]);
    assert_eq!(fixture.operator.as_ref().unwrap().workers()["kuma"].unattributed_registrations(), 0);
}

#[tokio::test(start_paused = true)]
async fn upgrade_to_3_0_replaces_a_zone_ingress_by_a_listener() {
    let mut fixture = OperatorFixture::new(&[("zi", 1), ("nlb", 1)]);
    fixture.cleanup = "{sweepInterval: 30s, drain: 1s}".to_owned();
    let nlb = "zoneIngress: {advertised: {address: nlb.elb.eu-west-1.amazonaws.com, port: 443}}";
    let nlb = proxy("nlb", &format!("proxy: zoneIngress, {nlb}"));
    fixture.edit(&(all_kinds() + &nlb));
    fixture.start();
    sleep(WHILE).await;
    let advertised = fixture.send("GET", "/zoneingresses/1", &Value::Null).1["networking"].clone();
    assert_eq!(advertised["advertisedAddress"], "nlb.elb.eu-west-1.amazonaws.com");

    let report = fixture.plan_for(Some(ecs_mesh_api::KumaRelease::new(3, 0))).await;
    let held: Vec<_> = report.changes.iter().filter(|entry| entry.change.change == Change::Hold).collect();
    assert_eq!(held.len(), 1, "{:?}", report.summary);
    assert_eq!(held[0].change.blocked_by, Some(BlockedBy::NotExpressible));
    assert!(held[0].change.reason.contains("advertised"), "{}", held[0].change.reason);

    fixture.kuma.lock().unwrap().upgrade("3.0".parse().unwrap(), fixture.clock.now());
    sleep(WHILE).await;
    assert_eq!(fixture.listed("dataplanes"), ["0"], "the advertised address is not dropped without a word");
    let (_, listening) = fixture.send("GET", "/meshes/default/dataplanes/0", &Value::Null);
    let listener = &listening["networking"]["listeners"][0];
    assert_eq!((&listener["type"], &listener["port"]), (&json!("ZoneIngress"), &json!(10001)));
    let registry = &fixture.operator.as_ref().unwrap().workers()["kuma"].registry;
    let known: Vec<String> = registry.ids().iter().map(ToString::to_string).collect();
    assert!(known.contains(&"default/0".to_owned()), "{known:?}");
    assert!(!known.contains(&"zoneingress/0".to_owned()), "{known:?}");
}

#[tokio::test(start_paused = true)]
async fn sidecar_that_becomes_a_zone_ingress_moves() {
    let mut fixture = OperatorFixture::new(&[("zi", 1)]);
    fixture.edit(&workload("zi", "zi"));
    fixture.start();
    sleep(WHILE).await;
    assert_eq!((fixture.listed("dataplanes").len(), fixture.listed("zoneingresses").len()), (1, 0));
    fixture.edit(&proxy("zi", "proxy: zoneIngress"));
    sleep(WHILE).await;
    assert_eq!((fixture.listed("dataplanes").len(), fixture.listed("zoneingresses").len()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn forbidden_zone_proxy_lists_fail_only_where_needed() {
    let zone_proxies =
        [proxy("zi", "proxy: zoneIngress"), proxy("zi", "proxy: zoneIngress, zoneIngress: {scope: mesh}")];
    for (more, expected) in
        [(None, ""), (Some(&zone_proxies[0]), "zone ingresses"), (Some(&zone_proxies[1]), "")]
    {
        let mut fixture = OperatorFixture::new(&[("a", 1)]);
        fixture.forbidden = vec!["/zoneingresses", "/zoneegresses"];
        fixture.edit(&(workload("a", "a") + more.map_or("", String::as_str)));
        fixture.start();
        sleep(Duration::from_secs(20)).await;
        assert_eq!(fixture.listed("dataplanes"), ["0"]);
        let workers = fixture.operator.as_ref().unwrap().workers();
        assert_eq!(workers["kuma"].unlisted_segments().join(", "), expected, "{more:?}");
        assert_eq!(workers["kuma"].is_fully_synced(), expected.is_empty(), "{more:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn drain_of_a_gateway_waits_for_nothing() {
    let mut fixture = OperatorFixture::new(&[("edge", 1)]);
    fixture.cleanup = "{sweepInterval: 10s, drain: 1s}".to_owned();
    fixture.edit(&all_kinds());
    fixture.start();
    sleep(WHILE).await;
    let stopping = Task {
        group: TaskGroup::parse("service:edge"),
        desired_status: DesiredStatus::Stopped,
        ..task(0, LastStatus::Running)
    };
    fixture.ecs.tasks.lock().unwrap().insert(TaskId::parse("0").unwrap(), stopping);
    sleep(Duration::from_secs(16)).await;
    let (_, gateway) = fixture.send("GET", "/meshes/default/dataplanes/0", &Value::Null);
    assert_eq!(gateway["labels"]["ecs-mesh.dev/drain"], "stopping");
    assert_eq!(fixture.operator.as_ref().unwrap().workers()["kuma"].drains.held_count(), 0);
}

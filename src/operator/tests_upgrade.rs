//! Upgrades of Kuma: what a plan shows before, and what a running operator keeps during one.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::test_fixture::{OperatorFixture, document, service_of, workload, workloads};
use ecs_mesh_api::KumaRelease;
use ecs_mesh_aws::fakes::task;
use ecs_mesh_core::plan::report::{BlockedBy, Change, PlanDetail, PlanReport, UpgradeBlockerKind, render};
use ecs_mesh_model::{InterfaceAddresses, LastStatus, Task, TaskGroup, TaskId, Timestamp};
use ecs_mesh_sandbox::kuma::KumaRequest;

const V3_0: Option<KumaRelease> = Some(KumaRelease::new(3, 0));

impl OperatorFixture {
    /// Writes a resource as another client of the API.
    pub(super) fn put(&self, path: &str, body: &Value) {
        let request = KumaRequest::json("PUT", path, body.to_string().into_bytes());
        let response = self.kuma.lock().unwrap().handle(self.clock.now(), &request);
        assert!(response.status < 300, "{path}: {}", String::from_utf8_lossy(&response.body));
    }

    fn set_mesh_services_mode(&self, mode: &str) {
        let mesh = json!({"type": "Mesh", "name": "default", "meshServices": {"mode": mode}});
        self.put("/meshes/default", &mesh);
    }
}

/// A workload of that ECS service with an outbound to `kv`.
fn caller(service: &str) -> String {
    let inbound = "{name: http, containerPort: 8080, port: 15000, protocol: http}";
    let outbound = "{service: kv, targetPort: 15000, listen: {port: 9001}}";
    let spec = format!(
        "selector: {{services: [{service}]}}, service: {service}, inbounds: [{inbound}], outbounds: [{outbound}]"
    );
    document("Workload", service, &spec)
}

fn fields(report: &PlanReport, path: &str) -> Vec<(Value, Value)> {
    let all = report.changes.iter().flat_map(|entry| &entry.change.fields);
    let of_path = all.filter(|field| field.path == path);
    of_path.map(|field| (json!(field.before), json!(field.after))).collect()
}

#[tokio::test(start_paused = true)]
async fn plan_for_a_target_shows_the_changed_form_and_writes_nothing() {
    let mut fixture = OperatorFixture::new(&[("a", 1), ("kv", 1)]);
    fixture.edit(&(caller("a") + &workload("kv", "kv")));
    fixture.start();
    sleep(Duration::from_mins(2)).await;
    fixture.kuma.lock().unwrap().take_journal();
    assert!(!fixture.plan().await.will_write());
    let report = fixture.plan_for(V3_0).await;
    assert_eq!(fixture.kuma.lock().unwrap().take_journal().len(), 0);
    assert_eq!((report.complete, report.summary.update, report.summary.create), (true, 2, 0));
    let kv = json!({"kind": "MeshService", "name": "kv", "port": 15_000});
    assert_eq!(fields(&report, "networking.outbound[0].backendRef"), [(Value::Null, kv)]);
    let tags = json!({"kuma.io/service": "kv"});
    assert_eq!(fields(&report, "networking.outbound[0].tags"), [(tags, Value::Null)]);
    let upgrade = &report.upgrades[0].check;
    assert_eq!((&*upgrade.current_version, &*upgrade.target_version), ("Kuma 2.14.3", "3.0"));
    let kinds: Vec<_> = upgrade.blockers.iter().map(|blocker| blocker.kind).collect();
    assert_eq!(kinds, [UpgradeBlockerKind::MeshServicesMode], "services are tags alone");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["upgrades"][0]["blockers"][0]["kind"], "meshServicesMode");
}

#[tokio::test(start_paused = true)]
async fn plan_for_a_target_that_is_not_newer_has_no_upgrade() {
    let mut fixture = OperatorFixture::new(&[("a", 1), ("kv", 1)]);
    fixture.kuma.lock().unwrap().upgrade("3.0".parse().unwrap(), fixture.clock.now());
    fixture.edit(&(caller("a") + &workload("kv", "kv")));
    fixture.start();
    sleep(Duration::from_mins(2)).await;
    for target in [KumaRelease::new(2, 14), KumaRelease::new(3, 0)] {
        let report = fixture.plan_for(Some(target)).await;
        assert_eq!((report.complete, report.upgrades.len()), (true, 0), "{target}");
        assert!(!report.will_write(), "{target}: the registrations have the form of the server's version");
    }
}

#[tokio::test(start_paused = true)]
async fn plan_for_3_0_names_the_listeners_that_are_lost() {
    let mut fixture = OperatorFixture::new(&[("a", 1)]);
    let list = "workloads: [a], outbounds: [{service: kv, targetPort: 15000, listen: {port: 9002}}]";
    fixture.edit(&(caller("a") + &workload("kv", "kv") + &document("OutboundList", "l", list)));
    let lost = |report: PlanReport| {
        let blockers = report.upgrades.into_iter().flat_map(|upgrade| upgrade.check.blockers);
        let found = blockers.filter(|blocker| blocker.kind == UpgradeBlockerKind::LostListener);
        found.map(|blocker| (blocker.examples, blocker.reason)).collect::<Vec<_>>()
    };
    let found = lost(fixture.plan_for(V3_0).await);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, ["a"]);
    assert!(found[0].1.ends_with("lost: kv:15000 on 127.0.0.1:9001"), "{found:?}");
    assert_eq!(lost(fixture.plan_for(Some(KumaRelease::new(2, 14))).await), []);
}

#[tokio::test(start_paused = true)]
async fn plan_for_a_target_names_all_that_blocks_the_upgrade() {
    use UpgradeBlockerKind::{BuiltinGateway, MeshServiceSelector, Name, NoWorkloadLabel};

    let mut fixture = OperatorFixture::new(&[("a", 1), ("events", 1)]);
    fixture.set_mesh_services_mode("Exclusive");
    let inbound = "{containerPort: 9092, port: 15000, protocol: kafka}";
    let events = format!("selector: {{services: [events]}}, service: events, inbounds: [{inbound}]");
    fixture.edit(&(workload("a", "a") + &document("Workload", "events", &events)));
    let gateway = json!({"type": "Dataplane", "mesh": "default", "name": "edge", "networking":
        {"address": "10.1.0.1", "gateway": {"type": "BUILTIN", "tags": {"kuma.io/service": "edge"}}}});
    fixture.put("/meshes/default/dataplanes/edge", &gateway);
    fixture
        .put("/meshes/1.b", &json!({"type": "Mesh", "name": "1.b", "meshServices": {"mode": "Exclusive"}}));
    fixture.start();
    sleep(Duration::from_mins(2)).await;
    let report = fixture.plan_for(V3_0).await;
    let found: Vec<(UpgradeBlockerKind, Option<&str>, String)> = report.upgrades[0]
        .check
        .blockers
        .iter()
        .map(|blocker| (blocker.kind, blocker.mesh.as_deref(), blocker.examples.join(",")))
        .collect();
    assert_eq!(
        found,
        [
            (BuiltinGateway, Some("default"), "edge".to_owned()),
            (Name, None, "1.b".to_owned()),
            (MeshServiceSelector, Some("default"), "a,events".to_owned()),
            (NoWorkloadLabel, Some("default"), "edge".to_owned()),
        ]
    );
    let held: Vec<_> = report.changes.iter().filter(|entry| entry.change.change == Change::Hold).collect();
    assert_eq!(held.len(), 1);
    assert_eq!(held[0].change.blocked_by, Some(BlockedBy::NotExpressible));
    assert!(held[0].change.reason.contains("kafka"), "{}", held[0].change.reason);
    assert!(report.blocks_upgrade());
    assert_eq!(report.summary.not_expressible, 1);
    let text = render(&report, PlanDetail::Changes);
    assert!(text.contains("by 1 Dataplane in mesh default: edge"), "{text}");
    assert!(text.contains("The upgrade is blocked"), "{text}");
}

/// The fix that a plan names for the selectors of MeshServices.
#[tokio::test(start_paused = true)]
async fn mesh_service_with_a_label_selector_survives_the_upgrade() {
    let mut fixture = OperatorFixture::new(&[("a", 1)]);
    fixture.set_mesh_services_mode("Exclusive");
    fixture.edit(&workloads(&["a"]));
    fixture.start();
    sleep(Duration::from_mins(1)).await;
    let path = "/meshes/default/meshservices/a";
    let get = KumaRequest::json("GET", path, Vec::new());
    let read = |fixture: &OperatorFixture| -> Value {
        let response = fixture.kuma.lock().unwrap().handle(fixture.clock.now(), &get);
        serde_json::from_slice(&response.body).unwrap()
    };
    let mut service = read(&fixture);
    service["spec"]["selector"] = json!({"dataplaneLabels": {"matchLabels": {"kuma.io/workload": "a"}}});
    fixture.put(path, &service);
    assert_eq!(fixture.plan_for(V3_0).await.upgrades[0].check.blockers, []);
    fixture.kuma.lock().unwrap().upgrade("3.0".parse().unwrap(), fixture.clock.now());
    sleep(Duration::from_mins(2)).await;
    assert_eq!(read(&fixture)["status"]["dataplaneProxies"]["total"], 1);
}

/// A registration in the store: whether old and new instances find its service, and the targets of its outbounds.
#[derive(Debug, Default)]
struct Registered {
    is_in_tags: bool,
    is_in_label: bool,
    outbounds: usize,
    targeted_outbounds: usize,
}

impl Registered {
    fn read(body: &Value) -> Self {
        let outbounds = body["networking"]["outbound"].as_array().cloned().unwrap_or_default();
        let has_target =
            |outbound: &&Value| outbound.get("tags").is_some() || outbound.get("backendRef").is_some();
        Self {
            is_in_tags: !service_of(body).is_empty(),
            is_in_label: body["labels"]["kuma.io/workload"].is_string(),
            outbounds: outbounds.len(),
            targeted_outbounds: outbounds.iter().filter(has_target).count(),
        }
    }
}

/// How long a write leaves a Dataplane without what a new instance has dropped, at most. The emulator's answers take no time.
const WRITTEN_AGAIN_WITHIN: Duration = Duration::ZERO;

impl OperatorFixture {
    /// The running tasks' registrations.
    fn registered(&self) -> BTreeMap<String, Registered> {
        let kuma = self.kuma.lock().unwrap();
        let task = |body: &Value| body["labels"]["ecs-mesh.dev/task-id"].as_str().unwrap().to_owned();
        kuma.dataplanes().map(|(_, _, body)| (task(body), Registered::read(body))).collect()
    }

    fn set_task(&self, n: usize, service: &str, status: LastStatus) {
        let address = format!("10.9.0.{}", n + 1).parse().unwrap();
        let addresses = InterfaceAddresses::new(Some(address), None).unwrap();
        let group = TaskGroup::parse(&format!("service:{service}"));
        let task = Task { addresses, group, ..task(n, status) };
        self.ecs.tasks.lock().unwrap().insert(TaskId::parse(&n.to_string()).unwrap(), task);
    }

    /// No write has removed an outbound of a registration that stays, or left one without its target, its label or, while old
    /// instances read them, its tags for longer than until it was written again. `lacking` has those that lack something, and
    /// since when.
    fn assert_none_shrank(&self, reads_tags: bool, lacking: &mut BTreeMap<String, Timestamp>) {
        for entry in self.kuma.lock().unwrap().take_journal() {
            if entry.kind != "Dataplane" {
                continue;
            }
            let Some(after) = &entry.after else {
                lacking.remove(&entry.name);
                continue;
            };
            let (before, after) = (entry.before.as_ref().map(Registered::read), Registered::read(after));
            assert!(after.outbounds >= before.map_or(0, |before| before.outbounds), "{entry:?}");
            let is_whole = after.is_in_label
                && after.targeted_outbounds == after.outbounds
                && (after.is_in_tags || !reads_tags);
            if !is_whole {
                lacking.entry(entry.name.clone()).or_insert(entry.at);
            } else if let Some(since) = lacking.remove(&entry.name) {
                assert!(since.age_at(entry.at) <= WRITTEN_AGAIN_WITHIN, "since {since}: {entry:?}");
            }
        }
        let now = self.clock.now();
        for (name, since) in lacking {
            assert!(since.age_at(now) <= WRITTEN_AGAIN_WITHIN, "{name} since {since}");
        }
    }
}

/// Tasks come and go while instances of 2.14 and 3.0 answer in turn, and after the upgrade.
async fn roll_to_3_0(mode: &str) -> OperatorFixture {
    let mut fixture = OperatorFixture::new(&[]);
    fixture.set_mesh_services_mode(mode);
    fixture.cleanup = "{sweepInterval: 20s, drain: 1s}".to_owned();
    (0..4).for_each(|n| fixture.set_task(n, if n < 2 { "a" } else { "kv" }, LastStatus::Running));
    fixture.edit(&(caller("a") + &workload("kv", "kv")));
    fixture.start();
    sleep(Duration::from_mins(3)).await;
    fixture.kuma.lock().unwrap().begin_rolling_upgrade("3.0".parse().unwrap());
    let (mut oldest, mut next) = (0, 4);
    fixture.kuma.lock().unwrap().take_journal();
    let mut lacking = BTreeMap::new();
    for step in 0..12 {
        // A deployment: a new task comes, and once it is registered, the oldest goes.
        fixture.set_task(next, if next % 4 < 2 { "a" } else { "kv" }, LastStatus::Running);
        next += 1;
        sleep(Duration::from_mins(1)).await;
        let found = fixture.registered();
        for n in oldest..next {
            let registered = found.get(&n.to_string()).unwrap_or_else(|| panic!("step {step}: no task {n}"));
            let outbounds = usize::from(n % 4 < 2);
            let is_whole = registered.is_in_label && registered.targeted_outbounds == outbounds;
            assert!(is_whole, "step {step}, task {n}: {registered:?}");
            // Until the upgrade is over, the old instances read tags.
            assert!(registered.is_in_tags || step >= 6, "step {step}, task {n}: {registered:?}");
        }
        fixture.assert_none_shrank(step < 6, &mut lacking);
        fixture.set_task(oldest, "a", LastStatus::Stopped);
        oldest += 1;
        if step == 5 {
            fixture.kuma.lock().unwrap().upgrade("3.0".parse().unwrap(), fixture.clock.now());
        }
    }
    fixture
}

#[tokio::test(start_paused = true)]
async fn rolling_upgrade_keeps_outbounds_and_endpoints() {
    let fixture = roll_to_3_0("Exclusive").await;
    let summary = fixture.plan().await.summary;
    assert_eq!((summary.update, summary.create), (0, 0), "the registrations have the form of 3.0");
}

/// A new instance that receives a sidecar's health report stores the Dataplane without what it does not know.
#[tokio::test(start_paused = true)]
async fn what_a_health_report_drops_is_written_again() {
    let mut fixture = OperatorFixture::new(&[]);
    fixture.set_mesh_services_mode("Exclusive");
    (0..4).for_each(|n| fixture.set_task(n, if n < 2 { "a" } else { "kv" }, LastStatus::Running));
    fixture.edit(&(caller("a") + &workload("kv", "kv")));
    fixture.start();
    sleep(Duration::from_mins(3)).await;
    fixture.kuma.lock().unwrap().begin_rolling_upgrade("3.0".parse().unwrap());
    sleep(Duration::from_mins(1)).await;
    let in_tags =
        |fixture: &OperatorFixture| fixture.registered().values().filter(|found| found.is_in_tags).count();
    assert_eq!(in_tags(&fixture), 4);
    let names: Vec<String> =
        fixture.kuma.lock().unwrap().dataplanes().map(|(_, name, _)| name.to_owned()).collect();
    for name in &names {
        let mut kuma = fixture.kuma.lock().unwrap();
        kuma.connect_sidecar("default", name, "10.9.0.1", fixture.clock.now());
        kuma.set_app_up("default", name, 8080, true, fixture.clock.now());
    }
    sleep(Duration::from_secs(7)).await;
    fixture.kuma.lock().unwrap().tick(fixture.clock.now());
    assert_eq!(in_tags(&fixture), 2, "new instances received every second report");
    sleep(Duration::from_mins(1)).await;
    assert_eq!(in_tags(&fixture), 4);
    let kuma = fixture.kuma.lock().unwrap();
    assert!(names.iter().all(|name| kuma.is_online("default", name)), "readiness is carried forward");
}

#[tokio::test(start_paused = true)]
async fn rolling_upgrade_replaces_tag_outbounds_at_its_end() {
    let fixture = roll_to_3_0("Disabled").await;
    let kuma = fixture.kuma.lock().unwrap();
    let outbounds: Vec<&Value> = kuma
        .dataplanes()
        .map(|(_, _, body)| &body["networking"]["outbound"][0]["backendRef"]["name"])
        .collect();
    assert!(outbounds.iter().filter(|name| **name == "kv").count() >= 1, "{outbounds:?}");
}

/// With a list that contradicts another one, outbounds are otherwise kept as they are.
#[tokio::test(start_paused = true)]
async fn mesh_moved_to_mesh_services_keeps_every_outbound() {
    let conflict = ["one", "two"].map(|name| {
        let target = if name == "one" { "kv" } else { "a" };
        let outbound = format!("{{service: {target}, targetPort: 15000, listen: {{port: 9100}}}}");
        document("OutboundList", name, &format!("workloads: [\"*\"], outbounds: [{outbound}]"))
    });
    for lists in [String::new(), conflict.concat()] {
        let mut fixture = OperatorFixture::new(&[("a", 1), ("kv", 1)]);
        fixture.cleanup = "{sweepInterval: 20s, drain: 1s}".to_owned();
        fixture.edit(&(caller("a") + &workload("kv", "kv")));
        fixture.start();
        sleep(Duration::from_mins(3)).await;
        fixture.edit(&(caller("a") + &workload("kv", "kv") + &lists));
        sleep(Duration::from_secs(30)).await;
        fixture.set_mesh_services_mode("Exclusive");
        fixture.kuma.lock().unwrap().take_journal();
        sleep(Duration::from_mins(2)).await;
        let get = KumaRequest::json("GET", "/meshes/default/meshservices/kv", Vec::new());
        let mut kuma = fixture.kuma.lock().unwrap();
        let created: Value = serde_json::from_slice(&kuma.handle(fixture.clock.now(), &get).body).unwrap();
        let created = Timestamp::parse(created["creationTime"].as_str().unwrap()).unwrap();
        let writes = kuma.take_journal();
        let moved: Vec<_> = writes.iter().filter(|entry| entry.kind == "Dataplane").collect();
        assert_eq!(moved.len(), 1, "{moved:?}");
        assert!(moved[0].at >= created, "the MeshService exists before an outbound refers to it");
        let outbounds = &moved[0].after.as_ref().unwrap()["networking"]["outbound"];
        assert_eq!(outbounds[0]["backendRef"]["name"], "kv", "{outbounds}");
        assert_eq!((&outbounds[0]["port"], &outbounds[0]["tags"]), (&json!(9001), &Value::Null));
    }
}

#[tokio::test(start_paused = true)]
async fn outbound_without_a_mesh_service_stays_a_tag() {
    let mut fixture = OperatorFixture::new(&[("a", 1)]);
    fixture.cleanup = "{sweepInterval: 20s, drain: 1s}".to_owned();
    fixture.edit(&caller("a"));
    fixture.start();
    sleep(Duration::from_mins(3)).await;
    fixture.set_mesh_services_mode("Exclusive");
    sleep(Duration::from_mins(2)).await;
    let outbound = || {
        let kuma = fixture.kuma.lock().unwrap();
        let (_, _, body) = kuma.dataplanes().next().unwrap();
        body["networking"]["outbound"][0].clone()
    };
    assert_eq!(outbound()["tags"]["kuma.io/service"], "kv");
    fixture.set_task(9, "kv", LastStatus::Running);
    let offer = |port: u16| {
        fixture.put(
            "/meshes/default/meshservices/kv",
            &json!({"type": "MeshService", "mesh": "default", "name": "kv", "spec":
                {"selector": {"dataplaneTags": {"kuma.io/service": "kv"}}, "ports": [{"port": port}]}}),
        );
    };
    offer(15_001);
    sleep(Duration::from_mins(2)).await;
    assert_eq!(outbound()["tags"]["kuma.io/service"], "kv", "the MeshService lacks the port");
    offer(15_000);
    sleep(Duration::from_mins(2)).await;
    assert_eq!(outbound()["backendRef"]["name"], "kv");
}

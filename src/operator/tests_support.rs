//! A control plane of another version: not supported for some time, upgraded, or without a form for a registration.

use std::time::Duration;

use tokio::time::sleep;

use super::test_fixture::{OperatorFixture, document, workload, workloads};
use ecs_mesh_core::plan::report::Change;

impl OperatorFixture {
    fn is_supported(&self) -> bool {
        let workers = self.operator.as_ref().unwrap().workers();
        workers.values().all(|worker| worker.unsupported().is_none())
    }
}

/// With nothing to write, nothing else would look before the next sweep, which is a day later here.
#[tokio::test(start_paused = true)]
async fn control_plane_that_is_supported_again_is_found_without_a_write() {
    let mut fixture = OperatorFixture::new(&[("a", 1)]);
    fixture.kuma.lock().unwrap().set_version("4.0.1");
    fixture.edit(&workloads(&[]));
    fixture.start();
    sleep(Duration::from_secs(20)).await;
    assert!(!fixture.is_supported());
    fixture.kuma.lock().unwrap().set_version("2.14.3");
    sleep(Duration::from_mins(1)).await;
    assert!(fixture.is_supported());
}

/// With a sweep a day later, only the change of the version leads to another look at what is registered.
#[tokio::test(start_paused = true)]
async fn upgraded_control_plane_gets_registrations_in_its_format() {
    let mut fixture = OperatorFixture::new(&[("a", 2)]);
    let protocols = |fixture: &OperatorFixture| -> Vec<Option<String>> {
        let kuma = fixture.kuma.lock().unwrap();
        let protocol = |body: &serde_json::Value| {
            body["networking"]["inbound"][0]["protocol"].as_str().map(str::to_owned)
        };
        kuma.dataplanes().map(|(_, _, body)| protocol(body)).collect()
    };
    fixture.kuma.lock().unwrap().set_version("2.13.0");
    fixture.edit(&workloads(&["a"]));
    fixture.start();
    sleep(Duration::from_mins(2)).await;
    assert_eq!(protocols(&fixture), [None, None], "2.13 does not know the field");
    fixture.kuma.lock().unwrap().set_version("2.14.3");
    sleep(Duration::from_mins(1)).await;
    assert_eq!(protocols(&fixture), [Some("http".to_owned()), Some("http".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn registration_that_the_version_lacks_is_not_written() {
    let mut fixture = OperatorFixture::new(&[("a", 1), ("events", 1)]);
    let inbound = "{containerPort: 9092, port: 15000, protocol: kafka}";
    let spec = format!("selector: {{services: [events]}}, service: events, inbounds: [{inbound}]");
    fixture.kuma.lock().unwrap().set_version("3.0.1");
    fixture.edit(&(workload("a", "a") + &document("Workload", "events", &spec)));
    let plan = fixture.plan().await;
    let planned: Vec<Change> = plan.changes.iter().map(|entry| entry.change.change).collect();
    assert_eq!(planned, [Change::Create, Change::Hold]);
    let reason = &plan.changes[1].change.reason;
    assert!(reason.contains("Kuma 3.0.1") && reason.contains("kafka"), "{reason}");
    fixture.start();
    sleep(Duration::from_mins(2)).await;
    let kuma = fixture.kuma.lock().unwrap();
    let written: Vec<_> =
        kuma.dataplanes().map(|(_, _, body)| body["labels"]["kuma.io/workload"].clone()).collect();
    assert_eq!(written, ["a"]);
    let metrics = fixture.operator.as_ref().unwrap().context.metrics().render();
    assert!(
        metrics.contains("ecs_mesh_tasks_with_warnings{control_plane=\"kuma\",reason=\"not_expressible\"} 1"),
        "{metrics}"
    );
}

//! Tasks in network mode `host` have the address of their container instance.

use std::time::Duration;

use tokio::time::sleep;

use super::test_fixture::{OperatorFixture, workloads};
use ecs_mesh_aws::aws::AwsErrorKind;
use ecs_mesh_aws::fakes::instance_arn;
use ecs_mesh_core::plan::report::Change;
use ecs_mesh_model::{InterfaceAddresses, TaskHost};

/// Tasks of the service `web` in this network mode, the first two on instance 1 and the others on instance 2.
fn tasks_in(mode: &str, count: usize) -> OperatorFixture {
    let mut fixture = OperatorFixture::new(&[("web", count)]);
    *fixture.ecs.network_mode.lock().unwrap() = Some(mode.to_owned());
    for (n, task) in fixture.ecs.tasks.lock().unwrap().values_mut().enumerate() {
        task.addresses = InterfaceAddresses::NONE;
        task.host = TaskHost::ContainerInstance(instance_arn(n / 2 + 1));
    }
    fixture.edit(&workloads(&["web"]));
    fixture
}

impl OperatorFixture {
    /// The addresses of all registrations, sorted.
    fn addresses(&self) -> Vec<String> {
        let kuma = self.kuma.lock().unwrap();
        let all = kuma.dataplanes().map(|(_, _, body)| &body["networking"]["address"]);
        let mut addresses: Vec<_> = all.map(|address| address.as_str().unwrap().to_owned()).collect();
        addresses.sort();
        addresses
    }
}

#[tokio::test(start_paused = true)]
async fn task_in_host_mode_has_the_address_of_its_instance() {
    let mut fixture = tasks_in("host", 3);
    fixture.ec2.set(1, "10.0.2.1");
    fixture.ec2.set(2, "10.0.2.2");
    fixture.start();
    sleep(Duration::from_mins(1)).await;
    assert_eq!(fixture.addresses(), ["10.0.2.1", "10.0.2.1", "10.0.2.2"]);
    assert!(fixture.ec2.calls() <= 2, "{} calls", fixture.ec2.calls());
}

#[tokio::test(start_paused = true)]
async fn registrations_are_kept_while_the_instance_is_unknown() {
    let mut fixture = tasks_in("host", 3);
    fixture.ec2.set(1, "10.0.2.1");
    fixture.start();
    sleep(Duration::from_mins(1)).await;
    assert_eq!(fixture.addresses(), ["10.0.2.1", "10.0.2.1"], "the third task waits");
    // Another process knows no instance, and EC2 answers none of its reads.
    *fixture.ec2.fails.lock().unwrap() = Some(AwsErrorKind::Denied);
    fixture.start();
    sleep(Duration::from_mins(30)).await;
    assert_eq!(fixture.addresses(), ["10.0.2.1", "10.0.2.1"]);
    *fixture.ec2.fails.lock().unwrap() = None;
    fixture.ec2.set(2, "10.0.2.2");
    sleep(Duration::from_mins(30)).await;
    assert_eq!(fixture.addresses(), ["10.0.2.1", "10.0.2.1", "10.0.2.2"]);
}

#[tokio::test(start_paused = true)]
async fn plan_shows_refused_and_unknown_tasks() {
    let fixture = tasks_in("bridge", 1);
    let report = fixture.plan().await;
    let change = &report.changes[0].change;
    assert_eq!(change.change, Change::Ignore);
    assert!(change.reason.contains("network mode bridge"), "{}", change.reason);

    let fixture = tasks_in("host", 1);
    assert_eq!(fixture.plan().await.changes[0].change.change, Change::Unknown);
    fixture.ec2.set(1, "10.0.2.1");
    let report = fixture.plan().await;
    let registration = report.changes[0].change.registration.as_ref().unwrap();
    assert_eq!(registration["networking"]["address"], "10.0.2.1");

    let external = tasks_in("host", 1);
    external.ecs.tasks.lock().unwrap().values_mut().for_each(|task| task.host = TaskHost::External);
    let report = external.plan().await;
    assert_eq!(report.changes[0].change.change, Change::Ignore);
    assert!(report.changes[0].change.reason.contains("EXTERNAL"));
}

#[tokio::test(start_paused = true)]
async fn task_without_its_interface_is_described_at_intervals() {
    let mut fixture = tasks_in("awsvpc", 1);
    fixture.start();
    sleep(Duration::from_mins(1)).await;
    let described = fixture.ecs.described.lock().unwrap().len();
    assert!(described < 20, "{described} describes");
    let own = InterfaceAddresses::new(Some("10.0.1.7".parse().unwrap()), None).unwrap();
    fixture.ecs.tasks.lock().unwrap().values_mut().for_each(|task| {
        task.addresses = own;
        task.version += 1;
    });
    sleep(Duration::from_mins(1)).await;
    assert_eq!(fixture.addresses(), ["10.0.1.7"]);
}

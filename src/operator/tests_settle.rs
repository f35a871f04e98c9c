//! Documents that leave the manifests: when an operator withdraws what only they asked for, and how many of few at a time.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::sleep;

use super::test_fixture::{OperatorFixture, document, workload, workloads};

const MINUTE: Duration = Duration::from_mins(1);

/// `cleanup.settle`.
const SETTLE: Duration = Duration::from_mins(1);

/// Longer than calls, sweeps and drains take.
const SOON: Duration = Duration::from_secs(12);

fn outbound_ports(fixture: &OperatorFixture) -> Vec<u64> {
    let kuma = fixture.kuma.lock().unwrap();
    let (_, _, body) = kuma.dataplanes().next().unwrap();
    let outbounds = body["networking"]["outbound"].as_array().cloned().unwrap_or_default();
    outbounds.iter().filter_map(|outbound| outbound["port"].as_u64()).collect()
}

/// A list of outbounds of every workload, by their ports.
fn outbound_list(name: &str, ports: &[u16]) -> String {
    let mut outbounds = String::new();
    for port in ports {
        write!(outbounds, "{{service: kv, targetPort: 1, listen: {{port: {port}}}}}, ").unwrap();
    }
    document("OutboundList", name, &format!("workloads: [\"*\"], outbounds: [{outbounds}]"))
}

/// Sleeps for almost this time.
async fn sleep_short_of(time: Duration, by: Duration) {
    sleep(time.saturating_sub(by)).await;
}

fn counts(expected: &[(&str, usize)]) -> BTreeMap<String, usize> {
    expected.iter().map(|(service, count)| ((*service).to_owned(), *count)).collect()
}

/// A running operator that has registered every task longer ago than anything settles.
async fn settled(services: &[(&str, usize)]) -> OperatorFixture {
    let mut fixture = OperatorFixture::new(services);
    let names: Vec<&str> = services.iter().map(|(name, _)| *name).collect();
    fixture.edit(&workloads(&names));
    fixture.start();
    sleep(SETTLE * 2).await;
    assert_eq!(fixture.serving(), counts(services));
    fixture
}

#[tokio::test(start_paused = true)]
async fn absent_workload_is_withdrawn_after_the_settle_time() {
    let mut fixture = settled(&[("a", 2), ("b", 1)]).await;
    fixture.edit(&workloads(&["a"]));
    sleep(SETTLE / 2).await;
    // A change of another document restarts nothing.
    fixture.edit(&(workloads(&["a"]) + &outbound_list("users", &[9000])));
    sleep_short_of(SETTLE / 2, Duration::from_secs(1)).await;
    assert_eq!(fixture.serving(), counts(&[("a", 2), ("b", 1)]));
    sleep(SOON).await;
    assert_eq!(fixture.serving(), counts(&[("a", 2)]));
    sleep(SOON).await;
    assert_eq!(fixture.kuma.lock().unwrap().dataplanes().count(), 2, "removed after its drain");
}

#[tokio::test(start_paused = true)]
async fn renamed_workload_withdraws_nothing() {
    let mut fixture = settled(&[("a", 2)]).await;
    fixture.kuma.lock().unwrap().take_journal();
    fixture.edit(&workload("renamed", "a"));
    sleep(SETTLE * 20).await;
    let writes = fixture.kuma.lock().unwrap().take_journal().len();
    assert_eq!((fixture.serving(), writes), (counts(&[("a", 2)]), 0));
}

#[tokio::test(start_paused = true)]
async fn edit_of_a_present_workload_acts_at_once() {
    let mut fixture = settled(&[("a", 1), ("b", 1)]).await;
    fixture.edit(&(workload("a", "a") + &workload("b", "other")));
    sleep(SOON).await;
    assert_eq!(fixture.serving(), counts(&[("a", 1)]));
}

#[tokio::test(start_paused = true)]
async fn errors_delay_what_an_absence_withdraws() {
    let mut fixture = settled(&[("a", 2), ("b", 1)]).await;
    fixture.edit(&workloads(&["a"]));
    sleep(SETTLE / 2).await;
    fixture.edit(&(workloads(&["a"]) + "kind: Wor\n"));
    sleep(SETTLE * 20).await;
    assert_eq!(fixture.serving(), counts(&[("a", 2), ("b", 1)]), "the file in error may hold the workload");
    fixture.edit(&(workloads(&["a"]) + "# corrected\n"));
    sleep_short_of(SETTLE / 2, SOON).await;
    assert_eq!(fixture.serving(), counts(&[("a", 2), ("b", 1)]));
    sleep(SOON * 2).await;
    assert_eq!(fixture.serving(), counts(&[("a", 2)]));
}

#[tokio::test(start_paused = true)]
async fn registration_without_document_waits_after_a_start() {
    let mut fixture = settled(&[("a", 2), ("b", 1)]).await;
    fixture.edit(&workloads(&["a"]));
    fixture.start();
    sleep_short_of(SETTLE, Duration::from_secs(5)).await;
    assert_eq!(fixture.serving(), counts(&[("a", 2), ("b", 1)]));
    sleep(SOON).await;
    assert_eq!(fixture.serving(), counts(&[("a", 2)]));
    // Documents that this process has read are edited.
    fixture.edit(&workloads(&["a", "b"]));
    fixture.start();
    sleep(SOON).await;
    assert_eq!(fixture.serving(), counts(&[("a", 2), ("b", 1)]));
    fixture.edit(&(workload("a", "a") + &workload("b", "other")));
    sleep(SOON).await;
    assert_eq!(fixture.serving(), counts(&[("a", 2)]));
}

#[tokio::test(start_paused = true)]
async fn outbounds_of_an_absent_list_stay_for_the_settle_time() {
    let mut fixture = settled(&[("a", 1)]).await;
    let both =
        |more: &[u16]| workloads(&["a"]) + &outbound_list("one", &[9001]) + &outbound_list("two", more);
    fixture.edit(&both(&[9002]));
    sleep(SOON).await;
    assert_eq!(outbound_ports(&fixture), [9001, 9002]);
    // An edit of a list that stays.
    fixture.edit(&both(&[]));
    sleep(SOON).await;
    assert_eq!(outbound_ports(&fixture), [9001]);
    // A list leaves, and the other one adds to what is there.
    fixture.edit(&(workloads(&["a"]) + &outbound_list("two", &[9003])));
    sleep_short_of(SETTLE, Duration::from_secs(1)).await;
    assert_eq!(outbound_ports(&fixture), [9001, 9003]);
    sleep(SOON).await;
    assert_eq!(outbound_ports(&fixture), [9003]);
    // After a start, any list may be missing.
    fixture.edit(&workloads(&["a"]));
    fixture.start();
    sleep_short_of(SETTLE, Duration::from_secs(5)).await;
    assert_eq!(outbound_ports(&fixture), [9003]);
    sleep(SOON).await;
    assert_eq!(outbound_ports(&fixture), Vec::<u64>::new());
}

#[tokio::test(start_paused = true)]
async fn outbounds_follow_an_edit_soon_after_a_start() {
    let mut fixture = OperatorFixture::new(&[("a", 1)]);
    fixture.edit(&(workloads(&["a"]) + &outbound_list("one", &[9001, 9002])));
    fixture.start();
    sleep(SOON).await;
    fixture.edit(&(workloads(&["a"]) + &outbound_list("one", &[9001])));
    sleep(SOON).await;
    assert_eq!(outbound_ports(&fixture), [9001]);
    fixture.start();
    sleep(SOON).await;
    fixture.edit(&(workloads(&["a"]) + &outbound_list("one", &[])));
    sleep(SOON).await;
    assert_eq!(outbound_ports(&fixture), Vec::<u64>::new());
}

#[tokio::test(start_paused = true)]
async fn few_registrations_are_withdrawn_once_the_edit_is_stable() {
    let mut fixture = settled(&[("a", 4), ("b", 4)]).await;
    fixture.edit(&(workload("a", "a") + &workload("b", "other")));
    sleep(SOON).await;
    assert_eq!(fixture.serving(), counts(&[("a", 4), ("b", 3)]), "one an hour");
    // Another document changes.
    fixture.edit(&(workload("a", "a") + &workload("b", "other") + &outbound_list("users", &[9000])));
    sleep_short_of(MINUTE * 10, SOON + Duration::from_secs(5)).await;
    assert_eq!(fixture.serving(), counts(&[("a", 4), ("b", 3)]));
    sleep(SOON).await;
    assert_eq!(fixture.serving(), counts(&[("a", 4)]));
}

#[tokio::test(start_paused = true)]
async fn stable_time_starts_with_the_absence_and_ends_with_its_end() {
    let mut fixture = settled(&[("a", 4), ("b", 4)]).await;
    fixture.edit(&workloads(&["a"]));
    sleep(SETTLE + SOON).await;
    assert_eq!(fixture.serving(), counts(&[("a", 4), ("b", 3)]));
    // Back, and absent again: from zero.
    fixture.edit(&workloads(&["a", "b"]));
    sleep(SOON).await;
    assert_eq!(fixture.serving(), counts(&[("a", 4), ("b", 4)]));
    fixture.edit(&workloads(&["a"]));
    sleep_short_of(MINUTE * 10, Duration::from_secs(5)).await;
    let serving = fixture.serving()["b"];
    assert!(serving >= 3, "{serving}");
    sleep(SOON).await;
    assert_eq!(fixture.serving(), counts(&[("a", 4)]));
}

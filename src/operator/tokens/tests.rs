//! Tokens at the Kuma emulator, with stores in memory.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::sleep;

use crate::operator::test_fixture::{OperatorFixture, workloads};
use crate::telemetry::state::TokenStatus;
use ecs_mesh_core::plan::GuardState;
use ecs_mesh_core::plan::report::{Change, PlanEntry, PlannedKind};
use ecs_mesh_core::tokens::{TokenId, TokenRecord};
use ecs_mesh_kuma::TokenIssuer;
use ecs_mesh_model::MeshName;
use ecs_mesh_sandbox::kuma::KumaRequest;

const HOUR: Duration = Duration::from_hours(1);
/// Longer than a pass takes, and shorter than any time of the tokens.
const SOON: Duration = Duration::from_mins(2);
const TOKENS: &str = "issue: true, path: /mesh, validFor: 24h, rotateBefore: 6h, overlap: 2h";

/// A running operator that has issued tokens for these workloads.
async fn issuing(names: &[&str]) -> OperatorFixture {
    let mut fixture = OperatorFixture::new(&[]);
    TOKENS.clone_into(&mut fixture.tokens);
    fixture.edit(&workloads(names));
    fixture.start();
    sleep(SOON).await;
    assert_eq!(fixture.stored_names().len(), names.len());
    fixture
}

impl OperatorFixture {
    fn stored_names(&self) -> BTreeSet<String> {
        self.secrets.entries.lock().unwrap().keys().cloned().collect()
    }

    fn record(&self, workload: &str) -> TokenRecord {
        let entries = self.secrets.entries.lock().unwrap();
        TokenRecord::read(&entries[&format!("/mesh/default/{workload}/token")].0).unwrap()
    }

    fn current(&self, workload: &str) -> TokenId {
        self.record(workload).current.id
    }

    fn text(&self, workload: &str) -> String {
        self.secrets.entries.lock().unwrap()[&format!("/mesh/default/{workload}/token")].1.clone()
    }

    fn take_writes(&self) -> Vec<&'static str> {
        let mut writes = self.secrets.writes.lock().unwrap();
        std::mem::take(&mut *writes).into_iter().map(|(operation, _)| operation).collect()
    }

    /// The mesh's list, by the client.
    async fn revoked(&self) -> String {
        let list = self.client().revocations(&MeshName::default()).await.unwrap();
        list.text()
    }

    /// Another writer revokes this id.
    async fn revoke_by_hand(&self, id: &str) {
        let ids = [TokenId::parse(id).unwrap()].into();
        self.client().change_revocations(&MeshName::default(), &ids, &BTreeSet::new()).await.unwrap();
    }

    fn status(&self) -> TokenStatus {
        let workers = self.operator.as_ref().unwrap().workers();
        workers["kuma"].tokens.as_ref().unwrap().status()
    }

    fn tokens_in(&self, state: &str) -> usize {
        self.status().tokens.get(state).copied().unwrap_or(0)
    }

    /// The state of the binding's guards, as `/readyz` shows it.
    fn guard_of_prod(&self) -> GuardState {
        let operator = self.operator.as_ref().unwrap();
        let (workers, set) = (operator.workers(), &self.loaded_set());
        workers["kuma"].guard_states(set, self.clock.now(), self.clock.wall())["prod"]
    }

    /// Another writer replaces the whole list by one with this text in base64.
    fn overwrite_list(&self, data: &str) {
        let name = "dataplane-token-revocations-default";
        let body = format!(r#"{{"type": "Secret", "mesh": "default", "name": "{name}", "data": "{data}"}}"#);
        let request = KumaRequest::json("PUT", &format!("/meshes/default/secrets/{name}"), body.into_bytes());
        assert!(self.kuma.lock().unwrap().handle(self.clock.now(), &request).status < 300);
    }

    fn issued_by_kuma(&self) -> u64 {
        self.kuma.lock().unwrap().tokens_issued()
    }
}

#[tokio::test(start_paused = true)]
async fn each_workload_gets_one_token() {
    let fixture = issuing(&["a", "b"]).await;
    let record = fixture.record("a");
    assert_eq!(record.identity.to_string(), "workload=a");
    assert_eq!(record.owner.operator.as_str(), "op");
    assert_eq!(fixture.text("a").split('.').count(), 3);
    assert_ne!(fixture.text("a"), fixture.text("b"));
    let expiry = record.current.expires.as_secs_f64();
    assert_eq!((fixture.tokens_in("issued"), fixture.status().next_expiry), (2, Some(expiry)));
    assert_eq!(fixture.take_writes(), ["create", "create"]);
    // Quiet when equal.
    sleep(10 * HOUR).await;
    assert_eq!((fixture.take_writes().len(), fixture.issued_by_kuma()), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn older_server_binds_tokens_to_the_service() {
    let mut fixture = OperatorFixture::new(&[]);
    fixture.kuma.lock().unwrap().upgrade(ecs_mesh_sandbox::kuma::EmulatedRelease::V2_9, fixture.clock.now());
    TOKENS.clone_into(&mut fixture.tokens);
    fixture.edit(&workloads(&["a"]));
    fixture.start();
    sleep(SOON).await;
    assert_eq!(fixture.record("a").identity.to_string(), "service=a");
}

#[tokio::test(start_paused = true)]
async fn token_is_rotated_revoked_and_pruned() {
    let fixture = issuing(&["a"]).await;
    fixture.revoke_by_hand("of-another-writer").await;
    let (first, text) = (fixture.current("a"), fixture.text("a"));
    fixture.take_writes();
    sleep(18 * HOUR).await;
    assert_ne!((fixture.current("a"), fixture.text("a")), (first.clone(), text));
    // The id is recorded before the token can be read.
    assert_eq!(fixture.take_writes(), ["set_tags", "put", "set_tags"]);
    sleep(HOUR).await;
    assert_eq!(fixture.revoked().await, "of-another-writer", "valid within the overlap");
    sleep(HOUR + SOON).await;
    assert_eq!(fixture.revoked().await, format!("of-another-writer,{first}"));
    // It has expired, and the clock of any server has reached its end.
    sleep(6 * HOUR).await;
    assert_eq!(fixture.revoked().await, "of-another-writer");
    assert_eq!(fixture.record("a").prior, []);
    assert_eq!((fixture.tokens_in("issued"), fixture.issued_by_kuma()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn token_of_a_removed_workload_is_revoked_once_settled() {
    let mut fixture = issuing(&["a", "b"]).await;
    let removed = fixture.current("b");
    // A file in error may hold the workload.
    fixture.edit(&(workloads(&["a"]) + "kind: Wor\n"));
    sleep(HOUR).await;
    assert_eq!(fixture.revoked().await, "");
    fixture.edit(&workloads(&["a"]));
    sleep(Duration::from_secs(50)).await;
    assert_eq!((fixture.revoked().await.as_str(), fixture.tokens_in("held")), ("", 1));
    sleep(SOON).await;
    assert_eq!(fixture.revoked().await, removed.to_string());
    assert_eq!(fixture.stored_names().len(), 2, "the tags keep the id until the token's end");
    // The list loses it by another writer.
    fixture.overwrite_list("b3RoZXI=");
    sleep(HOUR + SOON).await;
    assert_eq!(fixture.revoked().await, format!("other,{removed}"));
    sleep(24 * HOUR).await;
    assert_eq!(fixture.stored_names(), ["/mesh/default/a/token".to_owned()].into());
    assert!(!fixture.revoked().await.contains(removed.as_str()));
}

#[tokio::test(start_paused = true)]
async fn workload_restored_during_a_pass_keeps_its_token() {
    let names: Vec<String> = (0..240).map(|n| format!("w{n:03}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut fixture = issuing(&names).await;
    fixture.edit(&workloads(&names[..239]));
    // The settled pass reads its entries for some seconds.
    sleep(Duration::from_secs(63)).await;
    assert_eq!((fixture.revoked().await.as_str(), fixture.tokens_in("held")), ("", 1));
    fixture.edit(&workloads(&names));
    sleep(SOON).await;
    assert_eq!((fixture.revoked().await.as_str(), fixture.tokens_in("issued")), ("", 240));
}

#[tokio::test(start_paused = true)]
async fn workload_that_returns_gets_another_token() {
    let mut fixture = issuing(&["a", "b"]).await;
    let revoked = fixture.current("b");
    fixture.edit(&workloads(&["a"]));
    sleep(SOON).await;
    fixture.edit(&workloads(&["a", "b"]));
    sleep(SOON).await;
    assert_ne!(fixture.current("b"), revoked);
    assert_eq!(fixture.revoked().await, revoked.to_string());
    assert_eq!(fixture.tokens_in("issued"), 2);
}

/// Each id stays in the tags until the end of its token, so that it can leave the list then.
#[tokio::test(start_paused = true)]
async fn token_that_is_revoked_often_is_replaced_each_time() {
    let fixture = issuing(&["a"]).await;
    for n in 0..10 {
        let revoked = fixture.current("a");
        fixture.revoke_by_hand(revoked.as_str()).await;
        sleep(HOUR + SOON).await;
        assert_ne!(fixture.current("a"), revoked);
        assert_eq!((fixture.tokens_in("issued"), fixture.record("a").prior.len()), (1, n + 1));
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_below_a_former_path_are_counted() {
    let mut fixture = issuing(&["a", "b"]).await;
    assert_eq!(fixture.tokens_in("former"), 0);
    fixture.tokens = TOKENS.replace("/mesh", "/meshes");
    // A file in error may have the path.
    fixture.edit(&(workloads(&["a", "b"]) + "kind: Wor\n"));
    sleep(SOON).await;
    assert_eq!(fixture.tokens_in("former"), 0);
    fixture.edit(&workloads(&["a", "b"]));
    sleep(SOON).await;
    assert_eq!((fixture.tokens_in("former"), fixture.tokens_in("issued")), (2, 2));
    fixture.secrets.entries.lock().unwrap().retain(|name, _| name.starts_with("/meshes/"));
    sleep(2 * HOUR).await;
    assert_eq!((fixture.tokens_in("former"), fixture.tokens_in("issued")), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn failed_revocation_is_counted_as_failed() {
    let mut fixture = issuing(&["a", "b"]).await;
    fixture.refused_paths.lock().unwrap().insert("revocations");
    fixture.edit(&workloads(&["a"]));
    sleep(HOUR).await;
    assert_eq!((fixture.tokens_in("failed"), fixture.tokens_in("withdrawn")), (1, 0));
    assert_eq!(fixture.revoked().await, "");
    fixture.refused_paths.lock().unwrap().clear();
    sleep(HOUR).await;
    assert_eq!((fixture.tokens_in("failed"), fixture.tokens_in("withdrawn")), (0, 1));
}

/// A pass takes as long as the store's quota requires, and goes on where it is.
#[tokio::test(start_paused = true)]
async fn many_parameters_are_written_below_the_quota() {
    let names: Vec<String> = (0..1_400).map(|n| format!("w{n:04}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut fixture = OperatorFixture::new(&[]);
    fixture.tokens = format!("{TOKENS}, store: parameterStore");
    fixture.edit(&workloads(&names));
    fixture.start();
    let stored = || fixture.parameters.entries.lock().unwrap().len();
    // Each name is read twice, five times a second; three tokens a second are the quota.
    let mut last = 0;
    while last < names.len() {
        sleep(Duration::from_secs(10)).await;
        let now = stored();
        assert!(now - last <= 22, "{last} {now}");
        last = now;
    }
    sleep(HOUR).await;
    assert_eq!((fixture.tokens_in("issued"), fixture.issued_by_kuma()), (1_400, 1_400));
}

#[tokio::test(start_paused = true)]
async fn refused_token_is_requested_with_backoff() {
    let mut fixture = OperatorFixture::new(&[]);
    fixture.refused_paths.lock().unwrap().insert("/tokens/");
    TOKENS.clone_into(&mut fixture.tokens);
    fixture.edit(&workloads(&["a"]));
    fixture.start();
    sleep(HOUR).await;
    assert_eq!((fixture.tokens_in("failed"), fixture.issued_by_kuma()), (1, 0));
    fixture.refused_paths.lock().unwrap().clear();
    sleep(HOUR).await;
    assert_eq!((fixture.tokens_in("issued"), fixture.issued_by_kuma()), (1, 1));
}

/// A server before 2.13 that calls itself newer ignores the workload.
#[tokio::test(start_paused = true)]
async fn token_that_is_not_bound_is_requested_with_backoff() {
    let mut fixture = OperatorFixture::new(&[]);
    fixture.token_faults.lock().unwrap().unbound = true;
    TOKENS.clone_into(&mut fixture.tokens);
    fixture.edit(&workloads(&["a"]));
    fixture.start();
    sleep(10 * HOUR).await;
    // At least every half hour, and no more than twice that.
    let requested = fixture.issued_by_kuma();
    assert!((20..=60).contains(&requested), "{requested}");
    assert_eq!((fixture.tokens_in("failed"), fixture.take_writes().len()), (1, 0));
    fixture.token_faults.lock().unwrap().unbound = false;
    sleep(HOUR).await;
    assert_eq!((fixture.tokens_in("issued"), fixture.issued_by_kuma()), (1, requested + 1));
}

#[tokio::test(start_paused = true)]
async fn difference_of_the_clocks_does_not_repeat_rotations() {
    for ahead in [30, -30] {
        let mut fixture = OperatorFixture::new(&[]);
        fixture.token_faults.lock().unwrap().clock_ahead = ahead;
        TOKENS.clone_into(&mut fixture.tokens);
        fixture.edit(&workloads(&["a"]));
        fixture.start();
        sleep(17 * HOUR).await;
        assert_eq!((fixture.tokens_in("issued"), fixture.issued_by_kuma()), (1, 1), "{ahead}");
        let (first, ends) = (fixture.current("a"), fixture.record("a").current.ends());
        let left = fixture.clock.wall().age_at(ends);
        assert!(left.abs_diff(7 * HOUR) < SOON, "{ahead}: {left:?}");
        sleep(2 * HOUR).await;
        assert_eq!(fixture.issued_by_kuma(), 2, "{ahead}: rotated after 18 hours");
        sleep(2 * HOUR).await;
        assert_eq!(fixture.revoked().await, first.to_string());
    }
}

/// Neither a list that cannot be read nor one that may not be read stops rotations.
#[tokio::test(start_paused = true)]
async fn tokens_are_rotated_while_the_list_is_unreadable() {
    for is_forbidden in [true, false] {
        let mut fixture = issuing(&["a", "b"]).await;
        fixture.edit(&workloads(&["a"]));
        let removed = fixture.current("b");
        if is_forbidden {
            fixture.token_faults.lock().unwrap().lists_forbidden = true;
        } else {
            // No text.
            fixture.overwrite_list("//79");
        }
        let first = fixture.current("a");
        sleep(21 * HOUR).await;
        assert_ne!(fixture.current("a"), first, "{is_forbidden}");
        // Neither the replaced token nor that of the removed workload can be revoked.
        assert_eq!((fixture.tokens_in("failed"), fixture.issued_by_kuma()), (2, 3), "{is_forbidden}");
        fixture.token_faults.lock().unwrap().lists_forbidden = false;
        fixture.overwrite_list("b3RoZXI=");
        sleep(HOUR).await;
        assert_eq!(fixture.revoked().await, format!("other,{first},{removed}"), "{is_forbidden}");
        assert_eq!((fixture.tokens_in("failed"), fixture.tokens_in("withdrawn")), (0, 1), "{is_forbidden}");
    }
}

#[tokio::test(start_paused = true)]
async fn restarted_operator_waits_before_it_revokes() {
    let mut fixture = issuing(&["a", "b"]).await;
    fixture.edit(&workloads(&["a"]));
    fixture.start();
    sleep(Duration::from_secs(50)).await;
    assert_eq!(fixture.revoked().await, "");
    sleep(SOON).await;
    assert_eq!(fixture.revoked().await, fixture.current("b").to_string());
    assert_eq!(fixture.issued_by_kuma(), 2, "the tags hold what a new process needs");
}

#[tokio::test(start_paused = true)]
async fn issue_false_revokes_at_once_and_the_guard_limits_it() {
    let names: Vec<String> = (0..12).map(|n| format!("w{n:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut fixture = issuing(&names).await;
    "issue: false, path: /mesh".clone_into(&mut fixture.tokens);
    fixture.edit(&workloads(&names));
    sleep(SOON).await;
    // 30 % of 12.
    assert_eq!(fixture.revoked().await.split(',').count(), 3);
    assert_eq!((fixture.tokens_in("withdrawn"), fixture.tokens_in("held")), (3, 9));
    let guard = fixture.guard_of_prod();
    assert_eq!((guard.held, guard.admitted, guard.owned, guard.limit), (9, 3, 12, 3));
    // They are no longer to be revoked.
    TOKENS.clone_into(&mut fixture.tokens);
    fixture.edit(&workloads(&names));
    sleep(SOON).await;
    assert_eq!(fixture.guard_of_prod().held, 0);
}

#[tokio::test(start_paused = true)]
async fn secret_of_another_owner_is_not_overwritten() {
    let mut fixture = OperatorFixture::new(&[]);
    let foreign = ([("team".to_owned(), "x".to_owned())].into(), "theirs".to_owned());
    fixture.secrets.entries.lock().unwrap().insert("/mesh/default/a/token".to_owned(), foreign.clone());
    TOKENS.clone_into(&mut fixture.tokens);
    fixture.edit(&workloads(&["a", "b"]));
    fixture.start();
    sleep(HOUR).await;
    assert_eq!(fixture.secrets.entries.lock().unwrap()["/mesh/default/a/token"], foreign);
    assert_eq!((fixture.tokens_in("conflict"), fixture.tokens_in("issued")), (1, 1));
    assert_eq!(fixture.issued_by_kuma(), 1, "no token is issued for a taken name");
}

#[tokio::test(start_paused = true)]
async fn failing_store_gets_one_token_and_not_many() {
    let fixture = issuing(&["a"]).await;
    let first = fixture.current("a");
    fixture.secrets.failing.lock().unwrap().insert("put");
    // For longer than the overlap.
    sleep(22 * HOUR).await;
    let unstored = fixture.record("a");
    assert!(!unstored.stored && unstored.current.id != first);
    assert_eq!((fixture.tokens_in("failed"), fixture.issued_by_kuma()), (1, 2));
    fixture.secrets.failing.lock().unwrap().clear();
    sleep(HOUR).await;
    assert_eq!(fixture.revoked().await, "", "the overlap starts when the new token is stored");
    let record = fixture.record("a");
    assert_eq!((record.stored, &record.current, record.prior.len()), (true, &unstored.current, 1));
    assert_eq!(fixture.tokens_in("issued"), 1);
}

#[tokio::test(start_paused = true)]
async fn one_token_is_issued_however_long_a_write_fails() {
    let mut fixture = OperatorFixture::new(&[]);
    fixture.secrets.failing.lock().unwrap().insert("create");
    TOKENS.clone_into(&mut fixture.tokens);
    fixture.edit(&workloads(&["a"]));
    fixture.start();
    sleep(10 * HOUR).await;
    assert_eq!((fixture.issued_by_kuma(), fixture.tokens_in("failed")), (1, 1));
    fixture.secrets.failing.lock().unwrap().clear();
    sleep(HOUR).await;
    assert_eq!((fixture.issued_by_kuma(), fixture.tokens_in("issued")), (1, 1));
    // The id cannot be recorded.
    let first = fixture.current("a");
    fixture.secrets.failing.lock().unwrap().insert("set_tags");
    sleep(9 * HOUR).await;
    assert_eq!((fixture.issued_by_kuma(), fixture.current("a")), (2, first.clone()));
    fixture.secrets.failing.lock().unwrap().clear();
    sleep(HOUR).await;
    assert_eq!((fixture.issued_by_kuma(), fixture.tokens_in("issued")), (2, 1));
    assert_ne!(fixture.current("a"), first);
}

#[tokio::test(start_paused = true)]
async fn token_is_kept_while_its_tags_cannot_be_read() {
    let fixture = issuing(&["a"]).await;
    fixture.secrets.failing.lock().unwrap().insert("put");
    sleep(19 * HOUR).await;
    let unstored = fixture.current("a");
    *fixture.secrets.failing.lock().unwrap() = ["tags"].into();
    sleep(HOUR / 2).await;
    fixture.secrets.failing.lock().unwrap().clear();
    sleep(HOUR / 2).await;
    assert_eq!((fixture.current("a"), fixture.issued_by_kuma()), (unstored, 2));
}

/// Either token may have been read, so both can be revoked.
#[tokio::test(start_paused = true)]
async fn token_that_another_process_may_have_stored_is_replaced() {
    let mut fixture = issuing(&["a"]).await;
    let first = fixture.current("a");
    fixture.secrets.failing.lock().unwrap().insert("put");
    sleep(19 * HOUR).await;
    let unstored = fixture.current("a");
    fixture.secrets.failing.lock().unwrap().clear();
    fixture.start();
    sleep(SOON).await;
    let record = fixture.record("a");
    let prior: Vec<&TokenId> = record.prior.iter().map(|prior| &prior.token.id).collect();
    assert_eq!((record.stored, prior), (true, vec![&first, &unstored]));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_issued_at_an_unsupported_control_plane() {
    let mut fixture = OperatorFixture::new(&[]);
    fixture.kuma.lock().unwrap().set_version("4.0.1");
    TOKENS.clone_into(&mut fixture.tokens);
    fixture.edit(&workloads(&["a"]));
    fixture.start();
    sleep(HOUR).await;
    assert_eq!((fixture.issued_by_kuma(), fixture.take_writes().len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn plan_shows_tokens_and_writes_nothing() {
    let mut fixture = OperatorFixture::new(&[]);
    TOKENS.clone_into(&mut fixture.tokens);
    fixture.edit(&workloads(&["a"]));
    let of_tokens = |entries: &[PlanEntry]| {
        let tokens = entries.iter().filter(|entry| entry.change.kind == Some(PlannedKind::TOKEN));
        tokens.map(|entry| (entry.change.change, entry.change.name.clone().unwrap())).collect::<Vec<_>>()
    };
    let report = fixture.plan().await;
    assert_eq!(of_tokens(&report.changes), [(Change::Create, "/mesh/default/a/token".to_owned())]);
    assert_eq!(report.unresolved, []);
    assert_eq!((fixture.issued_by_kuma(), fixture.take_writes().len()), (0, 0));
    fixture.secrets.failing.lock().unwrap().insert("list");
    let report = fixture.plan().await;
    assert!(report.unresolved.iter().any(|one| one.subject.contains("/mesh")), "{:?}", report.unresolved);
}

#[tokio::test(start_paused = true)]
async fn policy_and_pause_withhold_changes() {
    for (binding, expected) in [("paused: true", 0), ("policy: create-only", 1)] {
        let mut fixture = OperatorFixture::new(&[]);
        fixture.tokens = TOKENS.to_owned();
        fixture.binding = format!(", {binding}");
        fixture.edit(&workloads(&["a"]));
        fixture.start();
        sleep(20 * HOUR).await;
        assert_eq!(fixture.issued_by_kuma(), expected, "{binding}");
        assert_eq!(fixture.tokens_in("held"), 1, "{binding}");
    }
}

#[tokio::test(start_paused = true)]
async fn previous_operator_id_hands_its_tokens_over() {
    let mut fixture = issuing(&["a", "b"]).await;
    let (first, text) = (fixture.current("a"), fixture.text("a"));
    fixture.take_writes();
    fixture.ids = ("op-2", None);
    fixture.start();
    sleep(SOON).await;
    assert_eq!((fixture.tokens_in("conflict"), fixture.take_writes().len()), (2, 0));
    // One workload is not declared any more: its token is taken over, and revoked like any other.
    fixture.edit(&workloads(&["a"]));
    fixture.ids = ("op-2", Some("op"));
    fixture.start();
    // Longer than cleanup.settle.
    sleep(2 * SOON).await;
    for workload in ["a", "b"] {
        assert_eq!(fixture.record(workload).owner.operator.as_str(), "op-2", "{workload}");
    }
    assert_eq!(fixture.take_writes(), ["set_tags", "set_tags"]);
    assert_eq!((fixture.current("a"), fixture.text("a")), (first.clone(), text));
    assert_eq!((fixture.tokens_in("issued"), fixture.tokens_in("withdrawn")), (1, 1));
    assert_eq!(fixture.revoked().await, fixture.current("b").to_string());
    // Without the flag nothing is left to do until the rotation.
    fixture.ids = ("op-2", None);
    fixture.start();
    sleep(SOON).await;
    assert_eq!((fixture.take_writes().len(), fixture.issued_by_kuma()), (0, 2));
    sleep(18 * HOUR).await;
    assert_eq!(fixture.record("a").prior[0].token.id, first);
}

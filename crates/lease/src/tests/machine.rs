//! The state machine, step by step.

use std::time::Duration;

use ecs_mesh_model::Timestamp;

use crate::{
    Election, ElectionChange, ElectionRole, ElectionStep, ExpiryJudge, HolderId, LeaseLoss, LeaseRecord,
    LeaseTiming, LeaseWrite, LeaseWriteKind, StoredRecord,
};

/// Milliseconds since the start.
fn at(millis: i64) -> Timestamp {
    Timestamp(millis)
}

fn holder(name: &str) -> HolderId {
    HolderId::recorded(name)
}

fn held_by(name: &str, epoch: u64, version: u64) -> StoredRecord {
    let record =
        LeaseRecord { holder: Some(holder(name)), epoch, duration: LeaseTiming::default().lease_duration() };
    StoredRecord { record, version }
}

fn candidate(judge: ExpiryJudge) -> Election {
    Election::new(holder("me"), LeaseTiming::default(), judge)
}

/// The write that is due.
fn due(election: &Election, now: i64) -> LeaseWrite {
    match election.next_step(at(now)) {
        ElectionStep::Write(write) => write,
        other => panic!("{other:?}"),
    }
}

/// A leader that sent its acquisition at 0 and got the answer at 100; version 1, epoch 1.
fn leader() -> Election {
    let mut election = candidate(ExpiryJudge::Observer);
    election.on_read(at(0), Some(None), 0.0);
    let write = due(&election, 0);
    assert_eq!((write.kind, write.expected, write.record.epoch), (LeaseWriteKind::Acquire, None, 1));
    let change = election.on_write(&write, (at(0), at(100)), Some(Some(1)), 0.0);
    assert_eq!(change, Some(ElectionChange::Acquired { epoch: 1 }));
    election
}

#[test]
fn term_counts_from_before_the_renewal_was_sent() {
    let mut election = leader();
    assert_eq!(election.valid_until(), Some(at(14_700)));
    assert_eq!(election.next_step(at(100)), ElectionStep::Wait(Duration::from_millis(1_900)));
    let write = due(&election, 2_000);
    assert_eq!((write.kind, write.expected), (LeaseWriteKind::Renew, Some(1)));
    // The answer takes four seconds.
    election.on_write(&write, (at(2_000), at(6_000)), Some(Some(2)), 0.0);
    assert_eq!(election.valid_until(), Some(at(16_700)));
    assert_eq!(due(&election, 6_000).expected, Some(2), "the next renewal is due");
}

#[test]
fn follower_waits_for_the_lease_duration_on_its_own_clock() {
    let mut election = candidate(ExpiryJudge::Observer);
    let change = election.on_read(at(1_000), Some(Some(held_by("other", 4, 9))), 0.0);
    assert_eq!(change, Some(ElectionChange::LeaderSeen(Some(holder("other")))));
    // A renewal is seen: the wait begins again.
    election.on_read(at(3_000), Some(Some(held_by("other", 4, 10))), 0.0);
    for read in [5_000, 10_000, 17_999] {
        election.on_read(at(read), Some(Some(held_by("other", 4, 10))), 0.0);
        assert!(!matches!(election.next_step(at(read)), ElectionStep::Write(_)), "{read}");
    }
    // Exactly then, not one retry later.
    assert_eq!(election.next_step(at(17_999)), ElectionStep::Wait(Duration::from_millis(1)));
    let write = due(&election, 18_000);
    assert_eq!((write.kind, write.expected, write.record.epoch), (LeaseWriteKind::Acquire, Some(10), 5));
}

#[test]
fn longer_duration_of_the_holder_is_respected() {
    let mut election = candidate(ExpiryJudge::Observer);
    let mut stored = held_by("other", 1, 1);
    stored.record.duration = Duration::from_mins(1);
    election.on_read(at(0), Some(Some(stored)), 0.0);
    assert_eq!(election.next_step(at(59_999)), ElectionStep::Read);
    assert_eq!(due(&election, 60_000).record.duration, Duration::from_secs(15));
}

#[test]
fn released_lease_is_taken_at_once() {
    let mut election = candidate(ExpiryJudge::Observer);
    let mut stored = held_by("other", 3, 7);
    stored.record.holder = None;
    election.on_read(at(500), Some(Some(stored)), 0.0);
    let write = due(&election, 500);
    assert_eq!((write.expected, write.record.epoch), (Some(7), 4));
}

#[test]
fn store_that_judges_is_not_asked_before_it_shows_no_holder() {
    let mut election = candidate(ExpiryJudge::Store);
    election.on_read(at(0), Some(Some(held_by("other", 1, 1))), 0.0);
    assert_eq!(election.next_step(at(3_600_000)), ElectionStep::Read);
    let mut stored = held_by("other", 1, 2);
    stored.record.holder = None;
    election.on_read(at(3_600_000), Some(Some(stored)), 0.0);
    assert_eq!(due(&election, 3_600_000).kind, LeaseWriteKind::Acquire);
}

#[test]
fn of_two_racing_candidates_the_second_loses_the_condition() {
    let mut election = candidate(ExpiryJudge::Observer);
    election.on_read(at(0), Some(None), 0.0);
    let write = due(&election, 0);
    assert_eq!(election.on_write(&write, (at(0), at(10)), Some(None), 0.0), None);
    assert_eq!((election.role(), election.valid_until()), (ElectionRole::Follower, None));
    assert_eq!(election.next_step(at(10)), ElectionStep::Read);
    election.on_read(at(20), Some(Some(held_by("other", 1, 1))), 0.0);
    assert!(matches!(election.next_step(at(20)), ElectionStep::Wait(_)));
}

#[test]
fn leader_steps_down_at_the_renew_deadline() {
    let mut election = leader();
    for sent in [2_000, 4_000, 6_000, 8_000] {
        let write = due(&election, sent);
        election.on_write(&write, (at(sent), at(sent)), None, 0.0);
        assert_eq!(election.tick(at(sent)), None);
    }
    assert_eq!(election.valid_until(), Some(at(14_700)), "a failed renewal does not extend the term");
    assert_eq!(election.tick(at(9_999)), None);
    assert_eq!(election.tick(at(10_000)), Some(ElectionChange::Lost(LeaseLoss::RenewDeadline)));
    assert_eq!((election.role(), election.valid_until()), (ElectionRole::Follower, None));
}

#[test]
fn frozen_leader_does_not_lead_when_it_resumes() {
    let mut election = leader();
    let write = due(&election, 2_000);
    // Frozen with the answer on its way; the store accepted the renewal long ago.
    election.on_write(&write, (at(2_000), at(40_000)), Some(Some(2)), 0.0);
    assert!(election.valid_until() < Some(at(40_000)), "the term has ended for writers already");
    assert_eq!(election.tick(at(40_000)), Some(ElectionChange::Lost(LeaseLoss::RenewDeadline)));
}

#[test]
fn renewal_without_answer_is_found_by_reading() {
    let mut election = leader();
    let write = due(&election, 2_000);
    election.on_write(&write, (at(2_000), at(3_000)), None, 0.0);
    // It had succeeded: the version is 2, and the next renewal expects 1.
    let write = due(&election, 5_000);
    assert_eq!(write.expected, Some(1));
    assert_eq!(election.on_write(&write, (at(5_000), at(5_010)), Some(None), 0.0), None);
    assert_eq!(election.next_step(at(5_010)), ElectionStep::Read);
    assert_eq!(election.on_read(at(5_020), Some(Some(held_by("me", 1, 2))), 0.0), None);
    assert_eq!(due(&election, 5_020).expected, Some(2));
    assert_eq!(election.valid_until(), Some(at(14_700)), "a read extends nothing");
}

#[test]
fn leader_steps_down_when_another_holds_the_record() {
    let mut election = leader();
    let write = due(&election, 2_000);
    let change = election.on_write(&write, (at(2_000), at(2_010)), Some(None), 0.0);
    assert_eq!(change, Some(ElectionChange::Lost(LeaseLoss::TakenOver)));
    // The same with a renewal in doubt.
    let mut election = leader();
    let write = due(&election, 2_000);
    election.on_write(&write, (at(2_000), at(3_000)), None, 0.0);
    let write = due(&election, 5_000);
    election.on_write(&write, (at(5_000), at(5_010)), Some(None), 0.0);
    let change = election.on_read(at(5_020), Some(Some(held_by("other", 2, 2))), 0.0);
    assert_eq!(change, Some(ElectionChange::Lost(LeaseLoss::TakenOver)));
}

#[test]
fn acquisition_without_answer_is_taken_up_again_with_its_epoch() {
    let mut election = candidate(ExpiryJudge::Observer);
    election.on_read(at(0), Some(None), 0.0);
    let write = due(&election, 0);
    election.on_write(&write, (at(0), at(5_000)), None, 0.0);
    assert_eq!(election.valid_until(), None);
    election.on_read(at(7_000), Some(Some(held_by("me", 1, 1))), 0.0);
    let write = due(&election, 7_000);
    assert_eq!((write.kind, write.expected, write.record.epoch), (LeaseWriteKind::Acquire, Some(1), 1));
}

#[test]
fn deposed_leader_waits_for_its_successor_from_the_first_look() {
    let mut election = leader();
    assert!(election.tick(at(30_000)).is_some());
    assert_eq!(election.next_step(at(30_000)), ElectionStep::Read);
    election.on_read(at(30_010), Some(Some(held_by("other", 2, 5))), 0.0);
    assert!(matches!(election.next_step(at(45_009)), ElectionStep::Read | ElectionStep::Wait(_)));
    assert_eq!(due(&election, 45_010).record.epoch, 3);
}

#[test]
fn release_ends_the_term_before_the_record_changes() {
    let mut election = leader();
    election.release();
    assert_eq!((election.role(), election.valid_until()), (ElectionRole::Released, None));
    let write = due(&election, 1_000);
    assert_eq!((write.kind, write.expected), (LeaseWriteKind::Release, Some(1)));
    assert_eq!((write.record.holder.clone(), write.record.epoch), (None, 1));
    let change = election.on_write(&write, (at(1_000), at(1_010)), Some(Some(2)), 0.0);
    assert_eq!(change, Some(ElectionChange::Released));
    assert_eq!(election.next_step(at(1_010)), ElectionStep::Done);
}

#[test]
fn release_in_doubt_reads_the_version_once_more() {
    let mut election = leader();
    let write = due(&election, 2_000);
    election.on_write(&write, (at(2_000), at(3_000)), None, 0.0);
    election.release();
    let write = due(&election, 3_000);
    election.on_write(&write, (at(3_000), at(3_010)), Some(None), 0.0);
    assert_eq!(election.next_step(at(3_010)), ElectionStep::Read);
    election.on_read(at(3_020), Some(Some(held_by("me", 1, 2))), 0.0);
    assert_eq!(due(&election, 3_020).expected, Some(2));
}

#[test]
fn release_does_not_wait_for_a_store_that_fails() {
    let mut election = leader();
    election.release();
    let write = due(&election, 1_000);
    election.on_write(&write, (at(1_000), at(6_000)), None, 0.0);
    assert_eq!(election.next_step(at(6_000)), ElectionStep::Done);
    // A standby has nothing to release.
    let mut standby = candidate(ExpiryJudge::Observer);
    standby.release();
    assert_eq!(standby.next_step(at(0)), ElectionStep::Done);
}

/// Releases what a follower may hold, and returns the version that the release expects; `None` without a release.
fn release_of_follower(mut election: Election, read: StoredRecord) -> Option<u64> {
    assert_eq!(election.role(), ElectionRole::Follower);
    election.release();
    assert_eq!((election.valid_until(), election.next_step(at(20_000))), (None, ElectionStep::Read));
    election.on_read(at(20_010), Some(Some(read)), 0.0);
    match election.next_step(at(20_010)) {
        ElectionStep::Done => None,
        ElectionStep::Write(LeaseWrite { kind: LeaseWriteKind::Release, expected, record, .. }) => {
            assert_eq!(record.holder, None);
            expected
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn stop_releases_an_acquisition_without_answer() {
    for (holder, version) in [("me", Some(1)), ("other", None)] {
        let mut election = candidate(ExpiryJudge::Observer);
        election.on_read(at(0), Some(None), 0.0);
        let write = due(&election, 0);
        election.on_write(&write, (at(0), at(5_000)), None, 0.0);
        assert_eq!(release_of_follower(election, held_by(holder, 1, 1)), version);
    }
}

#[test]
fn stop_releases_a_term_whose_renewals_failed() {
    for (holder, version) in [("me", Some(2)), ("other", None)] {
        let mut election = leader();
        let write = due(&election, 2_000);
        election.on_write(&write, (at(2_000), at(10_000)), None, 0.0);
        assert!(election.tick(at(10_000)).is_some());
        assert_eq!(release_of_follower(election, held_by(holder, 1, 2)), version);
    }
}

#[test]
fn stop_releases_nothing_once_another_leads() {
    let mut election = leader();
    assert!(election.tick(at(10_000)).is_some());
    election.on_read(at(10_010), Some(Some(held_by("other", 2, 2))), 0.0);
    election.release();
    assert_eq!(election.next_step(at(10_020)), ElectionStep::Done);
}

#[test]
fn stop_releases_an_acquisition_that_arrives_late() {
    let mut election = candidate(ExpiryJudge::Observer);
    let mut free = held_by("other", 3, 7);
    free.record.holder = None;
    election.on_read(at(0), Some(Some(free.clone())), 0.0);
    let write = due(&election, 0);
    election.on_write(&write, (at(0), at(5_000)), None, 0.0);
    // It is still on its way when the record is read, and takes effect afterwards.
    election.on_read(at(7_000), Some(Some(free)), 0.0);
    assert_eq!(release_of_follower(election, held_by("me", 4, 8)), Some(8));
}

use super::*;

const NOW: Timestamp = Timestamp(1_000_000);
const LIMIT: Duration = Duration::from_secs(35);

fn id(name: &str) -> RegistrationId {
    RegistrationId { mesh: MeshName::default(), name: name.into() }
}

/// The endpoints of a service: name, and `r` ready, `n` not ready, `d` drained for stopping, `o` drained and ended, `l` ready
/// and leaving, `k` routed without a connection.
fn endpoints(all: &[(&str, char)]) -> Vec<ServiceEndpoint> {
    let endpoint = |(name, state): &(&str, char)| ServiceEndpoint {
        id: id(name),
        routed: matches!(state, 'r' | 'l' | 'k'),
        connected: !matches!(state, 'k' | 'o'),
        drained: matches!(state, 'd' | 'o').then_some(DrainReason::Stopping),
        leaving: *state == 'l',
    };
    all.iter().map(endpoint).collect()
}

fn request<'a>(id: &'a RegistrationId, endpoints: &'a [ServiceEndpoint]) -> DrainRequest<'a> {
    DrainRequest {
        id,
        service: "web",
        reason: DrainReason::Stopping,
        endpoints: Some(endpoints),
        keep_ready: 50,
        serving: true,
        max_hold: LIMIT,
        now: NOW,
    }
}

struct Holds(DrainHolds);

impl Holds {
    fn ask_with(
        &mut self,
        name: &str,
        all: &[(&str, char)],
        change: impl Fn(&mut DrainRequest<'_>),
    ) -> DrainPermit {
        let (id, endpoints) = (id(name), endpoints(all));
        let mut request = request(&id, &endpoints);
        change(&mut request);
        self.0.request(&request)
    }

    fn ask(&mut self, name: &str, all: &[(&str, char)]) -> DrainPermit {
        self.ask_with(name, all, |_| ())
    }

    fn still_permits(&self, name: &str, all: &[(&str, char)]) -> bool {
        let (id, endpoints) = (id(name), endpoints(all));
        self.0.still_permits(&request(&id, &endpoints))
    }
}

fn holds() -> Holds {
    Holds(DrainHolds::default())
}

const ENOUGH: DrainPermit = DrainPermit::Now(DrainCause::EnoughReady);

fn held(ready: usize, needed: usize) -> DrainPermit {
    DrainPermit::Held { ready, needed }
}

#[test]
fn all_tasks_stopped_at_once_wait_for_replacements() {
    let mut holds = holds();
    let before = [("a", 'l'), ("b", 'l'), ("c", 'l'), ("d", 'n')];
    for name in ["a", "b", "c"] {
        assert_eq!(holds.ask(name, &before), held(0, 2));
    }
    assert_eq!(holds.0.held_count(), 3);
    let one = [("a", 'l'), ("b", 'l'), ("c", 'l'), ("d", 'r'), ("e", 'n')];
    assert_eq!(holds.ask("a", &one), held(1, 2));
    let two = [("a", 'l'), ("b", 'l'), ("c", 'l'), ("d", 'r'), ("e", 'r')];
    for name in ["a", "b", "c"] {
        assert_eq!(holds.ask(name, &two), ENOUGH);
    }
    assert_eq!(holds.0.held_count(), 0);
}

#[test]
fn one_of_several_is_drained_at_once() {
    assert_eq!(holds().ask("a", &[("a", 'l'), ("b", 'r')]), ENOUGH);
    assert_eq!(holds().ask("a", &[("a", 'l'), ("b", 'r'), ("c", 'r'), ("d", 'r')]), ENOUGH);
}

/// The base is that of the wave's begin: draining one after the other never goes below it.
#[test]
fn wave_keeps_its_base_until_none_is_leaving() {
    let mut holds = holds();
    assert_eq!(holds.ask("a", &[("a", 'l'), ("b", 'r'), ("c", 'r'), ("d", 'r')]), ENOUGH);
    assert_eq!(holds.ask("b", &[("a", 'd'), ("b", 'l'), ("c", 'r'), ("d", 'r')]), ENOUGH);
    assert_eq!(holds.ask("c", &[("a", 'd'), ("b", 'd'), ("c", 'l'), ("d", 'r')]), held(1, 2));
    // All of the wave have ended, so another begins.
    assert_eq!(holds.ask("d", &[("a", 'o'), ("b", 'o'), ("d", 'l'), ("f", 'r')]), ENOUGH);
    holds.0.retain(|_| false);
    assert!(holds.0.is_empty());
    assert_eq!(holds.ask("e", &[("e", 'l'), ("f", 'r')]), ENOUGH);
}

#[test]
fn drains_of_an_earlier_process_belong_to_the_wave() {
    let all = [("a", 'd'), ("b", 'd'), ("c", 'l'), ("d", 'r')];
    assert_eq!(holds().ask("c", &all), held(1, 2));
}

#[test]
fn registrations_of_any_owner_count_unless_they_leave() {
    let foreign = [("a", 'l'), ("foreign", 'r')];
    assert_eq!(holds().ask("a", &foreign), ENOUGH);
    assert_eq!(holds().ask("a", &[("a", 'l'), ("foreign", 'd')]), held(0, 1));
}

#[test]
fn hold_ends_with_the_service_of_the_task() {
    let all = [("a", 'l')];
    let mut holds = holds();
    assert_eq!(holds.ask("a", &all), held(0, 1));
    let stopped = holds.ask_with("a", &all, |request| request.serving = false);
    assert_eq!(stopped, DrainPermit::Now(DrainCause::NotServing));
    assert_eq!(holds.ask("a", &[("a", 'n')]), DrainPermit::Now(DrainCause::NotReady));
    assert_eq!(holds.ask("a", &[]), DrainPermit::Now(DrainCause::NotReady));
}

#[test]
fn hold_ends_at_its_time_limit() {
    let all = [("a", 'l')];
    let mut holds = holds();
    assert_eq!(holds.ask("a", &all), held(0, 1));
    let almost = NOW.plus(LIMIT.saturating_sub(Duration::from_millis(1)));
    assert_eq!(holds.ask_with("a", &all, |request| request.now = almost), held(0, 1));
    let over = holds.ask_with("a", &all, |request| request.now = NOW.plus(LIMIT));
    assert_eq!(over, DrainPermit::Now(DrainCause::Expired));
}

#[test]
fn unreadable_endpoints_hold_until_the_limit() {
    let mut holds = holds();
    assert_eq!(holds.ask_with("a", &[], |request| request.endpoints = None), held(0, 1));
    let over = holds.ask_with("a", &[], |request| {
        (request.endpoints, request.now) = (None, NOW.plus(LIMIT));
    });
    assert_eq!(over, DrainPermit::Now(DrainCause::Expired));
}

#[test]
fn kept_part_is_rounded_up_and_at_least_one() {
    for (percent, base, needed) in [(0, 4, 1), (50, 1, 1), (50, 3, 2), (34, 3, 2), (100, 3, 3), (1, 200, 2)] {
        let wave = DrainWave { base: Some(base), marked: BTreeMap::new() };
        assert_eq!(wave.needed(percent), needed, "{percent} % of {base}");
    }
}

#[test]
fn released_registration_counts_again() {
    let mut holds = holds();
    let all = [("a", 'r'), ("b", 'r')];
    assert_eq!(holds.ask("a", &all), ENOUGH);
    assert_eq!(holds.ask("b", &all), held(0, 1));
    assert!(holds.0.is_held(&id("b")));
    holds.0.release(&id("a"));
    assert_eq!(holds.ask("b", &all), ENOUGH);
}

/// While the control plane restarts, no sidecar is connected, and clients are routed all the same.
#[test]
fn sidecars_without_a_connection_end_no_hold() {
    let mut holds = holds();
    assert_eq!(holds.ask("a", &[("a", 'l'), ("b", 'l')]), held(0, 1));
    assert_eq!(holds.ask("a", &[("a", 'k'), ("b", 'k')]), held(0, 1));
    // A killed one that still looks ready is no replacement.
    assert_eq!(holds.ask("a", &[("a", 'l'), ("b", 'k')]), held(0, 1));
}

/// Under `upsert-only`, Dataplanes of tasks that have ended stay.
#[test]
fn leftovers_of_ended_tasks_do_not_count() {
    let mut all = vec![("a", 'l'), ("b", 'r')];
    all.extend(["1", "2", "3", "4", "5", "6", "7", "8"].map(|name| (name, 'o')));
    assert_eq!(holds().ask("a", &all), ENOUGH);
}

#[test]
fn base_is_set_by_the_first_list_that_succeeds() {
    let mut holds = holds();
    let all = [("a", 'l'), ("b", 'r'), ("c", 'l'), ("d", 'l')];
    assert_eq!(holds.ask_with("a", &all, |request| request.endpoints = None), held(0, 1));
    assert_eq!(holds.ask("a", &all), held(1, 2));
}

#[test]
fn another_reason_starts_another_hold() {
    let all = [("a", 'l')];
    let mut holds = holds();
    let not_desired = |request: &mut DrainRequest<'_>| request.reason = DrainReason::NotDesired;
    assert_eq!(holds.ask_with("a", &all, not_desired), held(0, 1));
    assert_eq!(holds.ask_with("a", &all, |request| request.now = NOW.plus(LIMIT * 100)), held(0, 1));
}

/// The identity of one is revoked: it is drained without asking, and may still look ready.
#[test]
fn registration_that_is_being_revoked_is_not_counted_on() {
    let mut holds = holds();
    holds.0.mark(&id("b"), "web", DrainReason::Revoked, NOW);
    assert_eq!(holds.ask("a", &[("a", 'r'), ("b", 'r')]), held(0, 1));
    holds.0.release(&id("b"));
    assert_eq!(holds.ask("a", &[("a", 'r'), ("b", 'r')]), ENOUGH);
}

#[test]
fn permit_ends_when_its_replacements_are_drained_before_the_write() {
    let mut holds = holds();
    let all = [("a", 'r'), ("b", 'r')];
    assert_eq!(holds.ask("a", &all), ENOUGH);
    assert!(holds.still_permits("a", &all));
    holds.0.mark(&id("b"), "web", DrainReason::Revoked, NOW);
    assert!(!holds.still_permits("a", &all));
    // The drain is not due any more.
    holds.0.release(&id("a"));
    assert!(!holds.still_permits("a", &[("a", 'r'), ("b", 'r'), ("c", 'r')]));
}

#[test]
fn last_ready_one_is_not_drained_by_an_event_alone_while_its_sidecar_is_connected() {
    let mut holds = holds();
    let ask = |holds: &mut Holds, state: char, age: Duration| {
        holds.ask_with("a", &[("a", state)], |request| {
            request.reason = DrainReason::Unconfirmed;
            request.now = NOW.plus(age);
        })
    };
    assert_eq!(ask(&mut holds, 'r', Duration::ZERO), held(0, 1));
    assert_eq!(ask(&mut holds, 'r', LIMIT * 10), held(0, 1));
    let unread = holds.ask_with("a", &[], |request| {
        (request.reason, request.endpoints, request.now) =
            (DrainReason::Unconfirmed, None, NOW.plus(LIMIT * 10));
    });
    assert_eq!(unread, held(0, 1));
    assert_eq!(ask(&mut holds, 'k', LIMIT * 10), DrainPermit::Now(DrainCause::Expired));
}

//! Judges data plane tokens by what tasks could read from the store, and by the mesh's list of revoked tokens.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Invariant, InvariantViolation};
use crate::kuma::{KumaCp, token_claims};
use crate::world::MESH;
use ecs_mesh_model::Timestamp;

/// How long the effect of an edit may last: the operator writes within a pass of the earlier manifests.
const EDIT_LAG: Duration = Duration::from_mins(15);

/// How long after another writer's id was added a write of the operator may lose it: it reads the list right before.
const LIST_RACE: Duration = Duration::from_mins(2);

/// How long a declared workload may be without a token that sidecars can connect with, after someone else revoked it, or after
/// the workload returned: its token may have expired or been revoked while nothing declared it.
const REISSUE_TIME: Duration = Duration::from_hours(2);

/// A token that tasks could read.
#[derive(Clone, Debug)]
struct ReadableToken {
    workload: String,
    expires: Timestamp,
    /// When another token took its place.
    replaced: Option<Timestamp>,
}

/// Checks stored tokens and their revocation.
#[derive(Debug)]
pub struct TokenOracle {
    /// `overlap` and `settle` of the binding.
    overlap: Duration,
    settle: Duration,
    violations: Vec<InvariantViolation>,
    /// By id.
    tokens: BTreeMap<String, ReadableToken>,
    /// The id of the stored token, by workload.
    stored: BTreeMap<String, String>,
    /// Workloads that complete manifests do not declare, since when, and until when.
    undeclared: BTreeMap<String, (Timestamp, Option<Timestamp>)>,
    /// The ids that others have revoked, and when.
    by_others: BTreeMap<String, Timestamp>,
    /// The ids of the list, as last seen.
    listed: BTreeSet<String>,
    revoked: u64,
}

impl TokenOracle {
    /// An oracle for a binding with this `tokens.overlap` and `cleanup.settle`.
    pub fn new(overlap: Duration, settle: Duration) -> Self {
        Self {
            overlap,
            settle,
            violations: Vec::new(),
            tokens: BTreeMap::new(),
            stored: BTreeMap::new(),
            undeclared: BTreeMap::new(),
            by_others: BTreeMap::new(),
            listed: BTreeSet::new(),
            revoked: 0,
        }
    }

    /// The violations so far.
    pub fn violations(&self) -> &[InvariantViolation] {
        &self.violations
    }

    /// The numbers of tokens that tasks could read, and of those that the operator revoked.
    pub fn counts(&self) -> (u64, u64) {
        (u64::try_from(self.tokens.len()).unwrap_or(u64::MAX), self.revoked)
    }

    /// Records what tasks read for a workload from now on; `None` if its entry was removed.
    pub fn record_stored(&mut self, workload: &str, text: Option<&str>, now: Timestamp) {
        let claims = text.and_then(token_claims);
        let read = claims.as_ref().and_then(|claims| {
            let expires = Timestamp(claims["exp"].as_i64()? * 1_000);
            Some((claims["jti"].as_str()?.to_owned(), expires))
        });
        if text.is_some() && read.is_none() {
            self.report(Invariant::I8, workload, "what is stored is no token", now);
        }
        let id = read.as_ref().map(|(id, _)| id.clone());
        let before = match id {
            Some(id) => self.stored.insert(workload.to_owned(), id),
            None => self.stored.remove(workload),
        };
        let replaced = before.filter(|before| read.as_ref().is_none_or(|(id, _)| id != before));
        if let Some(token) = replaced.and_then(|id| self.tokens.get_mut(&id)) {
            token.replaced.get_or_insert(now);
            if text.is_none() && token.expires > now {
                self.report(Invariant::I2, workload, "its entry was removed, and its token is valid", now);
            }
        }
        if let Some((id, expires)) = read {
            let token = ReadableToken { workload: workload.to_owned(), expires, replaced: None };
            self.tokens.entry(id).or_insert(token).replaced = None;
        }
    }

    /// Records that complete manifests declare the workload, or do not.
    pub fn record_declared(&mut self, workload: &str, declared: bool, now: Timestamp) {
        match self.undeclared.get_mut(workload) {
            Some((_, until)) if declared => *until = until.or(Some(now)),
            Some((_, None)) => {}
            _ if declared => {}
            _ => drop(self.undeclared.insert(workload.to_owned(), (now, None))),
        }
    }

    /// Records that someone else revokes this id.
    pub fn record_revoked_by_others(&mut self, id: &str, now: Timestamp) {
        self.by_others.insert(id.to_owned(), now);
    }

    /// The id of the token that tasks of the workload read.
    pub fn stored_id(&self, workload: &str) -> Option<&str> {
        self.stored.get(workload).map(String::as_str)
    }

    fn is_declared(&self, workload: &str) -> bool {
        self.undeclared.get(workload).is_none_or(|(_, until)| until.is_some())
    }

    /// Whether the workload has been declared for long enough to have a token that sidecars can connect with.
    fn must_have_token(&self, workload: &str, now: Timestamp) -> bool {
        match self.undeclared.get(workload) {
            None => true,
            Some((_, returned)) => returned.is_some_and(|at| at.age_at(now) > REISSUE_TIME),
        }
    }

    /// Checks the changes of the list since the last call, and the tokens that tasks read now.
    pub fn check(&mut self, kuma: &KumaCp, now: Timestamp) {
        let list: BTreeSet<String> = kuma.revoked_tokens(MESH).into_iter().collect();
        for id in list.difference(&self.listed.clone()) {
            self.check_revocation(id, now);
        }
        for id in self.listed.clone().difference(&list) {
            self.check_unlisted(id, now);
        }
        self.listed = list;
        for (workload, id) in self.stored.clone() {
            let Some(token) = self.tokens.get(&id).filter(|_| self.must_have_token(&workload, now)) else {
                continue;
            };
            if token.expires <= now {
                self.report(Invariant::I2, &workload, "the token that tasks read has expired", now);
            }
            let by_hand = self.by_others.get(&id).filter(|_| self.listed.contains(&id));
            if by_hand.is_some_and(|at| at.age_at(now) > REISSUE_TIME) {
                self.report(Invariant::I4, &workload, "tasks still read a token that was revoked", now);
            }
        }
    }

    fn check_revocation(&mut self, id: &str, now: Timestamp) {
        // No sidecar could connect with a token that was not stored.
        let Some(token) = self.tokens.get(id).filter(|_| !self.by_others.contains_key(id)).cloned() else {
            return;
        };
        self.revoked += 1;
        let is_withdrawn = self.undeclared.get(&token.workload).is_some_and(|(since, until)| {
            since.age_at(now) >= self.settle && until.is_none_or(|until| until.age_at(now) <= EDIT_LAG)
        });
        let is_replaced = token.replaced.is_some_and(|at| at.age_at(now) >= self.overlap);
        if !is_withdrawn && !is_replaced {
            let message = "a token was revoked that tasks may have read within the overlap";
            self.report(Invariant::I2, &token.workload, message, now);
        }
    }

    fn check_unlisted(&mut self, id: &str, now: Timestamp) {
        let revoked_at = self.by_others.get(id).copied();
        match self.tokens.get(id).cloned() {
            Some(token) if token.expires > now => {
                self.report(Invariant::I4, &token.workload, "a valid token is revoked no more", now);
            }
            Some(_) => {}
            None if revoked_at.is_some_and(|at| at.age_at(now) > LIST_RACE) => {
                self.report(Invariant::I3, id, "another writer's id has left the list", now);
            }
            None => drop(self.by_others.remove(id)),
        }
    }

    /// Checks the state after a quiet period: each declared workload has a token, and no other token is valid.
    pub fn check_after_quiet(&mut self, workloads: &[String], now: Timestamp) {
        let is_valid = |id: &String, token: &ReadableToken| token.expires > now && !self.listed.contains(id);
        let serves = |workload: &String| {
            let stored = self.stored.get(workload);
            stored.is_some_and(|id| self.tokens.get(id).is_some_and(|token| is_valid(id, token)))
        };
        let missing: Vec<&String> =
            workloads.iter().filter(|workload| self.is_declared(workload) && !serves(workload)).collect();
        let left: Vec<String> = self
            .tokens
            .iter()
            .filter(|(id, token)| {
                let is_stored = self.stored.get(&token.workload) == Some(id);
                let is_recent = |at: Timestamp| at.age_at(now) < self.overlap + EDIT_LAG;
                let is_needed =
                    self.is_declared(&token.workload) && (is_stored || token.replaced.is_some_and(is_recent));
                is_valid(id, token) && !is_needed
            })
            .map(|(_, token)| token.workload.clone())
            .collect();
        let missing: Vec<String> = missing.into_iter().cloned().collect();
        for workload in missing {
            self.report(Invariant::I8, &workload, "tasks read no token that is valid", now);
        }
        for workload in left {
            self.report(Invariant::I1, &workload, "a replaced or withdrawn token is still valid", now);
        }
    }

    fn report(&mut self, invariant: Invariant, subject: &str, message: &str, at: Timestamp) {
        self.violations.push(InvariantViolation { invariant, at, message: format!("{subject}: {message}") });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kuma::{KumaConfig, KumaRequest};
    use serde_json::json;

    const START: Timestamp = Timestamp(1_795_305_600_000);
    const HOUR: Duration = Duration::from_hours(1);

    fn at(hours: u32) -> Timestamp {
        START.plus(HOUR * hours)
    }

    struct Fixture {
        kuma: KumaCp,
        oracle: TokenOracle,
    }

    impl Fixture {
        fn new() -> Self {
            let oracle = TokenOracle::new(2 * HOUR, Duration::from_mins(1));
            Self { kuma: KumaCp::new(KumaConfig::default(), START), oracle }
        }

        /// Issues and stores a token of `web` for a day, and returns its id.
        fn store(&mut self, now: Timestamp) -> String {
            let body = json!({"mesh": MESH, "workload": "web", "type": "dataplane", "validFor": "24h"});
            let request = KumaRequest::json("POST", "/tokens/dataplane", body.to_string().into_bytes());
            let text = String::from_utf8(self.kuma.handle(now, &request).body).unwrap();
            self.oracle.record_stored("web", Some(&text), now);
            self.oracle.stored_id("web").unwrap().to_owned()
        }

        fn revoke(&mut self, id: &str, now: Timestamp) {
            self.kuma.revoke_token(MESH, id, now).unwrap();
            self.check(now);
        }

        fn check(&mut self, now: Timestamp) {
            self.oracle.check(&self.kuma, now);
        }

        fn found(&self) -> Vec<Invariant> {
            self.oracle.violations().iter().map(|violation| violation.invariant).collect()
        }
    }

    #[test]
    fn replaced_token_may_be_revoked_after_the_overlap_alone() {
        for (hours, expected) in [(11, &[Invariant::I2][..]), (12, &[])] {
            let mut fixture = Fixture::new();
            let first = fixture.store(at(0));
            fixture.store(at(10));
            fixture.revoke(&first, at(hours));
            assert_eq!(fixture.found(), expected, "{hours}");
        }
    }

    #[test]
    fn stored_token_may_be_revoked_once_its_workload_is_undeclared() {
        for (undeclared, by_others, expected) in
            [(false, false, &[Invariant::I2][..]), (true, false, &[]), (false, true, &[])]
        {
            let mut fixture = Fixture::new();
            let id = fixture.store(at(0));
            fixture.oracle.record_declared("web", !undeclared, at(1));
            if by_others {
                fixture.oracle.record_revoked_by_others(&id, at(2));
            }
            fixture.revoke(&id, at(2));
            assert_eq!(fixture.found(), expected, "{undeclared} {by_others}");
        }
    }

    #[test]
    fn token_must_be_replaced_before_its_end_and_after_a_revocation() {
        let mut fixture = Fixture::new();
        fixture.store(at(0));
        fixture.check(at(24));
        assert_eq!(fixture.found(), [Invariant::I2]);
        let mut fixture = Fixture::new();
        let id = fixture.store(at(0));
        fixture.oracle.record_revoked_by_others(&id, at(1));
        fixture.revoke(&id, at(1));
        fixture.check(at(4));
        assert_eq!(fixture.found(), [Invariant::I4]);
    }

    /// While nothing declared the workload, its token was not rotated, and not replaced after a revocation.
    #[test]
    fn returned_workload_has_time_to_get_another_token() {
        for (minutes, expected) in [(119, &[][..]), (121, &[Invariant::I2, Invariant::I4])] {
            let mut fixture = Fixture::new();
            let id = fixture.store(at(0));
            fixture.oracle.record_declared("web", false, at(1));
            fixture.oracle.record_revoked_by_others(&id, at(2));
            fixture.revoke(&id, at(2));
            fixture.check(at(30));
            fixture.oracle.record_declared("web", true, at(30));
            fixture.check(at(30).plus(Duration::from_mins(minutes)));
            assert_eq!(fixture.found(), expected, "{minutes}");
        }
    }

    #[test]
    fn replaced_token_that_stays_valid_is_a_leak() {
        let mut fixture = Fixture::new();
        let workloads = ["web".to_owned()];
        fixture.store(at(0));
        fixture.store(at(10));
        fixture.oracle.check_after_quiet(&workloads, at(12));
        assert_eq!(fixture.found(), []);
        fixture.oracle.check_after_quiet(&workloads, at(13));
        assert_eq!(fixture.found(), [Invariant::I1]);
    }

    #[test]
    fn ids_of_others_stay_in_the_list() {
        let mut fixture = Fixture::new();
        fixture.oracle.record_revoked_by_others("foreign", at(0));
        fixture.revoke("foreign", at(0));
        fixture.kuma = KumaCp::new(KumaConfig::default(), START);
        fixture.check(at(1));
        assert_eq!(fixture.found(), [Invariant::I3]);
    }
}

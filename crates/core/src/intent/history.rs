//! The documents that have left the manifests, and for how long.
//!
//! A document may be missing because a deployment has written half of its files, so a withdrawal that only an absence
//! causes waits for `cleanup.settle`. Time counts while the manifests are complete and without errors: a file in error may
//! hold the missing document. Errors stop that time and do not reset it, and changes of other documents do neither.
//!
//! After a start, the documents of earlier processes are unknown. Until the manifests have been valid for `cleanup.settle`,
//! any of them may be missing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ecs_mesh_api::manifests::{Binding, ManifestSet};
use ecs_mesh_api::{OutboundListSpec, WorkloadSpec, limits};
use ecs_mesh_model::Timestamp;

/// Documents that have left the manifests since the operator started. An absent `ConsulAuth` withdraws nothing, so none is kept.
#[derive(Clone, Debug, Default)]
pub struct ManifestHistory {
    last_complete: Option<Arc<ManifestSet>>,
    /// The last set in force that was not complete, since then: its documents are known, too.
    last_incomplete: Option<Arc<ManifestSet>>,
    clock: ValidTime,
    bindings: AbsentDocuments<Binding>,
    workloads: AbsentDocuments<WorkloadSpec>,
    outbound_lists: AbsentDocuments<OutboundListSpec>,
}

/// The absent documents of one kind by name, with the valid time at which each was first absent.
type AbsentDocuments<T> = BTreeMap<Arc<str>, (Duration, Arc<T>)>;

/// The time for which the manifests have been valid.
#[derive(Clone, Copy, Debug, Default)]
struct ValidTime {
    until_last_error: Duration,
    /// Since when they are valid again; `None` while they are not.
    since: Option<Timestamp>,
}

impl ValidTime {
    fn at(self, now: Timestamp) -> Duration {
        self.until_last_error + self.since.map_or(Duration::ZERO, |since| since.age_at(now))
    }
}

impl ManifestHistory {
    /// Records a load: the set that is in force after it, and whether the sources have no error. The same load may be
    /// recorded again.
    pub fn record(&mut self, set: &Arc<ManifestSet>, without_errors: bool, now: Timestamp) {
        let at = self.clock.at(now);
        if !(without_errors && set.complete) {
            self.clock = ValidTime { until_last_error: at, since: None };
            if !set.complete {
                self.last_incomplete = Some(Arc::clone(set));
            }
            return;
        }
        self.clock.since.get_or_insert(now);
        if self.last_complete.as_ref().is_some_and(|last| Arc::ptr_eq(last, set)) {
            return;
        }
        let known = [self.last_complete.replace(Arc::clone(set)), self.last_incomplete.take()];
        for last in known.into_iter().flatten() {
            record_absent(&mut self.bindings, &last.bindings, &set.bindings, at);
            record_absent(&mut self.workloads, &last.workloads, &set.workloads, at);
            record_absent(&mut self.outbound_lists, &last.outbound_lists, &set.outbound_lists, at);
        }
    }

    /// For how long the manifests have been valid since the operator started.
    pub fn valid_for(&self, now: Timestamp) -> Duration {
        self.clock.at(now)
    }

    /// Whether a document that an earlier process knew may have been missing for less than `settle`.
    pub fn is_starting(&self, settle: Duration, now: Timestamp) -> bool {
        self.valid_for(now) < settle
    }

    /// The set with the bindings and workloads that left it less than `settle` ago; `None` where none did.
    pub fn retained(&self, set: &ManifestSet, settle: Duration, now: Timestamp) -> Option<ManifestSet> {
        let at = self.clock.at(now);
        let bindings: Vec<_> = unsettled(&self.bindings, settle, at).collect();
        let workloads: Vec<_> = unsettled(&self.workloads, settle, at).collect();
        if bindings.is_empty() && workloads.is_empty() {
            return None;
        }
        let mut retained = set.clone();
        retained.bindings.extend(bindings.into_iter().map(|(name, it)| (Arc::clone(name), Arc::clone(it))));
        retained.workloads.extend(workloads.into_iter().map(|(name, it)| (Arc::clone(name), Arc::clone(it))));
        Some(retained)
    }

    /// Whether an outbound list of this workload left the manifests less than `settle` ago.
    pub(super) fn lacks_list_of(&self, workload: &str, settle: Duration, now: Timestamp) -> bool {
        let mut lists = unsettled(&self.outbound_lists, settle, self.clock.at(now));
        lists.any(|(_, list)| list.workloads.iter().any(|glob| glob.matches(workload)))
    }

    /// How long until a withdrawal no longer waits, by one of these values of `cleanup.settle`. `None` while the manifests
    /// are not valid, and where nothing waits.
    pub fn next_settled(
        &self,
        settles: impl IntoIterator<Item = Duration>,
        now: Timestamp,
    ) -> Option<Duration> {
        self.clock.since?;
        let at = self.clock.at(now);
        let absent = self.bindings.values().map(|(since, _)| *since);
        let absent = absent.chain(self.workloads.values().map(|(since, _)| *since));
        let absent = absent.chain(self.outbound_lists.values().map(|(since, _)| *since));
        let since: Vec<Duration> = absent.chain([Duration::ZERO]).collect();
        let ends = settles.into_iter().flat_map(|settle| since.iter().map(move |since| *since + settle));
        ends.filter(|end| *end > at).min().map(|end| end.saturating_sub(at))
    }
}

/// Records the documents that left at `at`, and forgets those that are back or have been absent for longer than any
/// `cleanup.settle`.
fn record_absent<T>(
    absent: &mut AbsentDocuments<T>,
    before: &BTreeMap<Arc<str>, Arc<T>>,
    now: &BTreeMap<Arc<str>, Arc<T>>,
    at: Duration,
) {
    absent
        .retain(|name, (since, _)| !now.contains_key(name) && at.saturating_sub(*since) < limits::SETTLE.max);
    for (name, document) in before.iter().filter(|(name, _)| !now.contains_key(*name)) {
        absent.insert(Arc::clone(name), (at, Arc::clone(document)));
    }
}

fn unsettled<T>(
    absent: &AbsentDocuments<T>,
    settle: Duration,
    at: Duration,
) -> impl Iterator<Item = (&Arc<str>, &Arc<T>)> {
    let is_unsettled = move |since: Duration| at.saturating_sub(since) < settle;
    absent.iter().filter(move |(_, (since, _))| is_unsettled(*since)).map(|(name, (_, it))| (name, it))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SETTLE: Duration = Duration::from_mins(1);

    /// A set with these workloads, complete or not.
    fn set(workloads: &[&str], complete: bool) -> Arc<ManifestSet> {
        let spec = |name: &&str| {
            let spec = json!({"selector": {"services": [name]}, "service": name});
            (Arc::from(*name), Arc::new(serde_json::from_value(spec).unwrap()))
        };
        Arc::new(ManifestSet {
            complete,
            workloads: workloads.iter().map(spec).collect(),
            ..ManifestSet::default()
        })
    }

    fn seconds(at: i64) -> Timestamp {
        Timestamp(at * 1_000)
    }

    /// The names of the retained workloads at each of these seconds.
    fn retained_at(history: &ManifestHistory, now: &ManifestSet, times: &[i64]) -> Vec<Vec<String>> {
        let names = |at: &i64| {
            let retained = history.retained(now, SETTLE, seconds(*at));
            let names = retained.map(|set| set.workloads.keys().map(ToString::to_string).collect());
            names.unwrap_or_default()
        };
        times.iter().map(names).collect()
    }

    #[test]
    fn absent_document_is_retained_for_the_settle_time() {
        let (all, one) = (set(&["a", "b"], true), set(&["a"], true));
        let mut history = ManifestHistory::default();
        history.record(&all, true, seconds(0));
        history.record(&one, true, seconds(100));
        // Another document changes.
        let other = set(&["a", "c"], true);
        history.record(&other, true, seconds(130));
        let expected = [vec!["a", "b", "c"], vec!["a", "b", "c"], vec![]];
        assert_eq!(retained_at(&history, &other, &[130, 159, 160]), expected);
        // The document is back, and leaves again.
        history.record(&all, true, seconds(150));
        assert_eq!(retained_at(&history, &all, &[150]), [vec!["a", "b", "c"]], "c has left");
        history.record(&other, true, seconds(155));
        assert_eq!(retained_at(&history, &other, &[214, 215]), [vec!["a", "b", "c"], vec![]]);
    }

    #[test]
    fn errors_stop_the_settle_time_and_do_not_reset_it() {
        let (all, one) = (set(&["a", "b"], true), set(&["a"], true));
        let mut history = ManifestHistory::default();
        history.record(&all, true, seconds(0));
        history.record(&one, true, seconds(100));
        assert_eq!(history.next_settled([SETTLE], seconds(100)), Some(SETTLE));
        // The set stays in force while the sources have errors.
        history.record(&one, false, seconds(150));
        assert_eq!(history.next_settled([SETTLE], seconds(150)), None);
        assert_eq!(retained_at(&history, &one, &[900]), [vec!["a", "b"]]);
        history.record(&one, true, seconds(1_000));
        assert_eq!(history.next_settled([SETTLE], seconds(1_000)), Some(Duration::from_secs(10)));
        assert_eq!(retained_at(&history, &one, &[1_009, 1_010]), [vec!["a", "b"], vec![]]);
        assert_eq!(history.next_settled([SETTLE], seconds(1_010)), None, "nothing waits");
    }

    #[test]
    fn incomplete_set_makes_no_document_absent() {
        let (all, none) = (set(&["a"], true), set(&[], false));
        let mut history = ManifestHistory::default();
        history.record(&none, false, seconds(0));
        assert_eq!(history.valid_for(seconds(500)), Duration::ZERO);
        history.record(&all, true, seconds(500));
        history.record(&none, false, seconds(600));
        assert_eq!(retained_at(&history, &none, &[600]), [Vec::<String>::new()]);
        assert!(!history.is_starting(SETTLE, seconds(600)));
    }

    /// After a start with an invalid file, the documents of the others are in force, and may then leave.
    #[test]
    fn document_of_an_incomplete_set_is_retained_when_it_leaves() {
        let (start, one) = (set(&["a", "b"], false), set(&["a"], true));
        let mut history = ManifestHistory::default();
        history.record(&start, false, seconds(0));
        history.record(&one, true, seconds(100));
        assert_eq!(retained_at(&history, &one, &[159, 160]), [vec!["a", "b"], vec![]]);
    }

    #[test]
    fn any_document_may_be_missing_after_a_start() {
        let all = set(&["a"], true);
        let mut history = ManifestHistory::default();
        assert!(history.is_starting(SETTLE, seconds(900)));
        history.record(&all, true, seconds(1_000));
        assert!(history.is_starting(SETTLE, seconds(1_059)));
        assert_eq!(history.next_settled([SETTLE], seconds(1_000)), Some(SETTLE));
        assert!(!history.is_starting(SETTLE, seconds(1_060)));
        assert!(!history.is_starting(Duration::ZERO, seconds(1_000)), "no time is due");
    }

    #[test]
    fn absent_list_counts_for_its_workloads() {
        let lists = |names: &[&str]| {
            let spec = json!({"workloads": ["batch-*"], "outbounds": []});
            let spec: Arc<OutboundListSpec> = Arc::new(serde_json::from_value(spec).unwrap());
            let lists = names.iter().map(|name| (Arc::from(*name), Arc::clone(&spec))).collect();
            Arc::new(ManifestSet { complete: true, outbound_lists: lists, ..ManifestSet::default() })
        };
        let mut history = ManifestHistory::default();
        history.record(&lists(&["kv-users"]), true, seconds(0));
        history.record(&lists(&[]), true, seconds(100));
        assert!(history.lacks_list_of("batch-1", SETTLE, seconds(159)));
        assert!(!history.lacks_list_of("web", SETTLE, seconds(159)));
        assert!(!history.lacks_list_of("batch-1", SETTLE, seconds(160)));
    }
}

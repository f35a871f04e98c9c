//! The rules of sidecars for running tasks at Kuma, one problem for each rule that workloads break, however many there are.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::facts::AuditFacts;
use super::report::{AuditFinding, Severity};
use super::rules::sidecars_by_workload;

/// The sidecars of running tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SidecarReport {
    /// The workloads whose tasks were checked.
    pub workloads: usize,
    /// The problems, the worst first.
    pub problems: Vec<SidecarProblem>,
    /// How many task definitions were not read.
    pub unread: usize,
    /// The first failed read.
    pub failure: Option<String>,
}

/// A rule that sidecars of workloads break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidecarProblem {
    /// The rule's id in the catalogue of `audit`.
    pub rule: &'static str,
    /// The severity.
    pub severity: Severity,
    /// The workloads that break the rule.
    pub workloads: BTreeSet<Arc<str>>,
    /// The number of their task definitions that do.
    pub definitions: usize,
    /// The workload of `message`.
    pub example: Arc<str>,
    /// The findings of one of them; never a secret.
    pub message: String,
    /// How to fix it.
    pub fix: String,
}

impl SidecarReport {
    pub(crate) fn of(facts: &AuditFacts) -> Self {
        let mut workloads = BTreeSet::new();
        let mut problems: BTreeMap<(Reverse<Severity>, &'static str), SidecarProblem> = BTreeMap::new();
        for definition in &facts.definitions {
            for (workload, findings) in sidecars_by_workload(facts, definition) {
                let mut counted = BTreeSet::new();
                for finding in findings {
                    let AuditFinding { rule, severity, message, fix, location, .. } = finding;
                    let container = location.container.map_or(String::new(), |name| format!("{name}: "));
                    let problem =
                        problems.entry((Reverse(severity), rule)).or_insert_with(|| SidecarProblem {
                            rule,
                            severity,
                            workloads: BTreeSet::new(),
                            definitions: 0,
                            example: Arc::clone(&workload),
                            message: format!("{container}{message}"),
                            fix,
                        });
                    problem.workloads.insert(Arc::clone(&workload));
                    problem.definitions += usize::from(counted.insert((rule, severity)));
                }
                workloads.insert(workload);
            }
        }
        Self { workloads: workloads.len(), problems: problems.into_values().collect(), ..Self::default() }
    }
}

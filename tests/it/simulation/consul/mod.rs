//! Lives at Consul: tasks log in and register themselves, and the operator takes away what the dead left. What goes
//! wrong besides AWS's own troubles: answers that are lost after a removal took effect, lists that break off, servers
//! that hang, a token of our own that is not known for a while, and one that may not see all there is.

mod life;
mod transport;

use super::{judge, replays, run, seeds};

/// Seeds that once found a fault; they run every time.
const REGRESSIONS: &[u64] = &[];

#[test]
fn the_promises_hold_in_every_simulated_life() {
    judge("consul", &run(&seeds(60, REGRESSIONS), life::live));
}

#[test]
fn a_seed_replays_exactly() {
    [2, 5].into_iter().for_each(|seed| replays(seed, life::live));
}

//! Tests of the election: the state machine, the loop over a store, and a simulation of many candidates.

mod elector;
mod machine;
mod simulation;
mod stores;

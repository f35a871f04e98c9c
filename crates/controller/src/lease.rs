//! Decides whether this process may write: without the lease nothing is written.
//!
//! The lease is asked right before each write and not only at the start, since it may be lost in between.

/// The right to write, which one process of a kind holds at a time.
pub trait Lease: Send + Sync {
    /// Whether this process holds the lease now. Cheap: it is asked before each write.
    fn holds(&self) -> bool;
}

/// The lease `none`: for an operator of which only one copy runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct AlwaysHeld;

impl Lease for AlwaysHeld {
    fn holds(&self) -> bool {
        true
    }
}

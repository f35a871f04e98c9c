//! Decides whether this process may write: without the lease no write is made.
//!
//! Callers check the lease right before each write and not only at the start, since it may be lost in between.

/// The right to write, which one process of a kind holds at a time.
pub trait Lease: Send + Sync {
    /// Whether this process holds the lease now. Implementations are cheap: every write checks it.
    fn holds(&self) -> bool;
}

/// The lease `none`: for an operator that runs as a single copy.
#[derive(Clone, Copy, Debug, Default)]
pub struct AlwaysHeld;

impl Lease for AlwaysHeld {
    fn holds(&self) -> bool {
        true
    }
}

//! Decides whether this process may write: with an obstacle no write is made.
//!
//! Callers ask for an obstacle right before each write and not only at the start, since the lease may be lost in between.

use std::fmt;

/// The right to write, which one process of a kind holds at a time.
pub trait Lease: Send + Sync {
    /// Whether this process holds the lease now.
    fn holds(&self) -> bool;

    /// Why this process may not write now, if it may not. Implementations are cheap: every write asks.
    fn obstacle(&self) -> Option<WriteObstacle> {
        (!self.holds()).then_some(WriteObstacle::NotLeader)
    }
}

/// Why this process may not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WriteObstacle {
    /// Another copy holds the lease.
    NotLeader,
    /// Too many audit lines wait to be written: a change could not be accounted for.
    AuditBacklog,
    /// The control plane has a version whose resources this operator does not know (invariant I11).
    UnsupportedControlPlane,
}

impl WriteObstacle {
    /// A bounded label for metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::NotLeader => "not_leader",
            Self::AuditBacklog => "audit_backlog",
            Self::UnsupportedControlPlane => "unsupported_control_plane",
        }
    }

    /// The reason, in words.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotLeader => "another copy of this operator holds the lease",
            Self::AuditBacklog => "too many audit lines wait to be written to standard error",
            Self::UnsupportedControlPlane => "the control plane's version is not supported",
        }
    }
}

impl fmt::Display for WriteObstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

/// The lease `none`: for an operator that runs as a single copy.
#[derive(Clone, Copy, Debug, Default)]
pub struct AlwaysHeld;

impl Lease for AlwaysHeld {
    fn holds(&self) -> bool {
        true
    }
}

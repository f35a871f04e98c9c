//! Decides whether this process may write: with an obstacle no write is made.
//!
//! Callers ask for an obstacle right before each write and not only at the start, since the lease may be lost in between.
//! The code that sends the bytes asks for a [`WritePermit`], which also limits the write to the lease's term.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// A permit looks at the lease's end at least this often. Tokio's timers stand still while the machine is suspended, and the
/// lease does not.
const TERM_CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// The right to write, which one process of a kind holds at a time.
pub trait Lease: Send + Sync {
    /// The term of the lease now.
    fn term(&self) -> LeaseTerm;

    /// Whether this process holds the lease now.
    fn holds(&self) -> bool {
        self.term().left() > Duration::ZERO
    }

    /// Why this process may not write now, if it may not. Implementations are cheap: every write asks.
    fn obstacle(&self) -> Option<WriteObstacle> {
        (!self.holds()).then_some(WriteObstacle::NotLeader)
    }
}

/// How long a process holds the lease.
#[derive(Clone)]
pub enum LeaseTerm {
    /// Not at all.
    NotHeld,
    /// As long as it runs: it is the only copy.
    Unlimited,
    /// Until its end, which renewals move. After a loss the same term never begins again.
    Held(Arc<dyn HeldTerm>),
}

/// A term that this process holds or has held.
pub trait HeldTerm: Send + Sync {
    /// The rest of it, on a clock that also counts while the process is frozen or the machine is suspended. Zero once it
    /// has ended.
    fn left(&self) -> Duration;

    /// The condition that a write to the lease's own store can have.
    fn fencing_token(&self) -> Option<FencingToken> {
        None
    }
}

/// Proves to the store that keeps the lease that a write is made by its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FencingToken {
    /// The store: only its own writes can be conditional on the lease.
    pub store: Arc<str>,
    /// The lock in the store.
    pub lock: Arc<str>,
    /// The lock's holder, as the store knows it.
    pub holder: Arc<str>,
}

impl LeaseTerm {
    /// Unlimited if held.
    pub fn unlimited(held: bool) -> Self {
        if held { Self::Unlimited } else { Self::NotHeld }
    }

    /// The rest of the term.
    pub fn left(&self) -> Duration {
        match self {
            Self::NotHeld => Duration::ZERO,
            Self::Unlimited => Duration::MAX,
            Self::Held(term) => term.left(),
        }
    }

    /// The condition that a write to the lease's own store can have.
    pub fn fencing_token(&self) -> Option<FencingToken> {
        match self {
            Self::Held(term) => term.fencing_token(),
            Self::NotHeld | Self::Unlimited => None,
        }
    }

    /// Ends when the term has ended.
    async fn ended(&self) {
        loop {
            let left = self.left();
            if left == Duration::ZERO {
                return;
            }
            tokio::time::sleep(left.min(TERM_CHECK_INTERVAL)).await;
        }
    }
}

impl fmt::Debug for LeaseTerm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeaseTerm({:?})", self.left())
    }
}

/// Permits one write within one term of the lease. While it exists, the lease is not released.
#[derive(Clone, Debug)]
pub struct WritePermit {
    term: LeaseTerm,
    timeout: Duration,
}

impl WritePermit {
    /// Permits a write that takes `timeout` at most. The rest of the lease must exceed it, so that the write has ended
    /// when another process may write.
    ///
    /// # Errors
    /// The obstacle.
    pub fn request(lease: &dyn Lease, timeout: Duration) -> Result<Self, WriteObstacle> {
        // The term first: if it is lost in between, the permit has ended from the start.
        let permit = Self { term: lease.term(), timeout };
        lease.obstacle().map_or(Ok(()), Err)?;
        permit.check()?;
        Ok(permit)
    }

    /// Repeats the check of the term. Called again right before the bytes are sent: the process may have been frozen since
    /// the permit was given.
    ///
    /// # Errors
    /// The obstacle.
    pub fn check(&self) -> Result<(), WriteObstacle> {
        let left = self.term.left();
        if left > self.timeout {
            Ok(())
        } else if left > Duration::ZERO {
            Err(WriteObstacle::LeaseEnds)
        } else {
            Err(WriteObstacle::NotLeader)
        }
    }

    /// Runs the write, and drops it at the end of the term. `None` if it was dropped: it may have taken effect.
    ///
    /// The term is looked at before each step of the write. A process that was frozen may take a step before its timers
    /// are up to date, and that step may be the one that sends the bytes.
    pub async fn run<T>(&self, write: impl Future<Output = T>) -> Option<T> {
        let mut write = pin!(write);
        let within_term = poll_fn(|context| {
            if self.term.left() == Duration::ZERO {
                return Poll::Ready(None);
            }
            write.as_mut().poll(context).map(Some)
        });
        tokio::select! {
            biased;
            () = self.term.ended() => None,
            result = within_term => result,
        }
    }
}

/// Why this process may not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WriteObstacle {
    /// Another copy holds the lease.
    NotLeader,
    /// This process holds the lease for a shorter time than the write may take, since renewals fail.
    LeaseEnds,
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
            Self::LeaseEnds => "lease_ends",
            Self::AuditBacklog => "audit_backlog",
            Self::UnsupportedControlPlane => "unsupported_control_plane",
        }
    }

    /// The reason, in words.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotLeader => "this copy of the operator does not hold the lease",
            Self::LeaseEnds => "the lease may end before the write does: it was not renewed in time",
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

impl std::error::Error for WriteObstacle {}

/// The lease `none`: for an operator that runs as a single copy.
#[derive(Clone, Copy, Debug, Default)]
pub struct AlwaysHeld;

impl Lease for AlwaysHeld {
    fn term(&self) -> LeaseTerm {
        LeaseTerm::Unlimited
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// A term whose rest, in seconds, a test sets.
    #[derive(Clone, Default)]
    struct LeftSeconds(Arc<AtomicU64>);

    impl HeldTerm for LeftSeconds {
        fn left(&self) -> Duration {
            Duration::from_secs(self.0.load(Ordering::Relaxed))
        }
    }

    impl Lease for LeftSeconds {
        fn term(&self) -> LeaseTerm {
            LeaseTerm::Held(Arc::new(self.clone()))
        }
    }

    impl LeftSeconds {
        fn set(&self, seconds: u64) {
            self.0.store(seconds, Ordering::Relaxed);
        }
    }

    const TIMEOUT: Duration = Duration::from_secs(5);

    #[test]
    fn write_needs_more_of_the_lease_than_its_timeout() {
        let lease = LeftSeconds::default();
        for (left, obstacle) in
            [(6, None), (5, Some(WriteObstacle::LeaseEnds)), (0, Some(WriteObstacle::NotLeader))]
        {
            lease.set(left);
            assert_eq!(WritePermit::request(&lease, TIMEOUT).err(), obstacle, "{left} s left");
        }
        assert!(WritePermit::request(&AlwaysHeld, Duration::from_secs(u64::MAX)).is_ok());
    }

    #[test]
    fn permit_ends_with_its_term() {
        let lease = LeftSeconds::default();
        lease.set(6);
        let permit = WritePermit::request(&lease, TIMEOUT).unwrap();
        assert_eq!(permit.check(), Ok(()));
        lease.set(0);
        assert_eq!(permit.check(), Err(WriteObstacle::NotLeader));
    }

    #[tokio::test(start_paused = true)]
    async fn write_is_dropped_when_the_term_ends() {
        let lease = LeftSeconds::default();
        lease.set(6);
        let permit = WritePermit::request(&lease, TIMEOUT).unwrap();
        assert_eq!(permit.run(async { 1 }).await, Some(1));
        // The lease is lost while the write hangs.
        let write = permit.run(std::future::pending::<()>());
        let (result, ()) = tokio::join!(write, async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            lease.set(0);
        });
        assert_eq!(result, None);
    }

    #[tokio::test(start_paused = true)]
    async fn write_takes_no_step_after_a_freeze() {
        let lease = LeftSeconds::default();
        lease.set(6);
        let permit = WritePermit::request(&lease, TIMEOUT).unwrap();
        let connected = tokio::sync::Notify::new();
        let sent = AtomicU64::new(0);
        let write = permit.run(async {
            connected.notified().await;
            sent.fetch_add(1, Ordering::Relaxed);
        });
        // The connection is ready when the process wakes. No time passes on the runtime's clock.
        let (result, ()) = tokio::join!(write, async {
            lease.set(0);
            connected.notify_one();
        });
        assert_eq!((result, sent.load(Ordering::Relaxed)), (None, 0));
    }
}

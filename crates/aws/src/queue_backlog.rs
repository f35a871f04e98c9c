//! Guarantees that a backlog of messages is received before the tasks that it may name again are described, and that no
//! describe waits long for that.
//!
//! After an outage, or when thousands of tasks start at once, receiving competes with the describes and writes that the first
//! messages cause. SQS keeps no order: what is still queued may be a newer event of the same task, and one describe of the
//! task then answers both.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// Full receives in a row that show a backlog. Fewer occur in a steady stream, when a receiver was late.
const FULL_RECEIVES: u32 = 20;

/// The longest time that a backlog holds back what can wait. The next hold begins after the same time again at the earliest.
const MAX_HOLD: Duration = Duration::from_secs(1);

/// Whether the event queue has a backlog, as its last receives show. Shared by its clones.
#[derive(Clone, Debug, Default)]
pub struct QueueBacklog {
    state: Arc<watch::Sender<BacklogState>>,
}

#[derive(Debug, Default)]
struct BacklogState {
    /// Full receives since the last one that was not.
    full_receives: u32,
    /// When the backlog was found.
    since: Option<Instant>,
    /// The earliest time of another hold.
    next_hold: Option<Instant>,
}

impl QueueBacklog {
    /// Records a receive. `full`: it returned as many messages as it may.
    pub fn record_receive(&self, full: bool) {
        self.state.send_if_modified(|state| {
            if !full {
                state.full_receives = 0;
                return state.since.take().is_some();
            }
            state.full_receives = state.full_receives.saturating_add(1);
            let now = Instant::now();
            let may_hold = state.next_hold.is_none_or(|next| now >= next);
            if state.since.is_some() || state.full_receives < FULL_RECEIVES || !may_hold {
                return false;
            }
            state.since = Some(now);
            state.next_hold = Some(now + 2 * MAX_HOLD);
            true
        });
    }

    /// Waits until there is no backlog, a second at most after it was found.
    pub async fn wait_until_drained(&self) {
        let mut state = self.state.subscribe();
        let Some(since) = state.borrow().since else { return };
        // The sender lives as long as this, so an error does not occur.
        let _ = timeout_at(since + MAX_HOLD, state.wait_for(|state| state.since.is_none())).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    fn with_backlog() -> QueueBacklog {
        let backlog = QueueBacklog::default();
        (0..FULL_RECEIVES).for_each(|_| backlog.record_receive(true));
        backlog
    }

    /// How long a describe that can wait does so now.
    async fn hold(backlog: &QueueBacklog) -> Duration {
        let began = Instant::now();
        backlog.wait_until_drained().await;
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn few_full_receives_hold_nothing() {
        let backlog = QueueBacklog::default();
        for _ in 0..10 {
            (1..FULL_RECEIVES).for_each(|_| backlog.record_receive(true));
            assert_eq!(hold(&backlog).await, Duration::ZERO);
            backlog.record_receive(false);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn hold_ends_with_the_backlog() {
        let backlog = with_backlog();
        let drained = backlog.clone();
        tokio::spawn(async move {
            sleep(MAX_HOLD / 4).await;
            drained.record_receive(true);
            sleep(MAX_HOLD / 4).await;
            drained.record_receive(false);
        });
        assert_eq!(hold(&backlog).await, MAX_HOLD / 2);
        assert_eq!(hold(&backlog).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn endless_backlog_holds_for_a_second_alone() {
        let backlog = with_backlog();
        sleep(MAX_HOLD / 4).await;
        assert_eq!(hold(&backlog).await, MAX_HOLD * 3 / 4);
        for _ in 0..100 {
            backlog.record_receive(true);
            assert_eq!(hold(&backlog).await, Duration::ZERO);
            sleep(MAX_HOLD / 4).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn repeated_backlogs_hold_for_half_of_the_time() {
        let backlog = with_backlog();
        hold(&backlog).await;
        for again in [false, true] {
            backlog.record_receive(false);
            (0..FULL_RECEIVES).for_each(|_| backlog.record_receive(true));
            assert_eq!(hold(&backlog).await, if again { MAX_HOLD } else { Duration::ZERO });
            sleep(MAX_HOLD).await;
        }
    }
}

//! The thread on which all work for readers is done.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use tokio::sync::oneshot;
use tracing::debug;

type Job = Box<dyn FnOnce() + Send>;

/// The thread's niceness. It gets about a tenth of a core that reconciles want, and a whole core that is idle.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// The thread rests this many times as long as an answer took.
const REST_PER_COST: u32 = 3;

/// One thread at a lower priority than all others, which ends with the last clone. A few hundred readers ask for few different
/// answers, so that one thread serves all; several would take cores from reconciles.
#[derive(Clone, Debug)]
pub(super) struct ReadThread {
    jobs: mpsc::Sender<Job>,
}

impl ReadThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no more threads.
    pub(super) fn start() -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let serve = move || {
            lower_priority();
            for job in queue {
                job();
            }
        };
        thread::Builder::new().name("readers".to_owned()).spawn(serve)?;
        Ok(Self { jobs })
    }

    /// Runs work of which its caller limits the cost, after all that was asked before; work whose caller is gone is left out.
    /// `None` if it panicked, which is a defect that the next work does not suffer from.
    pub(super) async fn collect<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        self.run(work, 0).await
    }

    /// As [`Self::collect`], and rests afterwards, so that the answers to any number of requests take at most a quarter of the
    /// time: a container's CPU limit is shared by all threads, whatever their priorities.
    pub(super) async fn render<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        self.run(work, REST_PER_COST).await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
        rest: u32,
    ) -> Option<T> {
        let (sender, answer) = oneshot::channel();
        let job = move || {
            if sender.is_closed() {
                return;
            }
            let began = Instant::now();
            if let Ok(done) = catch_unwind(AssertUnwindSafe(work)) {
                // Fails when the caller has just gone.
                let _ = sender.send(done);
            }
            thread::sleep(began.elapsed() * rest);
        };
        self.jobs.send(Box::new(job)).ok()?;
        answer.await.ok()
    }
}

/// On Linux, niceness is a thread's own.
#[cfg(target_os = "linux")]
fn lower_priority() {
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        debug!(%error, "cannot lower the priority of the readers' thread");
    }
}

#[cfg(not(target_os = "linux"))]
fn lower_priority() {
    debug!("the readers' thread has the priority of all others on this system");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_goes_on_after_a_panic() {
        let thread = ReadThread::start().unwrap();
        assert_eq!(thread.render(|| -> u8 { panic!("on purpose") }).await, None);
        assert_eq!(thread.render(|| 7).await, Some(7));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn work_for_readers_has_a_lower_priority() {
        let thread = ReadThread::start().unwrap();
        let niceness = || rustix::process::getpriority_process(None).unwrap();
        assert_eq!(thread.collect(niceness).await, Some(niceness().max(NICENESS)));
    }
}

//! Guarantees that single questions share calls, and that no answer is older than its question.
//!
//! As in a group commit: the first request goes at once; those that arrive while its call is in flight, or while
//! the token bucket is empty, share the next one. So an answer always comes from a call that *started after* the
//! request was made, never from one that was already on its way.
//!
//! - Groups are independent: a group whose call hangs holds up no other. Within a group one call is in flight.
//! - A request made by several is sent once and answered to each. An error goes to everyone in its call.
//! - Whoever stops waiting harms nobody: the call goes on for the others. What nobody waits for any more is not sent.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::token_bucket::TokenBucket;
use super::lock;

/// A call that answers many requests at once.
#[async_trait]
pub trait BatchCall: Send + Sync + 'static {
    /// What may share a call: a cluster, say.
    type Group: Clone + Ord + Send + Sync + 'static;
    /// One question.
    type Request: Clone + Ord + Send + Sync + 'static;
    /// Its answer.
    type Response: Clone + Send + 'static;
    /// What befalls a whole call.
    type Error: Clone + Send + 'static;

    /// Asks for all of `requests`, which are distinct and in the order in which they were made, in one call. The
    /// call needs a time limit of its own: until it returns its group waits.
    async fn call(
        &self,
        group: &Self::Group,
        requests: Vec<Self::Request>,
    ) -> Result<BTreeMap<Self::Request, Self::Response>, Self::Error>;
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError<E> {
    /// The call failed, for everyone in it.
    #[error("{0}")]
    Call(E),
    /// The call went well and its answer said nothing about this request.
    #[error("the answer did not mention what was asked for")]
    Missing,
    /// The call panicked, or the process is going down.
    #[error("the call was cut off before it had an answer")]
    Lost,
}

/// Gathers single requests into calls of a [`BatchCall`]. Shared by its clones.
pub struct Batcher<C: BatchCall> {
    inner: Arc<Inner<C>>,
}

impl<C: BatchCall> Clone for Batcher<C> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

struct Inner<C: BatchCall> {
    call: C,
    most: usize,
    bucket: Option<TokenBucket>,
    /// A group is present as long as its driver runs.
    groups: Mutex<BTreeMap<C::Group, Pending<C>>>,
}

type BatchResult<C> = Result<<C as BatchCall>::Response, BatchError<<C as BatchCall>::Error>>;
type Waiters<C> = Vec<oneshot::Sender<BatchResult<C>>>;

/// Requests for the next calls of a group, in the order in which they were first made.
struct Pending<C: BatchCall> {
    order: VecDeque<C::Request>,
    waiters: BTreeMap<C::Request, Waiters<C>>,
}

impl<C: BatchCall> Batcher<C> {
    /// At most `most` requests (at least one) go into a call, and each call takes a token from `bucket`.
    pub fn new(call: C, most: usize, bucket: Option<TokenBucket>) -> Self {
        Self { inner: Arc::new(Inner { call, most: most.max(1), bucket, groups: Mutex::default() }) }
    }

    /// The answer to `request`, from a call that starts after this.
    ///
    /// # Errors
    /// When the call failed, or its answer left this request out.
    pub async fn ask(
        &self,
        group: C::Group,
        request: C::Request,
    ) -> Result<C::Response, BatchError<C::Error>> {
        let (answer, answered) = oneshot::channel();
        if self.inner.enqueue(&group, request, answer) {
            tokio::spawn(Arc::clone(&self.inner).run_calls(group));
        }
        answered.await.unwrap_or(Err(BatchError::Lost))
    }
}

impl<C: BatchCall> Inner<C> {
    /// Whether the group needs a driver.
    fn enqueue(&self, group: &C::Group, request: C::Request, answer: oneshot::Sender<BatchResult<C>>) -> bool {
        let mut groups = lock(&self.groups);
        let needs_driver = !groups.contains_key(group);
        groups.entry(group.clone()).or_default().push(request, answer);
        needs_driver
    }

    /// Makes calls, one after the other, until nobody in the group waits for anything.
    async fn run_calls(self: Arc<Self>, group: C::Group) {
        while self.is_wanted(&group) {
            if let Some(bucket) = &self.bucket {
                bucket.acquire(1).await;
            }
            let batch = self.next_batch(&group);
            if !batch.is_empty() {
                Arc::clone(&self).call(group.clone(), batch).await;
            }
        }
    }

    /// Whether anyone waits; if not the group ends here, and its next request starts another driver.
    fn is_wanted(&self, group: &C::Group) -> bool {
        let mut groups = lock(&self.groups);
        let wanted = groups.get_mut(group).is_some_and(|pending| pending.is_wanted());
        if !wanted {
            groups.remove(group);
        }
        wanted
    }

    fn next_batch(&self, group: &C::Group) -> Vec<(C::Request, Waiters<C>)> {
        lock(&self.groups).get_mut(group).map(|pending| pending.pop(self.most)).unwrap_or_default()
    }

    async fn call(self: Arc<Self>, group: C::Group, batch: Vec<(C::Request, Waiters<C>)>) {
        let requests = batch.iter().map(|(request, _)| request.clone()).collect();
        // On a task of its own, so that a panic ends the call and not the group.
        let call = tokio::spawn(async move { self.call.call(&group, requests).await });
        let mut answers = match call.await {
            Ok(answers) => answers.map_err(BatchError::Call),
            Err(_) => Err(BatchError::Lost),
        };
        for (request, waiters) in batch {
            let answer = match &mut answers {
                Ok(answers) => answers.remove(&request).ok_or(BatchError::Missing),
                Err(error) => Err(error.clone()),
            };
            for waiter in waiters {
                // Whoever left in the meantime is not told.
                let _ = waiter.send(answer.clone());
            }
        }
    }
}

impl<C: BatchCall> Default for Pending<C> {
    fn default() -> Self {
        Self { order: VecDeque::new(), waiters: BTreeMap::new() }
    }
}

impl<C: BatchCall> Pending<C> {
    fn push(&mut self, request: C::Request, answer: oneshot::Sender<BatchResult<C>>) {
        let waiters = self.waiters.entry(request.clone()).or_insert_with(|| {
            self.order.push_back(request);
            Vec::new()
        });
        // Those who come and go while a call is in flight must not pile up.
        waiters.retain(|waiter| !waiter.is_closed());
        waiters.push(answer);
    }

    fn is_wanted(&self) -> bool {
        self.waiters.values().flatten().any(|waiter| !waiter.is_closed())
    }

    fn pop(&mut self, most: usize) -> Vec<(C::Request, Waiters<C>)> {
        let mut batch = Vec::new();
        while batch.len() < most {
            let Some(request) = self.order.pop_front() else { break };
            let waiters = self.waiters.remove(&request).unwrap_or_default();
            if waiters.iter().any(|waiter| !waiter.is_closed()) {
                batch.push((request, waiters));
            }
        }
        batch
    }
}

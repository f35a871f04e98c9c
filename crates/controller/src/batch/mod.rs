//! Guarantees that single requests share calls and that no response is older than its request.
//!
//! As in a group commit, the first request is sent immediately, with those that tasks which are ready to run make; requests
//! that arrive while its call is in flight, or while the token bucket is empty, share the next call. A response therefore
//! always comes from a call that *started after* the request was made.
//!
//! - Groups are independent: a hung call blocks only its own group. Within a group one call is in flight.
//! - Equal requests are sent once, and each caller gets the response. An error goes to every caller in its call.
//! - A cancelled caller affects no other: the call continues for the rest. A request without callers is not sent.
//! - Requests of [`Urgency::Low`] take the place that others leave in a call, and at least a fifth of it.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::lock;
use super::token_bucket::TokenBucket;

/// A call that answers many requests.
#[async_trait]
pub trait BatchCall: Send + Sync + 'static {
    /// Requests of one group may share a call; a cluster, for example.
    type Group: Clone + Ord + Send + Sync + 'static;
    /// One request.
    type Request: Clone + Ord + Send + Sync + 'static;
    /// The response to one request.
    type Response: Clone + Send + 'static;
    /// The error of a call.
    type Error: Clone + Send + 'static;

    /// Sends all `requests`, which are distinct and in the order in which they were made, in one call. The
    /// implementation limits the call's time: its group waits until it returns.
    async fn call(
        &self,
        group: &Self::Group,
        requests: Vec<Self::Request>,
    ) -> Result<BTreeMap<Self::Request, Self::Response>, Self::Error>;
}

/// Which requests of a group share the next call first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Urgency {
    /// In order of arrival.
    #[default]
    Normal,
    /// After the others, but in a bounded share of each call, so that nothing starves.
    Low,
}

/// The share of a call that is kept for requests of low urgency: one in this many.
const LOW_URGENCY_SHARE: usize = 5;

/// The reason why a request has no response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError<E> {
    /// The call failed for all its requests.
    #[error("{0}")]
    Call(E),
    /// The call succeeded without a response to this request.
    #[error("the response contains no entry for the request")]
    Missing,
    /// The call panicked, or the process is shutting down.
    #[error("the call was cancelled before its response")]
    Lost,
}

/// Batches single requests into calls of a [`BatchCall`]. Shared by its clones.
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
    max_requests: usize,
    bucket: Option<BucketOf<C>>,
    /// A group is present while its driver runs.
    groups: Mutex<BTreeMap<C::Group, Pending<C>>>,
}

/// The bucket of a group's calls.
type BucketOf<C> = Arc<dyn Fn(&<C as BatchCall>::Group) -> TokenBucket + Send + Sync>;

type BatchResult<C> = Result<<C as BatchCall>::Response, BatchError<<C as BatchCall>::Error>>;
type Waiters<C> = Vec<oneshot::Sender<BatchResult<C>>>;

/// Requests for the next calls of a group, in the order of their first callers.
struct Pending<C: BatchCall> {
    order: VecDeque<C::Request>,
    low: VecDeque<C::Request>,
    waiters: BTreeMap<C::Request, Waiters<C>>,
}

impl<C: BatchCall> Batcher<C> {
    /// Creates a batcher: a call carries at most `max_requests` (at least one) and takes a token from `bucket`.
    pub fn new(call: C, max_requests: usize, bucket: Option<TokenBucket>) -> Self {
        let of_all = |bucket: TokenBucket| -> BucketOf<C> { Arc::new(move |_| bucket.clone()) };
        Self::build(call, max_requests, bucket.map(of_all))
    }

    /// As [`Self::new`], where each group has the bucket that `bucket_of` returns: a group that waits for its bucket delays
    /// none that has another.
    pub fn with_buckets(
        call: C,
        max_requests: usize,
        bucket_of: impl Fn(&C::Group) -> TokenBucket + Send + Sync + 'static,
    ) -> Self {
        Self::build(call, max_requests, Some(Arc::new(bucket_of)))
    }

    fn build(call: C, max_requests: usize, bucket: Option<BucketOf<C>>) -> Self {
        Self {
            inner: Arc::new(Inner {
                call,
                max_requests: max_requests.max(1),
                bucket,
                groups: Mutex::default(),
            }),
        }
    }

    /// Returns the response to `request`, from a call that starts after this.
    ///
    /// # Errors
    /// If the call failed or its response has no entry for this request.
    pub async fn ask(
        &self,
        group: C::Group,
        request: C::Request,
    ) -> Result<C::Response, BatchError<C::Error>> {
        self.ask_with(group, request, Urgency::Normal).await
    }

    /// As [`Self::ask`], where `urgency` orders the requests that share a call.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn ask_with(
        &self,
        group: C::Group,
        request: C::Request,
        urgency: Urgency,
    ) -> Result<C::Response, BatchError<C::Error>> {
        let (waiter, response) = oneshot::channel();
        if self.inner.enqueue(&group, request, urgency, waiter) {
            tokio::spawn(Arc::clone(&self.inner).run_calls(group));
        }
        response.await.unwrap_or(Err(BatchError::Lost))
    }
}

impl<C: BatchCall> Inner<C> {
    /// Adds a request. Returns whether the group needs a driver.
    fn enqueue(
        &self,
        group: &C::Group,
        request: C::Request,
        urgency: Urgency,
        waiter: oneshot::Sender<BatchResult<C>>,
    ) -> bool {
        let mut groups = lock(&self.groups);
        let needs_driver = !groups.contains_key(group);
        groups.entry(group.clone()).or_default().push(request, urgency, waiter);
        needs_driver
    }

    /// Makes calls, one after the other, until no caller of the group waits.
    async fn run_calls(self: Arc<Self>, group: C::Group) {
        self.gather(&group).await;
        while self.is_wanted(&group) {
            if let Some(bucket_of) = &self.bucket {
                bucket_of(&group).acquire(1).await;
            }
            let batch = self.next_batch(&group);
            if !batch.is_empty() {
                Arc::clone(&self).call(group.clone(), batch).await;
            }
        }
    }

    /// Waits while tasks that are ready to run add requests. A worker runs a task that another one started first, so without
    /// this a hundred callers that were started together would make two calls, the first of them for one caller.
    async fn gather(&self, group: &C::Group) {
        let mut gathered = 0;
        loop {
            tokio::task::yield_now().await;
            let waiting = lock(&self.groups).get(group).map_or(0, |pending| pending.waiters.len());
            if waiting <= gathered || waiting >= self.max_requests {
                return;
            }
            gathered = waiting;
        }
    }

    /// Whether a caller waits. If not, the group is removed and its next request starts another driver.
    fn is_wanted(&self, group: &C::Group) -> bool {
        let mut groups = lock(&self.groups);
        let wanted = groups.get_mut(group).is_some_and(|pending| pending.is_wanted());
        if !wanted {
            groups.remove(group);
        }
        wanted
    }

    fn next_batch(&self, group: &C::Group) -> Vec<(C::Request, Waiters<C>)> {
        lock(&self.groups).get_mut(group).map(|pending| pending.pop(self.max_requests)).unwrap_or_default()
    }

    async fn call(self: Arc<Self>, group: C::Group, batch: Vec<(C::Request, Waiters<C>)>) {
        let requests = batch.iter().map(|(request, _)| request.clone()).collect();
        // A separate task, so that a panic ends the call and not the group.
        let call = tokio::spawn(async move { self.call.call(&group, requests).await });
        let mut responses = match call.await {
            Ok(responses) => responses.map_err(BatchError::Call),
            Err(_) => Err(BatchError::Lost),
        };
        for (request, waiters) in batch {
            let response = match &mut responses {
                Ok(responses) => responses.remove(&request).ok_or(BatchError::Missing),
                Err(error) => Err(error.clone()),
            };
            for waiter in waiters {
                // A caller that was cancelled meanwhile has no receiver.
                let _ = waiter.send(response.clone());
            }
        }
    }
}

impl<C: BatchCall> Default for Pending<C> {
    fn default() -> Self {
        Self { order: VecDeque::new(), low: VecDeque::new(), waiters: BTreeMap::new() }
    }
}

impl<C: BatchCall> Pending<C> {
    fn push(&mut self, request: C::Request, urgency: Urgency, waiter: oneshot::Sender<BatchResult<C>>) {
        let waiters = self.waiters.entry(request.clone()).or_default();
        let is_new = waiters.is_empty();
        // Cancelled callers must not accumulate while a call is in flight.
        waiters.retain(|waiter| !waiter.is_closed());
        waiters.push(waiter);
        match urgency {
            Urgency::Normal if is_new => self.order.push_back(request),
            // Asked with low urgency before: a request is sent once, at its first turn. Few requests of low urgency wait.
            Urgency::Normal if self.low.contains(&request) => self.order.push_back(request),
            Urgency::Low if is_new => self.low.push_back(request),
            Urgency::Normal | Urgency::Low => {}
        }
    }

    fn is_wanted(&self) -> bool {
        self.waiters.values().flatten().any(|waiter| !waiter.is_closed())
    }

    fn pop(&mut self, max_requests: usize) -> Vec<(C::Request, Waiters<C>)> {
        let reserved = self.low.len().min(max_requests / LOW_URGENCY_SHARE);
        let mut batch = Vec::new();
        Self::fill(&mut self.order, &mut self.waiters, &mut batch, max_requests - reserved);
        Self::fill(&mut self.low, &mut self.waiters, &mut batch, max_requests);
        Self::fill(&mut self.order, &mut self.waiters, &mut batch, max_requests);
        batch
    }

    fn fill(
        from: &mut VecDeque<C::Request>,
        waiters: &mut BTreeMap<C::Request, Waiters<C>>,
        batch: &mut Vec<(C::Request, Waiters<C>)>,
        max_requests: usize,
    ) {
        while batch.len() < max_requests {
            let Some(request) = from.pop_front() else { break };
            let waiters = waiters.remove(&request).unwrap_or_default();
            if waiters.iter().any(|waiter| !waiter.is_closed()) {
                batch.push((request, waiters));
            }
        }
    }
}

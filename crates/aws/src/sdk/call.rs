//! Every call to AWS goes through here: it ends in a value or an [`AwsError`] for a person, and is told of exactly once.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_sdk_ecs::config::http::HttpResponse;
use aws_sdk_ecs::error::{ProvideErrorMetadata, SdkError};
use tokio::time::Instant;

use super::error;
use crate::aws::AwsError;

/// Is told of each AWS call once, when it has ended. A call that is dropped half-way is not told of.
pub trait AwsCallObserver: Send + Sync {
    /// `operation` is `ecs:DescribeTasks` and its like; `outcome` is `ok` or an
    /// [`AwsErrorKind`](crate::aws::AwsErrorKind)'s label: both are bounded.
    fn call(&self, operation: &'static str, outcome: &'static str, took: Duration);
}

/// Tells nobody.
impl AwsCallObserver for () {
    fn call(&self, _: &'static str, _: &'static str, _: Duration) {}
}

/// What all clients share beside the connection pool.
#[derive(Clone)]
pub(super) struct CallRunner {
    observer: Arc<dyn AwsCallObserver>,
    account: Arc<OnceLock<String>>,
}

impl CallRunner {
    pub(super) fn new(observer: Arc<dyn AwsCallObserver>) -> Self {
        Self { observer, account: Arc::default() }
    }

    /// Waits for the call and translates its failure.
    pub(super) async fn run<T, E>(
        &self,
        operation: &'static str,
        resource: &str,
        call: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T, AwsError>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let started = Instant::now();
        let result = call.await.map_err(|failure| error::translate(operation, resource, &failure));
        let outcome = result.as_ref().map_or_else(|failure| failure.kind.label(), |_| "success");
        self.observer.call(operation, outcome, started.elapsed());
        result
    }

    /// Notes the caller's own account, learned from an answer: ECS lists only what is in it.
    pub(super) fn learn_account(&self, account: &str) {
        if self.account.get().is_none() {
            // Whoever comes second has learned the same.
            let _ = self.account.set(account.to_owned());
        }
    }

    /// The caller's own account, once an answer has told it.
    pub(super) fn account(&self) -> Option<&str> {
        self.account.get().map(String::as_str)
    }
}

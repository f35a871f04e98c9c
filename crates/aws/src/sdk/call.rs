//! Runs every call to AWS: translates failures into [`AwsError`]s and reports each completed call once.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_sdk_ecs::config::http::HttpResponse;
use aws_sdk_ecs::error::{ProvideErrorMetadata, SdkError};
use tokio::time::Instant;

use super::error;
use crate::aws::AwsError;

/// Records each completed AWS call once. A cancelled call is not recorded.
pub trait AwsCallObserver: Send + Sync {
    /// `operation` is a name such as `ecs:DescribeTasks`; `result` is `success` or the label of an
    /// [`AwsErrorKind`](crate::aws::AwsErrorKind). Both are bounded.
    fn call(&self, operation: &'static str, result: &'static str, duration: Duration);
}

/// Records nothing.
impl AwsCallObserver for () {
    fn call(&self, _: &'static str, _: &'static str, _: Duration) {}
}

/// State that all clients share beside the connection pool.
#[derive(Clone)]
pub(super) struct CallRunner {
    observer: Arc<dyn AwsCallObserver>,
    account: Arc<OnceLock<String>>,
}

impl CallRunner {
    pub(super) fn new(observer: Arc<dyn AwsCallObserver>) -> Self {
        Self { observer, account: Arc::default() }
    }

    /// For clients of another account, with the same observer.
    pub(super) fn of_another_account(&self) -> Self {
        Self::new(Arc::clone(&self.observer))
    }

    /// Awaits the call and translates its failure.
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
        let label = result.as_ref().map_or_else(|failure| failure.kind.label(), |_| "success");
        self.observer.call(operation, label, started.elapsed());
        result
    }

    /// Sets the caller's account, from a response: ECS lists only resources of that account.
    pub(super) fn set_account(&self, account: &str) {
        if self.account.get().is_none() {
            // A concurrent call sets the same value.
            let _ = self.account.set(account.to_owned());
        }
    }

    /// The caller's account, once a response has shown it.
    pub(super) fn account(&self) -> Option<&str> {
        self.account.get().map(String::as_str)
    }
}

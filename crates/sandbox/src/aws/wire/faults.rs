//! What goes wrong between a caller and the sandbox.

use std::time::Duration;

use serde_json::Value;

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AwsFault {
    /// Nothing.
    None,
    /// It is refused as too fast, without effect.
    Throttle,
    /// The service fails, without effect.
    InternalError,
    /// It takes effect, and the caller hears that the service failed.
    ErrorAfterEffect,
    /// It takes effect, and the caller hears nothing: the connection is cut.
    DropAfterEffect,
    /// The connection is cut, without effect.
    Drop,
    /// It takes effect this much later.
    Delay(Duration),
    /// It is refused as not allowed, without effect.
    AccessDenied,
    /// It takes effect, and every list in its answer is empty and said to be complete.
    EmptyList,
}

/// Chooses what goes wrong.
pub trait AwsFaults: Send + Sync {
    /// Asked once for each call, by service (`ecs`, `sqs`, `events`, `iam`, `sts`) and operation (`ListTasks`).
    fn decide(&self, service: &str, operation: &str) -> AwsFault;

    /// Told of what a call that worked is about to answer, for those who measure from outside.
    fn answers(&self, service: &str, operation: &str, answer: &Value) {
        let _ = (service, operation, answer);
    }
}

/// Nothing goes wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoAwsFaults;

impl AwsFaults for NoAwsFaults {
    fn decide(&self, _: &str, _: &str) -> AwsFault {
        AwsFault::None
    }
}

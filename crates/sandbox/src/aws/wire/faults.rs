//! Faults of AWS calls.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::Value;

/// Fault of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AwsFault {
    /// No fault.
    None,
    /// Throttled, without effect.
    Throttle,
    /// Internal error, without effect.
    InternalError,
    /// Internal error, although the call took effect.
    ErrorAfterEffect,
    /// The connection is cut after the call took effect.
    DropAfterEffect,
    /// The connection is cut before the call takes effect.
    Drop,
    /// The call is delayed.
    Delay(Duration),
    /// Access denied, without effect.
    AccessDenied,
    /// The call succeeds, but every list in the response is empty and has no next page.
    EmptyList,
}

/// A call, before it takes effect.
#[derive(Clone, Debug)]
pub struct AwsCall<'a> {
    /// `ecs`, `sqs`, …
    pub service: &'a str,
    /// `ListTasks`, …
    pub operation: &'a str,
    /// Access key of the signature.
    pub access_key_id: &'a str,
    /// The parameters by name: the body of the JSON protocols, the form of the query protocol; of S3 the query string, with
    /// `Bucket` and `Key` beside it.
    pub parameters: Cow<'a, Value>,
}

/// Chooses the fault of each call.
pub trait AwsFaults: Send + Sync {
    /// Called once for each call, with service (`ecs`, `sqs`, `events`, `iam`, `sts`, `dynamodb`) and operation (`ListTasks`).
    fn decide(&self, service: &str, operation: &str) -> AwsFault;

    /// Observes each call that reaches the account, whatever becomes of it.
    fn on_call(&self, call: &AwsCall<'_>) {
        let _ = call;
    }

    /// Observes the response of a successful call, for measurements.
    fn on_response(&self, service: &str, operation: &str, response: &Value) {
        let _ = (service, operation, response);
    }
}

/// Injects no faults.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoAwsFaults;

impl AwsFaults for NoAwsFaults {
    fn decide(&self, _: &str, _: &str) -> AwsFault {
        AwsFault::None
    }
}

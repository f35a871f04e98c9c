//! Errors of the emulated services, independent of the protocol.

/// Result of an emulated operation.
pub type AwsApiResult<T> = Result<T, AwsApiError>;

/// An error response of a service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct AwsApiError {
    /// The name of the error's shape, such as `ClusterNotFoundException`.
    pub code: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// The error's message.
    pub message: String,
}

impl AwsApiError {
    /// An error with AWS's status for this code.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        let status = STATUS.iter().find(|(name, _)| *name == code).map_or(400, |(_, status)| *status);
        Self { code, status, message: message.into() }
    }

    /// The service's throttling error.
    pub fn throttled(service: &str) -> Self {
        let code = match service {
            "sqs" => "RequestThrottled",
            "iam" | "sts" => "Throttling",
            "ec2" => "RequestLimitExceeded",
            "s3" => "SlowDown",
            _ => "ThrottlingException",
        };
        Self::new(code, "calls come faster than the account's quota allows; slow down and retry")
    }

    /// The service's internal error.
    pub fn internal(service: &str) -> Self {
        let code = match service {
            "ecs" => "ServerException",
            "iam" => "ServiceFailure",
            "events" => "InternalException",
            "dynamodb" => "InternalServerError",
            "ec2" | "s3" => "InternalError",
            _ => "InternalFailure",
        };
        Self::new(code, "the service failed; retry")
    }

    /// The service's access-denied error.
    pub fn denied(service: &str, operation: &str) -> Self {
        let code = match service {
            "iam" | "sts" | "sqs" | "s3" => "AccessDenied",
            "ec2" => "UnauthorizedOperation",
            _ => "AccessDeniedException",
        };
        Self::new(code, format!("the caller is not allowed to call {service}:{operation}"))
    }
}

/// The codes whose status is not 400.
const STATUS: &[(&str, u16)] = &[
    ("AccessDenied", 403),
    ("ExpiredToken", 403),
    ("UnauthorizedOperation", 403),
    ("InvalidClientTokenId", 403),
    ("MissingAuthenticationToken", 403),
    ("NoSuchEntity", 404),
    ("PolicyEvaluation", 500),
    ("EntityAlreadyExists", 409),
    ("DeleteConflict", 409),
    ("LimitExceeded", 409),
    ("ServerException", 500),
    ("ServiceFailure", 500),
    ("InternalException", 500),
    ("InternalError", 500),
    ("InternalServerError", 500),
    ("RequestLimitExceeded", 503),
    ("InternalFailure", 500),
    ("SlowDown", 503),
    ("NoSuchBucket", 404),
    ("NoSuchKey", 404),
    ("PreconditionFailed", 412),
    ("PermanentRedirect", 301),
    ("BucketAlreadyOwnedByYou", 409),
    ("NotImplemented", 501),
];

pub(super) fn client(message: impl Into<String>) -> AwsApiError {
    AwsApiError::new("ClientException", message)
}

pub(super) fn invalid(message: impl Into<String>) -> AwsApiError {
    AwsApiError::new("InvalidParameterException", message)
}

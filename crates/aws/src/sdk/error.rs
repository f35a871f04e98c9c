//! Translates failures of the SDK into [`AwsError`]s with a kind and a next step.
//!
//! The message is AWS's own, reduced to one line of at most 300 characters without keys, tokens and receipts.

use std::error::Error;

use aws_sdk_ecs::config::http::HttpResponse;
use aws_sdk_ecs::error::{ProvideErrorMetadata, SdkError};

use super::credentials::FailedStep;
use crate::aws::{AwsError, AwsErrorKind};

/// AWS's error codes. Sources: each API's list of errors, and
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/CommonErrors.html>.
const CODES: &[(&str, AwsErrorKind)] = &[
    ("Throttling", AwsErrorKind::Throttled),
    ("ThrottlingException", AwsErrorKind::Throttled),
    ("ThrottledException", AwsErrorKind::Throttled),
    ("RequestThrottled", AwsErrorKind::Throttled),
    ("RequestThrottledException", AwsErrorKind::Throttled),
    ("RequestLimitExceeded", AwsErrorKind::Throttled),
    ("TooManyRequestsException", AwsErrorKind::Throttled),
    ("LimitExceededException", AwsErrorKind::Throttled),
    ("BandwidthLimitExceeded", AwsErrorKind::Throttled),
    ("PriorRequestNotComplete", AwsErrorKind::Throttled),
    ("SlowDown", AwsErrorKind::Throttled),
    ("ProvisionedThroughputExceededException", AwsErrorKind::Throttled),
    ("OverLimit", AwsErrorKind::Throttled),
    ("KmsThrottled", AwsErrorKind::Throttled),
    ("KMS.ThrottlingException", AwsErrorKind::Throttled),
    ("ServerException", AwsErrorKind::Unavailable),
    ("ServiceFailure", AwsErrorKind::Unavailable),
    ("ServiceUnavailable", AwsErrorKind::Unavailable),
    ("ServiceUnavailableException", AwsErrorKind::Unavailable),
    ("InternalError", AwsErrorKind::Unavailable),
    ("InternalException", AwsErrorKind::Unavailable),
    ("InternalFailure", AwsErrorKind::Unavailable),
    ("InternalServerError", AwsErrorKind::Unavailable),
    ("Unavailable", AwsErrorKind::Unavailable),
    ("RequestTimeout", AwsErrorKind::Unavailable),
    ("RequestTimeoutException", AwsErrorKind::Unavailable),
    ("AccessDenied", AwsErrorKind::Denied),
    ("AccessDeniedException", AwsErrorKind::Denied),
    ("AuthorizationError", AwsErrorKind::Denied),
    ("UnauthorizedOperation", AwsErrorKind::Denied),
    ("NotAuthorized", AwsErrorKind::Denied),
    ("NotAuthorizedForSource", AwsErrorKind::Denied),
    ("OptInRequired", AwsErrorKind::Denied),
    ("KmsAccessDenied", AwsErrorKind::Denied),
    ("KMS.AccessDeniedException", AwsErrorKind::Denied),
    ("AuthFailure", AwsErrorKind::Credentials),
    ("ExpiredToken", AwsErrorKind::Credentials),
    ("ExpiredTokenException", AwsErrorKind::Credentials),
    ("RequestExpired", AwsErrorKind::Credentials),
    ("RequestTimeTooSkewed", AwsErrorKind::Credentials),
    ("InvalidClientTokenId", AwsErrorKind::Credentials),
    ("InvalidAccessKeyId", AwsErrorKind::Credentials),
    ("UnrecognizedClientException", AwsErrorKind::Credentials),
    ("InvalidSignatureException", AwsErrorKind::Credentials),
    ("SignatureDoesNotMatch", AwsErrorKind::Credentials),
    ("IncompleteSignature", AwsErrorKind::Credentials),
    ("IncompleteSignatureException", AwsErrorKind::Credentials),
    ("MissingAuthenticationToken", AwsErrorKind::Credentials),
    ("MissingAuthenticationTokenException", AwsErrorKind::Credentials),
    ("NoSuchEntity", AwsErrorKind::NotFound),
    ("NoSuchEntityException", AwsErrorKind::NotFound),
    ("ClusterNotFoundException", AwsErrorKind::NotFound),
    ("ResourceNotFoundException", AwsErrorKind::NotFound),
    ("ParameterNotFound", AwsErrorKind::NotFound),
    ("InvalidResourceId", AwsErrorKind::NotFound),
    ("TooManyUpdates", AwsErrorKind::Throttled),
    ("QueueDoesNotExist", AwsErrorKind::NotFound),
    ("NoSuchBucket", AwsErrorKind::NotFound),
    ("NoSuchKey", AwsErrorKind::NotFound),
    // The DNS name of a new bucket does not lead to its Region yet.
    ("TemporaryRedirect", AwsErrorKind::Unavailable),
    ("AllAccessDisabled", AwsErrorKind::Denied),
    ("InvalidObjectState", AwsErrorKind::Invalid),
    ("AWS.SimpleQueueService.NonExistentQueue", AwsErrorKind::NotFound),
];

/// Next steps by code. Other codes have one by operation, below.
const HINTS_BY_CODE: &[(&str, &str)] = &[
    (
        "QueueDoesNotExist",
        "; the queue does not exist in this account and Region: compare the URL with `aws sqs get-queue-url`",
    ),
    (
        "AWS.SimpleQueueService.NonExistentQueue",
        "; the queue does not exist in this account and Region: compare the URL with `aws sqs get-queue-url`",
    ),
    ("NoSuchBucket", "; no account has a bucket of this name: check it for a typo"),
    ("PermanentRedirect", HINT_BUCKET_REGION),
    ("AuthorizationHeaderMalformed", HINT_BUCKET_REGION),
    ("InvalidObjectState", "; the object is archived: manifests need a storage class without restore"),
    ("KmsAccessDenied", "; the queue's KMS key must let the operator's task role use kms:Decrypt"),
    ("KMS.AccessDeniedException", "; the queue's KMS key must let the operator's task role use kms:Decrypt"),
    ("OptInRequired", "; the account has not enabled this Region or service"),
    ("ExpiredToken", "; the credentials have expired: sign in again, or restart with fresh ones"),
    ("ExpiredTokenException", "; the credentials have expired: sign in again, or restart with fresh ones"),
    ("RequestExpired", "; this machine's clock is likely wrong: set it by NTP"),
    ("RequestTimeTooSkewed", "; this machine's clock is likely wrong: set it by NTP"),
    (
        "InvalidSignatureException",
        "; the secret key does not match the access key, or this machine's clock is wrong",
    ),
    (
        "SignatureDoesNotMatch",
        "; the secret key does not match the access key, or this machine's clock is wrong",
    ),
    (
        "ClusterNotFoundException",
        "; no such cluster in this account and Region: compare the name with ecs:ListClusters",
    ),
    (
        "timeout",
        "; AWS did not answer in time: check the network, security groups and VPC endpoints if this persists",
    ),
    ("connection", "; AWS could not be reached: check DNS, routes, proxies, and AWS_ENDPOINT_URL if set"),
];

/// Permissions to grant, by operation.
const HINTS_WHEN_DENIED: &[(&str, &str)] = &[
    (
        "sts:AssumeRole",
        "; let the operator's task role use sts:AssumeRole on this role, and let the role's trust policy admit that role with \
         the externalId of the AwsAccount",
    ),
    ("ecs:ListClusters", "; give the operator's task role ecs:ListClusters on *"),
    ("ecs:DescribeClusters", "; give the operator's task role ecs:DescribeClusters on cluster/CLUSTER"),
    ("ecs:ListTasks", "; give the operator's task role ecs:ListTasks on * with the condition ecs:cluster"),
    ("ecs:DescribeTasks", "; give the operator's task role ecs:DescribeTasks on task/CLUSTER/*"),
    ("ecs:DescribeTaskDefinition", "; give the operator's task role ecs:DescribeTaskDefinition on *"),
    ("ecs:ListServices", "; give the caller ecs:ListServices on * with the condition ecs:cluster"),
    ("ecs:DescribeServices", "; give the operator's task role ecs:DescribeServices on service/CLUSTER/*"),
    (
        "ecs:DescribeContainerInstances",
        "; tasks in network mode host need it: give the operator's task role ecs:DescribeContainerInstances on \
         container-instance/CLUSTER/*",
    ),
    (
        "ec2:DescribeInstances",
        "; tasks in network mode host need it: give the operator's task role ec2:DescribeInstances on *",
    ),
    ("ecs:GetTaskProtection", "; give the operator's task role ecs:GetTaskProtection on task/CLUSTER/*"),
    (
        "ecs:UpdateTaskProtection",
        "; give the operator's task role ecs:UpdateTaskProtection on task/CLUSTER/*",
    ),
    ("iam:GetRole", "; give the operator's task role iam:GetRole on the tasks' roles"),
    ("iam:GetAccountAuthorizationDetails", "; give the caller iam:GetAccountAuthorizationDetails on *"),
    ("iam:SimulatePrincipalPolicy", "; give the caller iam:SimulatePrincipalPolicy on the tasks' roles"),
    ("sqs:ReceiveMessage", "; give the operator's task role sqs:ReceiveMessage on the queue"),
    ("sqs:DeleteMessage", "; give the operator's task role sqs:DeleteMessage on the queue"),
    (
        "sqs:ChangeMessageVisibility",
        "; give the operator's task role sqs:ChangeMessageVisibility on the queue",
    ),
    ("sqs:GetQueueAttributes", "; give the operator's task role sqs:GetQueueAttributes on the queue"),
    ("dynamodb:GetItem", "; give the operator's task role dynamodb:GetItem on the lease table"),
    ("dynamodb:PutItem", "; give the operator's task role dynamodb:PutItem on the lease table"),
    ("secretsmanager:ListSecrets", "; give the operator's task role secretsmanager:ListSecrets on *"),
    ("secretsmanager:DescribeSecret", HINT_STORED_TOKENS),
    ("secretsmanager:CreateSecret", HINT_STORED_TOKENS),
    ("secretsmanager:PutSecretValue", HINT_STORED_TOKENS),
    ("secretsmanager:TagResource", HINT_STORED_TOKENS),
    ("secretsmanager:DeleteSecret", HINT_STORED_TOKENS),
    (
        "s3:ListObjectsV2",
        "; give the operator's task role s3:ListBucket on the bucket, with the condition s3:prefix; a bucket of another \
         account needs a bucket policy, too",
    ),
    (
        "s3:GetObject",
        "; give the operator's task role s3:GetObject on the objects, and kms:Decrypt on their key if they have one",
    ),
    (
        "ssm:GetParametersByPath",
        "; give the operator's task role ssm:GetParametersByPath on the path, and kms:Decrypt on the key of SecureStrings",
    ),
    ("ssm:DescribeParameters", "; give the operator's task role ssm:DescribeParameters on *"),
    ("ssm:ListTagsForResource", HINT_STORED_TOKENS),
    ("ssm:PutParameter", HINT_STORED_TOKENS),
    ("ssm:AddTagsToResource", HINT_STORED_TOKENS),
    ("ssm:DeleteParameter", HINT_STORED_TOKENS),
    ("events:PutEvents", "; give the operator's task role events:PutEvents on the event bus"),
    ("events:DescribeEventBus", "; give the caller events:DescribeEventBus on the event bus"),
    ("events:ListRuleNamesByTarget", "; give the caller events:ListRuleNamesByTarget on *"),
    ("events:DescribeRule", "; give the caller events:DescribeRule on the account's rules"),
    ("events:ListTargetsByRule", "; give the caller events:ListTargetsByRule on the account's rules"),
];

const HINT_BUCKET_REGION: &str = "; the bucket is in another Region, whose endpoint did not answer for it: check the network's \
     way to S3 there, and AWS_ENDPOINT_URL_S3 if set";

const HINT_STORED_TOKENS: &str = "; give the operator's task role the statement of `doctor --print-iam-policy` for stored tokens, \
     and the use of their KMS key";

pub(super) const HINT_NO_CREDENTIALS: &str = "; no credentials found: in ECS give the task a task role; elsewhere set \
     AWS_PROFILE or AWS_ACCESS_KEY_ID";
const HINT_BAD_CREDENTIALS: &str =
    "; AWS does not accept these credentials: check the task role, AWS_PROFILE or AWS_ACCESS_KEY_ID";

/// Longest message, in characters.
const MAX_MESSAGE: usize = 300;
/// A word of at least this many characters is a token, receipt or signature.
const MAX_WORD: usize = 180;

/// Translates a failure.
pub(super) fn translate<E>(
    operation: &'static str,
    resource: &str,
    failure: &SdkError<E, HttpResponse>,
) -> AwsError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    if let Some(error) = failed_credentials(failure) {
        return error;
    }
    let (kind, code, message) = match failure {
        SdkError::ServiceError(_) | SdkError::ResponseError(_) => answered(failure),
        SdkError::TimeoutError(_) => {
            (AwsErrorKind::Unavailable, "timeout".to_owned(), "no answer in time".to_owned())
        }
        SdkError::DispatchFailure(dispatch) if dispatch.is_timeout() => {
            (AwsErrorKind::Unavailable, "timeout".to_owned(), "no connection in time".to_owned())
        }
        _ => not_sent(failure),
    };
    let hint = match kind {
        AwsErrorKind::Credentials if code == "credentials" => hint_of_credentials(failure),
        _ => hint(kind, &code, operation),
    };
    AwsError { kind, operation, resource: resource.to_owned(), message: clean(&message), code, hint }
}

/// The kind and the message of a failure that is a part of an answer.
pub(super) fn partial(code: &str, message: &str) -> (AwsErrorKind, String) {
    let known = CODES.iter().find(|(known, _)| *known == code);
    (known.map_or(AwsErrorKind::Invalid, |(_, kind)| *kind), clean(message))
}

/// The failed call that was to give the credentials of this one.
fn failed_credentials(failure: &(dyn Error + 'static)) -> Option<AwsError> {
    let mut cause = failure.source();
    while let Some(error) = cause {
        if let Some(failed) = error.downcast_ref::<AwsError>() {
            return Some(failed.clone());
        }
        cause = error.source();
    }
    None
}

/// For a response: AWS's code determines the kind, else the HTTP status.
fn answered<E: ProvideErrorMetadata + Error + 'static>(
    failure: &SdkError<E, HttpResponse>,
) -> (AwsErrorKind, String, String) {
    let status = failure.raw_response().map_or(0, |response| response.status().as_u16());
    let service_error = match failure {
        SdkError::ServiceError(context) => Some(context.err()),
        _ => None,
    };
    let code = service_error.and_then(ProvideErrorMetadata::code).map(clean_code);
    let known = code.as_deref().and_then(|code| CODES.iter().find(|(known, _)| *known == code));
    let kind = match (known, status) {
        (Some((_, kind)), _) => *kind,
        (None, 429) => AwsErrorKind::Throttled,
        (None, 401 | 403) => AwsErrorKind::Denied,
        // An unreadable answer with status 200 was truncated.
        (None, 0..300 | 408 | 500..) => AwsErrorKind::Unavailable,
        (None, _) => AwsErrorKind::Invalid,
    };
    let message = match service_error {
        Some(error) => error.message().map_or_else(|| format!("HTTP status {status}"), str::to_owned),
        None => format!("reading the response: {}", chain(failure)),
    };
    (kind, code.unwrap_or_else(|| format!("HTTP {status}")), message)
}

/// For a request that was not sent: no credentials, no connection, or an invalid request.
fn not_sent<E: Error + 'static>(failure: &SdkError<E, HttpResponse>) -> (AwsErrorKind, String, String) {
    let chain = chain(failure);
    // The SDK has no public type for credential failures here, but each message mentions them.
    let about_credentials = ["credential", "identity"].iter().any(|word| chain.contains(word));
    let (kind, code) = match failure {
        SdkError::DispatchFailure(dispatch) if dispatch.is_io() => (AwsErrorKind::Unavailable, "connection"),
        _ if about_credentials => (AwsErrorKind::Credentials, "credentials"),
        SdkError::DispatchFailure(_) => (AwsErrorKind::Unavailable, "connection"),
        _ => (AwsErrorKind::Invalid, "request"),
    };
    (kind, code.to_owned(), chain)
}

/// The messages of an error's causes. The first message ("dispatch failure") has no information.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut messages: Vec<String> = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        // "other" is a class of failures, not a message.
        if message != "other" && messages.last() != Some(&message) {
            messages.push(message);
        }
        cause = error.source();
    }
    if messages.is_empty() { error.to_string() } else { messages.join(": ") }
}

/// The next step where no credentials were found: that of the source that failed.
pub(super) fn hint_of_credentials(error: &(dyn Error + 'static)) -> &'static str {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(failed) = error.downcast_ref::<FailedStep>() {
            return failed.step.hint();
        }
        cause = error.source();
    }
    HINT_NO_CREDENTIALS
}

fn hint(kind: AwsErrorKind, code: &str, operation: &str) -> &'static str {
    let find = |table: &[(&str, &'static str)], key: &str| {
        table.iter().find(|(known, _)| *known == key).map(|(_, hint)| *hint)
    };
    match (find(HINTS_BY_CODE, code), kind) {
        (Some(hint), _) => hint,
        (None, AwsErrorKind::Denied) => find(HINTS_WHEN_DENIED, operation).unwrap_or_default(),
        (None, AwsErrorKind::Credentials) => HINT_BAD_CREDENTIALS,
        (None, _) => "",
    }
}

pub(super) fn clean_code(code: &str) -> String {
    code.chars().filter(char::is_ascii_graphic).take(100).collect()
}

/// The message as one short line without secrets. A signature error quotes the canonical request, which contains the session
/// token, after its first paragraph.
pub(super) fn clean(message: &str) -> String {
    let first_paragraph = message.split("\n\n").next().unwrap_or_default();
    let before_canonical = first_paragraph.split("The Canonical String").next().unwrap_or_default();
    let words = before_canonical
        .split_whitespace()
        .map(|word| if word.len() >= MAX_WORD || is_access_key(word) { "[redacted]" } else { word });
    let line: String = words.collect::<Vec<_>>().join(" ");
    if line.chars().count() <= MAX_MESSAGE {
        return line;
    }
    line.chars().take(MAX_MESSAGE - 1).chain(['…']).collect()
}

/// `AKIA…` or `ASIA…` with further characters, within any punctuation.
fn is_access_key(word: &str) -> bool {
    ["AKIA", "ASIA"].iter().any(|prefix| {
        word.find(prefix).is_some_and(|at| {
            let rest = &word[at + prefix.len()..];
            rest.bytes().take_while(|b| b.is_ascii_uppercase() || b.is_ascii_digit()).count() >= 12
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_is_one_short_line() {
        assert_eq!(clean("a\n b\t c"), "a b c");
        let long = clean(&"word ".repeat(200));
        assert_eq!((long.chars().count(), long.ends_with('…')), (MAX_MESSAGE, true));
    }

    #[test]
    fn keys_tokens_and_receipts_are_redacted() {
        let receipt = "AQEB".repeat(60);
        for (message, expected) in [
            (format!("The handle \"{receipt}\" is wrong."), "The handle [redacted] is wrong."),
            ("The key (ASIAIOSFODNN7EXAMPLE) is unknown.".to_owned(), "The key [redacted] is unknown."),
            (
                "It does not match.\n\nThe Canonical String should be\nx-amz-security-token:abc".to_owned(),
                "It does not match.",
            ),
            (
                "It does not match. The Canonical String should be x-amz-security-token:abc".to_owned(),
                "It does not match.",
            ),
        ] {
            assert_eq!(clean(&message), expected);
        }
    }

    #[test]
    fn each_code_is_listed_once() {
        let mut codes: Vec<_> = CODES.iter().map(|(code, _)| code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), CODES.len());
    }

    #[test]
    fn hints_continue_the_message() {
        for (_, hint) in HINTS_BY_CODE.iter().chain(HINTS_WHEN_DENIED) {
            assert!(hint.starts_with("; "), "{hint}");
        }
    }
}

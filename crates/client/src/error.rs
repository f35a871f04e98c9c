//! Errors of the read API.

use std::error::Error;
use std::io;
use std::time::Duration;

use serde_json::Value;

use crate::text::printable;

/// The longest text of an answer in an error.
const MAX_QUOTED: usize = 300;

/// A call of the read API that failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No operator listens there.
    #[error(
        "{url}: connection refused; help: start the operator with --api-address, or give the address of one with \
         --api-address or ECS_MESH_API_ADDRESS"
    )]
    Refused {
        /// The URL.
        url: String,
        /// The failed connection.
        #[source]
        source: reqwest::Error,
    },
    /// The address is `none`.
    #[error("the operator serves no read API (ECS_MESH_API_ADDRESS is none); help: give --api-address")]
    Disabled,
    /// No answer came.
    #[error("{url}: no answer within {}", human(*.limit))]
    TimedOut {
        /// The URL.
        url: String,
        /// The limit.
        limit: Duration,
    },
    /// The connection failed otherwise.
    #[error("{url}: {}", innermost(.source))]
    Connection {
        /// The URL.
        url: String,
        /// The failure.
        #[source]
        source: reqwest::Error,
    },
    /// The stream of events ended.
    #[error("{url}: the stream of events ended")]
    StreamEnded {
        /// The URL.
        url: String,
    },
    /// A setting of the client is invalid.
    #[error("{0}")]
    Settings(String),
    /// The token's file cannot be read.
    #[error("--api-token-file: {0}")]
    Token(String),
    /// The operator wants a token.
    #[error("{url}: the operator asks for a token; help: give --api-token-file")]
    TokenMissing {
        /// The URL.
        url: String,
    },
    /// The operator does not accept the token.
    #[error("{url}: the operator rejects the token in {file}")]
    TokenRejected {
        /// The URL.
        url: String,
        /// The token's file.
        file: String,
    },
    /// The object does not exist.
    #[error("{url}: not found: {message}")]
    NotFound {
        /// The URL.
        url: String,
        /// The operator's answer.
        message: String,
    },
    /// The operator refuses the call.
    #[error("{url}: {status}: {message}")]
    Status {
        /// The URL.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The operator's answer.
        message: String,
    },
    /// The answer is not that of a read API.
    #[error(
        "{url}: {cause}; help: --api-address is the address of the operator's read API, not that of its metrics"
    )]
    Malformed {
        /// The URL.
        url: String,
        /// Why.
        cause: String,
    },
}

impl ApiError {
    /// No operator listens at the address: the only failure in whose place another source may answer.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Disabled)
    }

    /// The same call may succeed later, without a change here.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Refused { .. }
            | Self::TimedOut { .. }
            | Self::Connection { .. }
            | Self::StreamEnded { .. } => true,
            Self::Status { status, .. } => *status == 429 || *status >= 500,
            _ => false,
        }
    }

    /// The failure to send a request or to read its answer.
    pub(crate) fn of_transport(url: &str, limit: Duration, source: reqwest::Error) -> Self {
        let (url, source) = (url.to_owned(), source.without_url());
        if source.is_timeout() {
            Self::TimedOut { url, limit }
        } else if is_refused(&source) {
            Self::Refused { url, source }
        } else {
            Self::Connection { url, source }
        }
    }

    /// The failure that an answer tells.
    pub(crate) fn of_answer(url: &str, status: u16, body: &[u8], token_file: Option<&str>) -> Self {
        let url = url.to_owned();
        let message = message(body);
        match (status, token_file) {
            (401, None) => Self::TokenMissing { url },
            (401, Some(file)) => Self::TokenRejected { url, file: file.to_owned() },
            (404, _) if is_error_object(body) => Self::NotFound { url, message },
            (404, _) => Self::Malformed { url, cause: "404 without an answer of a read API".to_owned() },
            _ => Self::Status { url, status, message },
        }
    }
}

fn is_error_object(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body).is_ok_and(|value| value["kind"] == "Error")
}

/// The message of an error object, or else the beginning of the text.
fn message(body: &[u8]) -> String {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = match value["message"].as_str() {
        Some(message) => message.to_owned(),
        None => String::from_utf8_lossy(body).trim().to_owned(),
    };
    let short: String = text.chars().take(MAX_QUOTED).collect();
    if short.is_empty() { "no message".to_owned() } else { printable(&short).into_owned() }
}

/// The innermost cause of an error.
fn innermost(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn is_refused(error: &dyn Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        {
            return true;
        }
        cause = error.source();
    }
    false
}

fn human(duration: Duration) -> String {
    ecs_mesh_api::HumanDuration(duration).to_string()
}

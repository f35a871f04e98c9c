//! Sends a login's signed requests to the emulated AWS without a socket.

use crate::aws::{self, AwsFront, Cloud};
use ecs_mesh_model::Timestamp;

use super::bearer::{AwsAnswer, SignedCall};
use super::http::SignedRequestSender;

/// Handles a signed request to `endpoint`, the account's address, or to AWS.
///
/// # Errors
/// Describes the unreachable address if the request goes elsewhere.
pub fn send_signed(
    cloud: &mut Cloud,
    now: Timestamp,
    endpoint: &str,
    call: &SignedCall,
) -> Result<AwsAnswer, String> {
    let destination = host(&call.url);
    if destination != host(endpoint) && !destination.ends_with(".amazonaws.com") {
        return Err(format!("connecting to {destination}: connection refused"));
    }
    let headers = call.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let answer = aws::query(cloud, now, headers, &call.body);
    Ok(AwsAnswer { status: answer.status, content_type: answer.content_type.to_owned(), body: answer.body })
}

/// A sender to the account of `front`, for [`super::http::ConsulFront`].
pub fn account(front: AwsFront, endpoint: String) -> SignedRequestSender {
    std::sync::Arc::new(move |call| front.with(|cloud, now| send_signed(cloud, now, &endpoint, call)))
}

/// Host and port, with `localhost` as `127.0.0.1`.
fn host(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    host.strip_prefix("localhost").map_or_else(|| host.to_owned(), |port| format!("127.0.0.1{port}"))
}

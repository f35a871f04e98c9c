//! The sandbox's own AWS as the one that a login's signed requests reach, without a socket in between.

use crate::aws::{self, Cloud, AwsFront};
use ecs_mesh_model::Timestamp;

use super::bearer::{AwsAnswer, SignedCall};
use super::http::SignedRequestSender;

/// Answers a signed request from the account. It has to be sent to `endpoint`, the account's own address, or to AWS
/// itself: an auth method that names another address reaches nobody.
///
/// # Errors
/// In words, when nobody is reached.
pub fn ask(
    cloud: &mut Cloud,
    now: Timestamp,
    endpoint: &str,
    call: &SignedCall,
) -> Result<AwsAnswer, String> {
    let wanted = host(&call.url);
    if wanted != host(endpoint) && !wanted.ends_with(".amazonaws.com") {
        return Err(format!("nobody answers at {wanted}"));
    }
    let headers = call.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let answer = aws::query(cloud, now, headers, &call.body);
    Ok(AwsAnswer { status: answer.status, content_type: answer.content_type.to_owned(), body: answer.body })
}

/// The account behind `front`, for [`super::http::ConsulFront`].
pub fn account(front: AwsFront, endpoint: String) -> SignedRequestSender {
    std::sync::Arc::new(move |call| front.with(|cloud, now| ask(cloud, now, &endpoint, call)))
}

/// Host and port; this machine has one name.
fn host(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    host.strip_prefix("localhost").map_or_else(|| host.to_owned(), |port| format!("127.0.0.1{port}"))
}

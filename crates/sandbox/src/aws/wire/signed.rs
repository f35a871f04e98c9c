//! In-process responses to signed requests, such as those that Consul forwards for its clients.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use super::request::{AwsProtocol, AwsRequest};
use super::{iam, response, sts};
use crate::aws::Cloud;
use ecs_mesh_model::Timestamp;

/// A response of the query protocol.
#[derive(Clone, Debug)]
pub struct QueryAnswer {
    /// The HTTP status.
    pub status: u16,
    /// `text/xml`.
    pub content_type: &'static str,
    /// XML.
    pub body: String,
}

/// Handles a request of the query protocol to IAM or STS.
pub fn query<'a>(
    cloud: &mut Cloud,
    now: Timestamp,
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    body: &str,
) -> QueryAnswer {
    let named = headers.into_iter().filter_map(|(name, value)| {
        Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?))
    });
    let headers: HeaderMap = named.collect();
    let request = match AwsRequest::read(&Method::POST, &Uri::from_static("/"), &headers, body.as_bytes()) {
        Ok(request) if request.protocol == AwsProtocol::Query => request,
        Ok(_) => return refused(400),
        Err(refusal) => return refused(refusal.status().as_u16()),
    };
    let admitted = cloud.admit(request.service, &request.operation, now);
    let outcome = admitted.and_then(|()| match request.service {
        "iam" => iam::perform(cloud, &request, now),
        "sts" => sts::perform(cloud, &request, now),
        _ => Err(request.unknown_operation()),
    });
    let (status, body) = response::xml(&request, outcome);
    QueryAnswer { status: status.as_u16(), content_type: response::XML, body }
}

/// A response without details, for a request that cannot be parsed.
fn refused(status: u16) -> QueryAnswer {
    QueryAnswer { status, content_type: response::XML, body: "<ErrorResponse/>".to_owned() }
}

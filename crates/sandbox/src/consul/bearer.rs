//! Parsing of the bearer token of an `aws-iam` login: signed requests that the server forwards to AWS.

use std::collections::BTreeMap;

use serde_json::Value;

use super::aws_iam::{AwsIam, is_url};
use super::ids::from_base64;

pub(super) const METHOD: &str = "X-Consul-Iam-Getentity-Method";
pub(super) const URL: &str = "X-Consul-Iam-Getentity-Url";
pub(super) const HEADERS: &str = "X-Consul-Iam-Getentity-Headers";
pub(super) const BODY: &str = "X-Consul-Iam-Getentity-Body";
pub(super) const SERVER_ID: &str = "X-Consul-Iam-Serverid";

/// AWS headers that a request to STS may have.
const STS_HEADERS: [&str; 7] = [
    "X-Amz-Algorithm",
    "X-Amz-Content-Sha256",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Security-Token",
    "X-Amz-Signature",
    "X-Amz-Signedheaders",
];

/// A signed request to AWS.
#[derive(Clone)]
pub struct SignedCall {
    /// URL at the auth method's endpoint, or the signed one.
    pub url: String,
    /// The signed method, usually `POST`.
    pub method: String,
    /// The headers, including `Host`.
    pub headers: Vec<(String, String)>,
    /// The form.
    pub body: String,
}

/// AWS's response.
#[derive(Clone, Debug)]
pub struct AwsAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The `Content-Type` header.
    pub content_type: String,
    /// The XML body.
    pub body: String,
}

type Headers = BTreeMap<String, Vec<String>>;

struct SignedRequestParts {
    method: String,
    url: String,
    headers: Headers,
    body: String,
}

/// A valid bearer token.
pub(super) struct BearerToken {
    identity: SignedRequestParts,
    entity: Option<SignedRequestParts>,
}

impl BearerToken {
    pub(super) fn read(text: &str, method: &AwsIam) -> Result<Self, String> {
        let identity = identity(text)?;
        if identity.method != "POST" {
            return Err("iam_http_request_method must be POST".to_owned());
        }
        check_url(&identity.url, &method.sts_endpoint, ["sts.", "sts-fips."])?;
        check_form(&identity.body, &["GetCallerIdentity"], &["Version"])?;
        for name in identity.headers.keys().filter(|name| name.starts_with("X-Amz-")) {
            if !STS_HEADERS.contains(&name.as_str()) && !method.allowed_headers.contains(name) {
                return Err(format!("the header {name} is not allowed in a request to STS"));
            }
        }
        check_server_id(&identity, &method.server_id)?;
        let entity = if method.with_entity { Some(entity(&identity.headers)?) } else { None };
        if let Some(entity) = &entity {
            check_url(&entity.url, &method.iam_endpoint, ["iam.", "iam-fips."])?;
            let form =
                check_form(&entity.body, &["GetRole", "GetUser"], &["RoleName", "UserName", "Version"])?;
            let (role, user) = (form.contains_key("RoleName"), form.contains_key("UserName"));
            if form["Action"] == "GetRole" && (!role || user)
                || form["Action"] == "GetUser" && (role || !user)
            {
                return Err("the request for the entity names no role, or no user".to_owned());
            }
            check_server_id(entity, &method.server_id)?;
        }
        Ok(Self { identity, entity })
    }

    /// The requests to STS and, for entity details, to IAM.
    pub(super) fn calls(&self, method: &AwsIam) -> Vec<SignedCall> {
        let endpoints = [&method.sts_endpoint, &method.iam_endpoint];
        let requests = std::iter::once(&self.identity).chain(&self.entity);
        requests.zip(endpoints).map(|(request, endpoint)| request.call(endpoint)).collect()
    }
}

impl SignedRequestParts {
    /// Host and path are signed and kept; only the destination changes.
    fn call(&self, endpoint: &str) -> SignedCall {
        let (origin, path) = split(&self.url);
        let url = if endpoint.is_empty() {
            self.url.clone()
        } else {
            format!("{}{path}", endpoint.trim_end_matches('/'))
        };
        let host = origin.rsplit("//").next().unwrap_or_default().to_owned();
        let listed = self
            .headers
            .iter()
            .flat_map(|(name, values)| values.iter().map(|value| (name.clone(), value.clone())));
        let headers = std::iter::once(("Host".to_owned(), host)).chain(listed).collect();
        SignedCall { url, method: self.method.clone(), headers, body: self.body.clone() }
    }
}

fn identity(text: &str) -> Result<SignedRequestParts, String> {
    let token: Value =
        serde_json::from_str(text).map_err(|error| format!("the bearer token is not JSON: {error}"))?;
    let part = |name: &str| {
        let encoded = token[name].as_str().unwrap_or_default();
        let bytes = from_base64(encoded).and_then(|bytes| String::from_utf8(bytes).ok());
        bytes.ok_or_else(|| format!("{name} of the bearer token is not base64"))
    };
    Ok(SignedRequestParts {
        method: token["iam_http_request_method"].as_str().unwrap_or_default().to_owned(),
        url: part("iam_request_url")?,
        headers: headers(&part("iam_request_headers")?)?,
        body: part("iam_request_body")?,
    })
}

fn entity(outer: &Headers) -> Result<SignedRequestParts, String> {
    let header = |name: &str| match outer.get(name).map(Vec::as_slice) {
        Some([value]) => Ok(value.clone()),
        Some(_) => Err(format!("the header {name} has not exactly one value")),
        None => Err(format!("the header {name} is missing; log in with the entity included")),
    };
    Ok(SignedRequestParts {
        method: header(METHOD)?,
        url: header(URL)?,
        headers: headers(&header(HEADERS)?)?,
        body: header(BODY)?,
    })
}

fn headers(json: &str) -> Result<Headers, String> {
    serde_json::from_str(json).map_err(|_| "the headers are no JSON object of lists".to_owned())
}

/// Splits a URL into scheme with host, and path with query.
fn split(url: &str) -> (&str, &str) {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find(['/', '?']).map_or(url.len(), |at| at + start);
    url.split_at(end)
}

/// Checks that a request goes to AWS if the method names no endpoint.
fn check_url(url: &str, endpoint: &str, hosts: [&str; 2]) -> Result<(), String> {
    if !is_url(url) {
        return Err(format!("{url:?} is not a URL"));
    }
    let (origin, path) = split(url);
    if path.contains('?') {
        return Err(format!("{url:?} has a query, which is not allowed"));
    }
    let host = origin.rsplit("//").next().unwrap_or_default();
    let host = host.split(':').next().unwrap_or_default();
    let is_aws = host.ends_with(".amazonaws.com") && hosts.iter().any(|prefix| host.starts_with(prefix));
    if endpoint.is_empty() && !is_aws {
        return Err(format!("{host:?} is not an AWS endpoint, and the auth method has no endpoint"));
    }
    Ok(())
}

fn check_form(body: &str, actions: &[&str], fields: &[&str]) -> Result<BTreeMap<String, String>, String> {
    let mut form = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(body.as_bytes()).into_owned() {
        if name != "Action" && !fields.contains(&name.as_str()) {
            return Err(format!("the signed request has a field {name:?}, which is not allowed"));
        }
        if form.insert(name.clone(), value).is_some() {
            return Err(format!("the signed request has {name:?} twice"));
        }
    }
    match form.get("Action") {
        Some(action) if actions.contains(&action.as_str()) => Ok(form),
        found => Err(format!("the signed request's Action is {found:?}; {} is needed", actions.join(" or "))),
    }
}

/// Checks that the server-id header exists and is signed.
fn check_server_id(request: &SignedRequestParts, wanted: &str) -> Result<(), String> {
    let given = request.headers.get(SERVER_ID).map(Vec::as_slice);
    let signed = request.headers.get("Authorization").and_then(|values| values.first());
    let signed = signed.and_then(|value| value.split("SignedHeaders=").nth(1)).unwrap_or_default();
    let signed = signed.split(',').next().unwrap_or_default().split(';');
    let fits = wanted.is_empty()
        || (given == Some(&[wanted.to_owned()])
            && signed.into_iter().any(|name| name.eq_ignore_ascii_case(SERVER_ID)));
    if fits { Ok(()) } else { Err(format!("the header {SERVER_ID} is not signed with the method's value")) }
}

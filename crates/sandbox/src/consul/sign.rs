//! The client's side of a login: signs the requests that the server forwards to AWS, as `consul login` does.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_sts::config::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use serde_json::{Value, json};

use crate::aws::AssumedRole;
use ecs_mesh_model::Timestamp;

use super::bearer;
use super::ids::base64;
use super::login::LOGIN;
use super::message::ConsulRequest;

const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";

/// Entity details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntityDetails<'a> {
    /// None: the server has the role's name only.
    Left,
    /// Details of the role that logs in.
    Own,
    /// Details of another role, which the server must reject.
    Of(&'a str),
}

/// A login with a role's temporary credentials.
#[derive(Clone, Debug)]
pub struct SignedLogin<'a> {
    /// The auth method's name.
    pub auth_method: &'a str,
    /// The credentials of the task role.
    pub credentials: &'a AssumedRole,
    /// The Region.
    pub region: &'a str,
    /// STS endpoint; default: AWS's.
    pub sts_endpoint: Option<&'a str>,
    /// IAM endpoint; default: AWS's.
    pub iam_endpoint: Option<&'a str>,
    /// The server id to sign, if the auth method requires one.
    pub server_id: Option<&'a str>,
    /// Entity details.
    pub entity: EntityDetails<'a>,
    /// Metadata for the token's description.
    pub meta: &'a [(&'a str, &'a str)],
}

/// A signed request, with headers in Go's form.
struct Signed {
    url: String,
    headers: BTreeMap<String, Vec<String>>,
    body: String,
}

impl SignedLogin<'_> {
    /// The login request to Consul.
    ///
    /// # Errors
    /// The signing error.
    pub fn request(&self, now: Timestamp) -> Result<ConsulRequest, String> {
        let mut body = json!({"AuthMethod": self.auth_method, "BearerToken": self.bearer_token(now)?});
        if !self.meta.is_empty() {
            body["Meta"] = self.meta.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        }
        Ok(ConsulRequest::new("POST", LOGIN, None, &body))
    }

    /// The bearer token of the login.
    ///
    /// # Errors
    /// The signing error.
    pub fn bearer_token(&self, now: Timestamp) -> Result<String, String> {
        let mut headers = Vec::new();
        if let Some(id) = self.server_id {
            headers.push((bearer::SERVER_ID, id.to_owned()));
        }
        let role = match self.entity {
            EntityDetails::Left => None,
            EntityDetails::Own => self.credentials.arn.split('/').nth(1),
            EntityDetails::Of(role) => Some(role),
        };
        if let Some(role) = role {
            let form = [("Action", "GetRole"), ("Version", "2010-05-08"), ("RoleName", role)];
            let (iam, region) = iam(self.region);
            let url = self.iam_endpoint.unwrap_or(iam);
            let entity = self.signed("iam", region, url, &form, &headers, now)?;
            headers.extend([
                (bearer::METHOD, "POST".to_owned()),
                (bearer::URL, entity.url),
                (bearer::HEADERS, json!(entity.headers).to_string()),
                (bearer::BODY, entity.body),
            ]);
        }
        let form = [("Action", "GetCallerIdentity"), ("Version", "2011-06-15")];
        let sts = format!("https://sts.{}.amazonaws.com{}", self.region, suffix(self.region));
        let url = self.sts_endpoint.unwrap_or(&sts);
        let identity = self.signed("sts", self.region, url, &form, &headers, now)?;
        let token: Value = json!({
            "iam_http_request_method": "POST",
            "iam_request_url": base64(identity.url.as_bytes()),
            "iam_request_headers": base64(json!(identity.headers).to_string().as_bytes()),
            "iam_request_body": base64(identity.body.as_bytes()),
        });
        Ok(token.to_string())
    }

    fn signed(
        &self,
        service: &str,
        region: &str,
        endpoint: &str,
        form: &[(&str, &str)],
        headers: &[(&str, String)],
        now: Timestamp,
    ) -> Result<Signed, String> {
        let url = format!("{}/", endpoint.trim_end_matches('/'));
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let mut all: Vec<(String, String)> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        all.push(("Content-Type".to_owned(), FORM.to_owned()));
        let AssumedRole { access_key_id, secret_access_key, session_token, .. } = self.credentials;
        let credentials =
            Credentials::new(access_key_id, secret_access_key, Some(session_token.clone()), None, "sandbox");
        let credentials = credentials.into();
        let parameters = v4::SigningParams::builder()
            .identity(&credentials)
            .region(region)
            .name(service)
            .time(system_time(now))
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| error.to_string())?;
        let named = all.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let request = SignableRequest::new("POST", url.as_str(), named, SignableBody::Bytes(body.as_bytes()))
            .map_err(|error| error.to_string())?;
        let (instructions, _) =
            sign(request, &parameters.into()).map_err(|error| error.to_string())?.into_parts();
        all.extend(instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned())));
        let headers = all.into_iter().map(|(name, value)| (canonical(&name), vec![value])).collect();
        Ok(Signed { url, headers, body })
    }
}

fn system_time(at: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(at.0).unwrap_or(0))
}

/// `x-amz-date` as `X-Amz-Date`, the only form that the server finds.
fn canonical(name: &str) -> String {
    let part = |part: &str| {
        let (first, rest) = part.split_at(part.len().min(1));
        first.to_ascii_uppercase() + &rest.to_ascii_lowercase()
    };
    name.split('-').map(part).collect::<Vec<_>>().join("-")
}

/// IAM's address and signing Region, by the partition of a Region.
fn iam(region: &str) -> (&'static str, &'static str) {
    match region.split('-').next() {
        Some("cn") => ("https://iam.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        Some("us") if region.starts_with("us-gov-") => ("https://iam.us-gov.amazonaws.com", "us-gov-west-1"),
        _ => ("https://iam.amazonaws.com", "us-east-1"),
    }
}

fn suffix(region: &str) -> &'static str {
    if region.starts_with("cn-") { ".cn" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_names_have_gos_form() {
        assert_eq!(canonical("x-amz-security-token"), "X-Amz-Security-Token");
        assert_eq!(canonical("X-Consul-Iam-Getentity-Url"), bearer::URL);
    }
}

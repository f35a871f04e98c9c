//! Login and logout.

use std::sync::OnceLock;

use serde_json::{Map, Value};

use super::aws_iam::AwsIam;
use super::bearer::{AwsAnswer, BearerToken, SignedCall};
use super::binding::{BindType, bound_name};
use super::decode::{self, JsonFieldKind, JsonMessage, UnknownFields, text};
use super::grants::{Grants, NodeIdentity, Template, TemplatedPolicy, TokenServiceIdentity};
use super::identity::CallerRole;
use super::message::ConsulRequest;
use super::methods::StoredAuthMethod;
use super::response::{ConsulErrorResponse, HandlerResponse, HandlerResult};
use super::server::{ConsulServer, RequestContext};
use super::tokens::StoredToken;

const BODY: JsonMessage = JsonMessage(&[
    ("AuthMethod", JsonFieldKind::Text),
    ("BearerToken", JsonFieldKind::Text),
    ("Meta", JsonFieldKind::TextMap),
]);
pub(super) const LOGIN: &str = "/v1/acl/login";

/// The grants of a login.
struct LoginGrants {
    grants: Grants,
    roles: Vec<String>,
}

impl ConsulServer {
    /// The signed requests to send to AWS before this request can be handled; none unless the request is a valid
    /// login.
    pub fn signed_calls(&self, request: &ConsulRequest) -> Vec<SignedCall> {
        let path = request.path_and_query.split('?').next();
        if request.method != "POST" || path != Some(LOGIN) || !self.config.acls_enabled {
            return Vec::new();
        }
        let prepared = self.prepared(request, request.token.as_deref());
        prepared.map(|(_, method, bearer)| bearer.calls(&method.aws)).unwrap_or_default()
    }

    fn prepared(
        &self,
        request: &ConsulRequest,
        secret: Option<&str>,
    ) -> Result<(Map<String, Value>, &StoredAuthMethod, BearerToken), ConsulErrorResponse> {
        let body = decode::body(&BODY, &request.body, UnknownFields::Dropped);
        let body =
            body.map_err(|what| ConsulErrorResponse::malformed(format!("decoding the login: {what}")))?;
        if secret.is_some_and(|secret| !secret.is_empty()) {
            return Err(ConsulErrorResponse::invalid("a login comes without a token"));
        }
        let name = text(&body, "AuthMethod");
        let method = self.acl.method(name);
        let missing =
            || ConsulErrorResponse::denied(format!("ACL not found: there is no auth method {name:?}"));
        let method = method.ok_or_else(missing)?;
        let bearer = BearerToken::read(text(&body, "BearerToken"), &method.aws)
            .map_err(ConsulErrorResponse::invalid)?;
        Ok((body, method, bearer))
    }

    pub(super) fn login(
        &mut self,
        call: &RequestContext<'_>,
        answers: &[Result<AwsAnswer, String>],
    ) -> HandlerResult {
        let (body, method, _) = self.prepared(call.request, call.secret)?;
        let identity = CallerRole::of(&method.aws, answers).map_err(ConsulErrorResponse::invalid)?;
        let bindings = self.bindings(&method.name, &method.aws, &identity)?;
        let token = StoredToken {
            accessor: String::new(),
            secret: String::new(),
            description: description(&body),
            grants: bindings.grants,
            roles: bindings.roles,
            local: method.makes_local_tokens(),
            auth_method: method.name.clone(),
            expires: method.max_ttl().map(|ttl| call.now.plus(ttl)),
            made: call.now,
            created: 0,
            modified: 0,
            hash: OnceLock::new(),
        };
        let token = StoredToken { accessor: self.ids.uuid(), secret: self.ids.uuid(), ..token };
        Ok(HandlerResponse::Plain(self.store_token(None, token, call, None)))
    }

    fn bindings(
        &self,
        method: &str,
        aws: &AwsIam,
        identity: &CallerRole,
    ) -> Result<LoginGrants, ConsulErrorResponse> {
        let (selectable, variables) = (identity.selectable(), identity.variables(aws));
        let mut bindings = LoginGrants { grants: Grants::default(), roles: Vec::new() };
        let rules = self.acl.rules.values().filter(|rule| rule.is_of(method));
        for rule in rules.filter(|rule| rule.selects.selects(&selectable)) {
            let name = bound_name(rule.bind_type, &rule.bind_name, rule.bind_vars.as_deref(), &variables)
                .map_err(ConsulErrorResponse::invalid)?;
            match rule.bind_type {
                BindType::Service => {
                    bindings.grants.add_service(TokenServiceIdentity { name, datacenters: Vec::new() })?;
                }
                BindType::Node => {
                    let datacenter = self.config.datacenter.clone();
                    bindings.grants.add_node(NodeIdentity { name, datacenter })?;
                }
                BindType::Templated => {
                    let Some(template) = Template::named(&rule.bind_name) else { continue };
                    bindings.grants.add_templated(TemplatedPolicy {
                        template,
                        name,
                        datacenters: Vec::new(),
                    })?;
                }
                // A rule for an unknown role grants nothing.
                BindType::Role => add(&mut bindings.roles, self.acl.role_of("", &name)),
                BindType::Policy => add(&mut bindings.grants.policies, self.acl.policy_of("", &name)),
            }
        }
        if bindings.grants.is_empty() && bindings.roles.is_empty() {
            return Err(ConsulErrorResponse::denied("no binding rule gives this identity anything"));
        }
        Ok(bindings)
    }

    pub(super) fn logout(&mut self, call: &RequestContext<'_>) -> HandlerResult {
        let secret = call.secret.ok_or_else(ConsulErrorResponse::no_token)?;
        let token = self.acl.tokens.get(secret).ok_or_else(ConsulErrorResponse::unknown_token)?;
        if token.auth_method.is_empty() {
            return Err(ConsulErrorResponse::denied("this token was not made by a login"));
        }
        let accessor = token.accessor.clone();
        self.drop_token(call, Some(&accessor), secret);
        Ok(HandlerResponse::done())
    }
}

fn add(links: &mut Vec<String>, found: Result<String, ConsulErrorResponse>) {
    if let Ok(id) = found
        && !links.contains(&id)
    {
        links.push(id);
    }
}

/// The token's description, with the login's metadata.
fn description(body: &Map<String, Value>) -> String {
    let made = "token created via login";
    match body.get("Meta").and_then(Value::as_object).filter(|meta| !meta.is_empty()) {
        // Go escapes these characters in JSON.
        Some(meta) => {
            let meta = Value::Object(meta.clone()).to_string();
            let meta = meta.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
            format!("{made}: {meta}")
        }
        None => made.to_owned(),
    }
}

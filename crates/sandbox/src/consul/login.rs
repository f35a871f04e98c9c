//! Login and logout: a token in exchange for an AWS identity, and its return.

use serde_json::{Map, Value};

use super::answer::{Answer, Outcome, Refusal};
use super::aws_iam::AwsIam;
use super::bearer::{AwsAnswer, Bearer, SignedCall};
use super::binding::{BindType, bound_name};
use super::decode::{self, Kind, Message, Unknown, text};
use super::grants::{Grants, NodeIdentity, ServiceIdentity, Template, TemplatedPolicy};
use super::identity::Identity;
use super::message::ConsulRequest;
use super::methods::AuthMethod;
use super::server::{Call, ConsulServer};
use super::tokens::Token;

const BODY: Message =
    Message(&[("AuthMethod", Kind::Text), ("BearerToken", Kind::Text), ("Meta", Kind::TextMap)]);
pub(super) const LOGIN: &str = "/v1/acl/login";

/// What a login gives.
struct Bindings {
    grants: Grants,
    roles: Vec<String>,
}

impl ConsulServer {
    /// The signed requests that have to be sent to AWS before this request can be answered: none unless it is a login
    /// that keeps the rules so far.
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
    ) -> Result<(Map<String, Value>, &AuthMethod, Bearer), Refusal> {
        let body = decode::body(&BODY, &request.body, Unknown::Dropped);
        let body = body.map_err(|what| Refusal::malformed(format!("the login can't be read: {what}")))?;
        if secret.is_some_and(|secret| !secret.is_empty()) {
            return Err(Refusal::invalid("a login comes without a token"));
        }
        let name = text(&body, "AuthMethod");
        let method = self.acl.method(name);
        let missing = || Refusal::denied(format!("ACL not found: there is no auth method {name:?}"));
        let method = method.ok_or_else(missing)?;
        let bearer = Bearer::read(text(&body, "BearerToken"), &method.aws).map_err(Refusal::invalid)?;
        Ok((body, method, bearer))
    }

    pub(super) fn login(&mut self, call: &Call<'_>, answers: &[Result<AwsAnswer, String>]) -> Outcome {
        let (body, method, _) = self.prepared(call.request, call.secret)?;
        let identity = Identity::of(&method.aws, answers).map_err(Refusal::invalid)?;
        let bindings = self.bindings(&method.name, &method.aws, &identity)?;
        let token = Token {
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
        };
        let token = Token { accessor: self.ids.uuid(), secret: self.ids.uuid(), ..token };
        Ok(Answer::Plain(self.store_token(None, token, call, None)))
    }

    fn bindings(&self, method: &str, aws: &AwsIam, identity: &Identity) -> Result<Bindings, Refusal> {
        let (selectable, variables) = (identity.selectable(), identity.variables(aws));
        let mut bindings = Bindings { grants: Grants::default(), roles: Vec::new() };
        let rules = self.acl.rules.values().filter(|rule| rule.is_of(method));
        for rule in rules.filter(|rule| rule.selects.selects(&selectable)) {
            let name = bound_name(rule.bind_type, &rule.bind_name, rule.bind_vars.as_deref(), &variables)
                .map_err(Refusal::invalid)?;
            match rule.bind_type {
                BindType::Service => {
                    bindings.grants.add_service(ServiceIdentity { name, datacenters: Vec::new() })?;
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
                // Rules bound to what does not exist give nothing.
                BindType::Role => add(&mut bindings.roles, self.acl.role_of("", &name)),
                BindType::Policy => add(&mut bindings.grants.policies, self.acl.policy_of("", &name)),
            }
        }
        if bindings.grants.is_empty() && bindings.roles.is_empty() {
            return Err(Refusal::denied("no binding rule gives this identity anything"));
        }
        Ok(bindings)
    }

    pub(super) fn logout(&mut self, call: &Call<'_>) -> Outcome {
        let secret = call.secret.ok_or_else(Refusal::no_token)?;
        let token = self.acl.tokens.get(secret).ok_or_else(Refusal::unknown_token)?;
        if token.auth_method.is_empty() {
            return Err(Refusal::denied("this token was not made by a login"));
        }
        let accessor = token.accessor.clone();
        self.drop_token(call, Some(&accessor), secret);
        Ok(Answer::done())
    }
}

fn add(links: &mut Vec<String>, found: Result<String, Refusal>) {
    if let Ok(id) = found
        && !links.contains(&id)
    {
        links.push(id);
    }
}

/// A token's description tells the metadata that came with its login.
fn description(body: &Map<String, Value>) -> String {
    let made = "token created via login";
    match body.get("Meta").and_then(Value::as_object).filter(|meta| !meta.is_empty()) {
        // Go escapes these in JSON, for HTML.
        Some(meta) => {
            let meta = Value::Object(meta.clone()).to_string();
            let meta = meta.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
            format!("{made}: {meta}")
        }
        None => made.to_owned(),
    }
}

//! Auth methods. Only `aws-iam` is supported.

use std::time::Duration;

use serde_json::{Map, Value, json};

use ecs_mesh_model::GoDuration;

use super::acl::key_of;
use super::aws_iam::AwsIam;
use super::decode::{self, JsonFieldKind, JsonMessage, UnknownFields, number, text};
use super::grants::is_plain_name;
use super::response::{ConsulErrorResponse, HandlerResponse, HandlerResult};
use super::server::{ConsulServer, RequestContext};

const BODY: JsonMessage = JsonMessage(&[
    ("Name", JsonFieldKind::Text),
    ("Type", JsonFieldKind::Text),
    ("DisplayName", JsonFieldKind::Text),
    ("Description", JsonFieldKind::Text),
    ("MaxTokenTTL", JsonFieldKind::Duration),
    ("TokenLocality", JsonFieldKind::Text),
    ("Config", JsonFieldKind::Object),
    ("CreateIndex", JsonFieldKind::Number),
    ("ModifyIndex", JsonFieldKind::Number),
]);

const TYPE: &str = "aws-iam";
const SHORTEST: Duration = Duration::from_mins(1);
const LONGEST: Duration = Duration::from_hours(24);

/// A stored auth method.
#[derive(Clone)]
pub(super) struct StoredAuthMethod {
    pub(super) name: String,
    display_name: String,
    description: String,
    /// Nanoseconds; 0 means no limit.
    max_ttl: i64,
    locality: String,
    /// The configuration of the request.
    config: Option<Value>,
    pub(super) aws: AwsIam,
    created: u64,
    modified: u64,
}

impl StoredAuthMethod {
    /// Lifetime of its tokens.
    pub(super) fn max_ttl(&self) -> Option<Duration> {
        u64::try_from(self.max_ttl).ok().filter(|ttl| *ttl > 0).map(Duration::from_nanos)
    }

    /// Whether its tokens are local to the datacenter.
    pub(super) fn makes_local_tokens(&self) -> bool {
        self.locality != "global"
    }

    /// The form in lists, without configuration.
    fn listed(&self) -> Value {
        let mut shown = json!({
            "Name": self.name,
            "Type": TYPE,
            "CreateIndex": self.created,
            "ModifyIndex": self.modified,
        });
        let texts = [
            ("DisplayName", &self.display_name),
            ("Description", &self.description),
            ("TokenLocality", &self.locality),
        ];
        for (field, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            shown[field] = json!(text);
        }
        if self.max_ttl != 0 {
            shown["MaxTokenTTL"] = json!(GoDuration(self.max_ttl).to_string());
        }
        shown
    }

    pub(super) fn shown(&self) -> Value {
        let mut shown = self.listed();
        shown["Config"] = self.config.clone().unwrap_or_default();
        shown
    }
}

impl ConsulServer {
    pub(super) fn list_methods(&self, call: &RequestContext<'_>) -> HandlerResult {
        self.acl_reader(call.secret)?;
        let shown = self.acl.methods.values().map(StoredAuthMethod::listed).collect();
        Ok(HandlerResponse::read(&shown, self.acl.changed.methods))
    }

    pub(super) fn read_method(&self, call: &RequestContext<'_>, name: &str) -> HandlerResult {
        self.acl_reader(call.secret)?;
        let method = self.acl.method(name).ok_or_else(|| ConsulErrorResponse::not_found("auth method"))?;
        Ok(HandlerResponse::read(&method.shown(), self.acl.changed.methods))
    }

    /// Creates or replaces an auth method, with or without a name in the URL.
    pub(super) fn write_method(&mut self, call: &RequestContext<'_>, name: Option<&str>) -> HandlerResult {
        let body = decode::body(&BODY, &call.request.body, UnknownFields::Refused);
        let body =
            body.map_err(|what| ConsulErrorResponse::malformed(format!("decoding the auth method: {what}")))?;
        let given = text(&body, "Name");
        let name = match name {
            Some(name) if !given.is_empty() && given != name => {
                let text = format!("the URL names the auth method {name:?}, the body {given:?}");
                return Err(ConsulErrorResponse::malformed(text));
            }
            Some(name) => name,
            None => given,
        };
        let caller = self.acl_writer(call.secret)?;
        let before = self.acl.method(name).cloned();
        let method = checked(name, before.as_ref(), &body).map_err(ConsulErrorResponse::invalid)?;
        let index = self.commit();
        let created = before.as_ref().map_or(index, |before| before.created);
        let method = StoredAuthMethod { created, modified: index, ..method };
        let shown = method.shown();
        self.record(
            call,
            &caller,
            "auth-method",
            name,
            before.map(|before| before.shown()),
            Some(shown.clone()),
        );
        self.acl.methods.insert(key_of(name), method);
        self.acl.changed.methods = index;
        Ok(HandlerResponse::Plain(shown))
    }

    /// Deletes an auth method with its tokens and binding rules.
    pub(super) fn delete_method(&mut self, call: &RequestContext<'_>, name: &str) -> HandlerResult {
        let caller = self.acl_writer(call.secret).map_err(|refusal| refusal.of_a_deletion("auth method"))?;
        let method = self
            .acl
            .methods
            .remove(&key_of(name))
            .ok_or_else(|| ConsulErrorResponse::not_found("auth method"))?;
        let index = self.commit();
        self.acl.changed.methods = index;
        self.record(call, &caller, "auth-method", name, Some(method.shown()), None);
        let tokens = self.acl.tokens.values().filter(|token| token.auth_method.eq_ignore_ascii_case(name));
        let secrets: Vec<String> = tokens.map(|token| token.secret.clone()).collect();
        for secret in secrets {
            if let Some(token) = self.acl.remove_token(&secret, index) {
                let before = token.shown(&self.acl, false);
                self.record(call, &caller, "token", &token.accessor, Some(before), None);
            }
        }
        let rules = self.acl.rules.values().filter(|rule| rule.is_of(name));
        let ids: Vec<String> = rules.map(|rule| rule.id.clone()).collect();
        for id in ids {
            if let Some(rule) = self.acl.rules.remove(&id) {
                self.acl.changed.rules = index;
                self.record(call, &caller, "binding-rule", &id, Some(rule.shown()), None);
            }
        }
        Ok(HandlerResponse::done())
    }
}

fn checked(
    name: &str,
    before: Option<&StoredAuthMethod>,
    body: &Map<String, Value>,
) -> Result<StoredAuthMethod, String> {
    if name.is_empty() {
        return Err("the auth method has no Name".to_owned());
    }
    if !is_plain_name(name, 128) {
        return Err(format!(
            "{name:?} is not a valid auth method name: letters, digits, '-' and '_' are allowed"
        ));
    }
    let kind = text(body, "Type");
    if kind != TYPE {
        return Err(match before {
            Some(_) => format!("the Type is {TYPE:?} and cannot change to {kind:?}"),
            None => format!("the Type is {kind:?}; {TYPE:?} is the one that is served"),
        });
    }
    let max_ttl = number(body, "MaxTokenTTL");
    let ttl = Duration::from_nanos(u64::try_from(max_ttl).unwrap_or(0));
    if max_ttl != 0 && !(SHORTEST..=LONGEST).contains(&ttl) {
        return Err(format!("MaxTokenTTL is {}; 1m to 24h are allowed", GoDuration(max_ttl)));
    }
    let locality = text(body, "TokenLocality");
    if !matches!(locality, "" | "local" | "global") {
        return Err(format!("TokenLocality is {locality:?}; \"local\" and \"global\" are allowed"));
    }
    let config = body.get("Config").cloned();
    let empty = Map::new();
    let aws = AwsIam::read(config.as_ref().and_then(Value::as_object).unwrap_or(&empty))?;
    Ok(StoredAuthMethod {
        name: name.to_owned(),
        display_name: text(body, "DisplayName").to_owned(),
        description: text(body, "Description").to_owned(),
        max_ttl,
        locality: locality.to_owned(),
        config,
        aws,
        created: 0,
        modified: 0,
    })
}

//! Tokens.

use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Map, Value, json};

use ecs_mesh_model::Timestamp;

use super::acl::AclStore;
use super::decode::{self, JsonFieldKind, JsonMessage, UnknownFields, flag, number, objects, text};
use super::grants::{Grants, LINK, NODE_IDENTITY, SERVICE_IDENTITY, TEMPLATED_POLICY};
use super::ids;
use super::permissions::{AccessLevel, Resource};
use super::policies::{GLOBAL_MANAGEMENT, uuid};
use super::response::{ConsulErrorResponse, HandlerResponse, HandlerResult};
use super::server::{ConsulServer, RequestContext};

/// The secret of the anonymous token.
pub(super) const ANONYMOUS: &str = "anonymous";
const ANONYMOUS_ACCESSOR: &str = "00000000-0000-0000-0000-000000000002";
/// Prefix of reserved ids.
const RESERVED: &str = "00000000-0000-0000-0000-0000000000";
/// Replacement for secrets in responses to callers without `acl:write`.
const HIDDEN: &str = "<hidden>";
const SHORTEST: Duration = Duration::from_mins(1);
const LONGEST: Duration = Duration::from_hours(24);

const BODY: JsonMessage = JsonMessage(&[
    ("AccessorID", JsonFieldKind::Text),
    ("SecretID", JsonFieldKind::Text),
    ("Description", JsonFieldKind::Text),
    ("Policies", JsonFieldKind::Messages(&LINK)),
    ("Roles", JsonFieldKind::Messages(&LINK)),
    ("ServiceIdentities", JsonFieldKind::Messages(&SERVICE_IDENTITY)),
    ("NodeIdentities", JsonFieldKind::Messages(&NODE_IDENTITY)),
    ("TemplatedPolicies", JsonFieldKind::Messages(&TEMPLATED_POLICY)),
    ("Local", JsonFieldKind::Bool),
    ("AuthMethod", JsonFieldKind::Text),
    ("ExpirationTime", JsonFieldKind::Text),
    ("ExpirationTTL", JsonFieldKind::Duration),
    ("CreateTime", JsonFieldKind::Text),
    ("Hash", JsonFieldKind::Any),
    ("CreateIndex", JsonFieldKind::Number),
    ("ModifyIndex", JsonFieldKind::Number),
]);

/// A stored token. Without `Debug`, since it contains a secret.
#[derive(Clone)]
pub(super) struct StoredToken {
    pub(super) accessor: String,
    pub(super) secret: String,
    pub(super) description: String,
    pub(super) grants: Grants,
    /// Ids of roles. Deleted roles are not shown.
    pub(super) roles: Vec<String>,
    pub(super) local: bool,
    /// The auth method of a login token; empty for other tokens.
    pub(super) auth_method: String,
    pub(super) expires: Option<Timestamp>,
    pub(super) made: Timestamp,
    pub(super) created: u64,
    pub(super) modified: u64,
    /// The hash of description and grants, once it was shown.
    pub(super) hash: OnceLock<String>,
}

/// The origin of a token, borrowed from the server.
#[derive(Clone, Copy, Debug)]
pub struct TokenSummary<'a> {
    /// Its description, which has a login's metadata.
    pub description: &'a str,
    /// The auth method of a login token; empty for other tokens.
    pub auth_method: &'a str,
    /// The service of its first service identity.
    pub service: Option<&'a str>,
}

impl StoredToken {
    pub(super) fn summary(&self) -> TokenSummary<'_> {
        TokenSummary {
            description: &self.description,
            auth_method: &self.auth_method,
            service: self.grants.services.first().map(|identity| identity.name.as_str()),
        }
    }

    fn blank(now: Timestamp) -> Self {
        Self {
            accessor: String::new(),
            secret: String::new(),
            description: String::new(),
            grants: Grants::default(),
            roles: Vec::new(),
            local: false,
            auth_method: String::new(),
            expires: None,
            made: now,
            created: 0,
            modified: 0,
            hash: OnceLock::new(),
        }
    }

    pub(super) fn shown(&self, acl: &AclStore, with_secret: bool) -> Value {
        let hash = self
            .hash
            .get_or_init(|| ids::hash(&[&self.description, &self.grants.digest(), &self.roles.join(",")]));
        let mut shown = json!({
            "AccessorID": self.accessor,
            "SecretID": if with_secret { self.secret.as_str() } else { HIDDEN },
            "Description": self.description,
            "Local": self.local,
            "CreateTime": self.made.to_string(),
            "Hash": hash,
            "CreateIndex": self.created,
            "ModifyIndex": self.modified,
        });
        self.grants.show(acl, &mut shown);
        let roles: Vec<Value> = self
            .roles
            .iter()
            .filter_map(|id| acl.roles.get(id))
            .map(|role| json!({"ID": role.id, "Name": role.name}))
            .collect();
        if !roles.is_empty() {
            shown["Roles"] = Value::Array(roles);
        }
        if !self.auth_method.is_empty() {
            shown["AuthMethod"] = json!(self.auth_method);
        }
        if let Some(until) = self.expires {
            shown["ExpirationTime"] = json!(until.to_string());
        }
        shown
    }
}

impl ConsulServer {
    /// Creates the anonymous token, and the management token if it is configured.
    pub(super) fn create_builtin_tokens(&mut self, now: Timestamp) {
        if let Some(secret) = self.config.management_token.clone() {
            self.create_management_token(now, secret, "Initial Management Token");
        }
        let index = self.commit();
        let anonymous = StoredToken {
            accessor: ANONYMOUS_ACCESSOR.to_owned(),
            secret: ANONYMOUS.to_owned(),
            description: "Anonymous Token".to_owned(),
            created: index,
            modified: index,
            ..StoredToken::blank(now)
        };
        self.acl.put_token(anonymous, index);
    }

    fn create_management_token(&mut self, now: Timestamp, secret: String, description: &str) -> StoredToken {
        let index = self.commit();
        let token = StoredToken {
            accessor: self.ids.uuid(),
            secret,
            description: description.to_owned(),
            grants: Grants { policies: vec![GLOBAL_MANAGEMENT.to_owned()], ..Grants::default() },
            created: index,
            modified: index,
            ..StoredToken::blank(now)
        };
        self.acl.put_token(token.clone(), index);
        token
    }

    pub(super) fn list_tokens(&self, call: &RequestContext<'_>) -> HandlerResult {
        let caller = self.acl_reader(call.secret)?;
        let with_secret = caller.may(Resource::Acl, "", AccessLevel::Write);
        let wanted = |name: &str, found: &[&str]| {
            let wanted = call.target.parameter(name);
            wanted.is_empty() || found.contains(&wanted)
        };
        let tokens = self.acl.tokens.values().filter(|token| {
            let services = token.grants.services.iter().map(|identity| identity.name.as_str());
            let method = call.target.parameter("authmethod");
            (method.is_empty() || token.auth_method.eq_ignore_ascii_case(method))
                && wanted("role", &strs(&token.roles))
                && wanted("policy", &strs(&token.grants.policies))
                && wanted("servicename", &services.collect::<Vec<_>>())
        });
        let shown = tokens.map(|token| token.shown(&self.acl, with_secret)).collect();
        Ok(HandlerResponse::read(&shown, self.acl.changed.tokens))
    }

    pub(super) fn read_token(&self, call: &RequestContext<'_>, accessor: &str) -> HandlerResult {
        let caller = self.acl_reader(call.secret)?;
        uuid(accessor)?;
        let with_secret = caller.may(Resource::Acl, "", AccessLevel::Write);
        self.token_read(call, self.acl.token(accessor), with_secret)
    }

    /// Reads the caller's own token, which needs no permission.
    pub(super) fn read_own_token(&self, call: &RequestContext<'_>) -> HandlerResult {
        self.token_read(call, self.acl.tokens.get(call.secret.unwrap_or_default()), true)
    }

    fn token_read(
        &self,
        call: &RequestContext<'_>,
        found: Option<&StoredToken>,
        with_secret: bool,
    ) -> HandlerResult {
        let missing = || ConsulErrorResponse::denied("ACL not found: there is no such token");
        let token = found.ok_or_else(missing)?;
        let mut shown = token.shown(&self.acl, with_secret);
        if call.target.parameter("expanded") == "true" {
            self.expand(token, &mut shown);
        }
        Ok(HandlerResponse::read(&shown, self.acl.changed.tokens))
    }

    /// Creates a token, or replaces the one with this accessor.
    pub(super) fn write_token(&mut self, call: &RequestContext<'_>, accessor: Option<&str>) -> HandlerResult {
        let body = decode::body(&BODY, &call.request.body, UnknownFields::Refused);
        let body =
            body.map_err(|what| ConsulErrorResponse::malformed(format!("decoding the token: {what}")))?;
        let given = text(&body, "AccessorID");
        if accessor.is_some_and(|accessor| !given.is_empty() && given != accessor) {
            return Err(ConsulErrorResponse::malformed(format!(
                "the URL and the body, with {given:?}, name two tokens"
            )));
        }
        let caller = self.acl_writer(call.secret)?;
        let (before, token) = match accessor {
            Some(accessor) => {
                let (before, token) = self.changed_token(accessor, &body)?;
                (Some(before), token)
            }
            None => (None, self.new_token(call.now, &body)?),
        };
        let shown = self.store_token(before.as_ref(), token, call, caller.accessor.as_deref());
        Ok(HandlerResponse::Plain(shown))
    }

    /// Stores a token, records it in the journal, and returns its response form.
    pub(super) fn store_token(
        &mut self,
        before: Option<&StoredToken>,
        token: StoredToken,
        call: &RequestContext<'_>,
        by: Option<&str>,
    ) -> Value {
        let index = self.commit();
        let created = before.map_or(index, |before| before.created);
        let token = StoredToken { created, modified: index, ..token };
        let shown = token.shown(&self.acl, true);
        let before = before.map(|before| before.shown(&self.acl, false));
        let after = token.shown(&self.acl, false);
        self.record_by(call, by, "token", &token.accessor, before, Some(after));
        self.acl.put_token(token, index);
        shown
    }

    fn new_token(
        &mut self,
        now: Timestamp,
        body: &Map<String, Value>,
    ) -> Result<StoredToken, ConsulErrorResponse> {
        if !text(body, "AuthMethod").is_empty() {
            return Err(ConsulErrorResponse::invalid("only a login makes tokens with an AuthMethod"));
        }
        Ok(StoredToken {
            accessor: self.chosen_id("AccessorID", text(body, "AccessorID"))?,
            secret: self.chosen_id("SecretID", text(body, "SecretID"))?,
            expires: expiry(now, body)?,
            local: flag(body, "Local"),
            ..self.given(body, StoredToken::blank(now))?
        })
    }

    /// The requested id, or a new one.
    fn chosen_id(&mut self, what: &str, given: &str) -> Result<String, ConsulErrorResponse> {
        if given.is_empty() {
            return Ok(self.ids.uuid());
        }
        if !ids::is_uuid(given) {
            return Err(ConsulErrorResponse::invalid(format!("the {what} is not a UUID")));
        }
        if self.acl.secrets.contains_key(given) || self.acl.tokens.contains_key(given) {
            return Err(ConsulErrorResponse::invalid(format!("the {what} is in use already")));
        }
        if given.starts_with(RESERVED) {
            return Err(ConsulErrorResponse::invalid(format!("ids that begin with {RESERVED} are reserved")));
        }
        Ok(given.to_owned())
    }

    fn changed_token(
        &self,
        accessor: &str,
        body: &Map<String, Value>,
    ) -> Result<(StoredToken, StoredToken), ConsulErrorResponse> {
        uuid(accessor)?;
        let before = self.acl.token(accessor).cloned();
        let before =
            before.ok_or_else(|| ConsulErrorResponse::invalid(format!("there is no token {accessor}")))?;
        let immutable = |what: &str| {
            ConsulErrorResponse::invalid(format!("{what} of the token {accessor} cannot change"))
        };
        let differs = |field: &str, stored: &str| {
            let given = text(body, field);
            !given.is_empty() && given != stored
        };
        if differs("SecretID", &before.secret) {
            return Err(immutable("the SecretID"));
        }
        if differs("AuthMethod", &before.auth_method) {
            return Err(immutable("the AuthMethod"));
        }
        if flag(body, "Local") != before.local {
            return Err(immutable("whether it is local"));
        }
        let until = text(body, "ExpirationTime");
        let moved = !until.is_empty() && Timestamp::parse(until) != before.expires;
        if moved || number(body, "ExpirationTTL") != 0 {
            return Err(immutable("the expiry"));
        }
        let token = self.given(body, before.clone())?;
        Ok((before, token))
    }

    /// The token with the fields of the body.
    fn given(
        &self,
        body: &Map<String, Value>,
        token: StoredToken,
    ) -> Result<StoredToken, ConsulErrorResponse> {
        let mut roles: Vec<String> = Vec::new();
        for link in objects(body, "Roles") {
            let id = self.acl.role_of(text(link, "ID"), text(link, "Name"))?;
            if !roles.contains(&id) {
                roles.push(id);
            }
        }
        let grants = Grants::read(&self.acl, body)?;
        let description = text(body, "Description").to_owned();
        Ok(StoredToken { description, grants, roles, hash: OnceLock::new(), ..token })
    }

    pub(super) fn delete_token(&mut self, call: &RequestContext<'_>, accessor: &str) -> HandlerResult {
        uuid(accessor)?;
        let caller = self.acl_writer(call.secret).map_err(|refusal| refusal.of_a_deletion("token"))?;
        if accessor == ANONYMOUS_ACCESSOR {
            return Err(ConsulErrorResponse::invalid("the anonymous token cannot be deleted"));
        }
        let token = self.acl.token(accessor).ok_or_else(|| ConsulErrorResponse::not_found("token"))?;
        if Some(token.secret.as_str()) == call.secret {
            return Err(ConsulErrorResponse::invalid("a token cannot delete itself"));
        }
        let secret = token.secret.clone();
        self.drop_token(call, caller.accessor.as_deref(), &secret);
        Ok(HandlerResponse::done())
    }

    pub(super) fn drop_token(&mut self, call: &RequestContext<'_>, by: Option<&str>, secret: &str) {
        let index = self.commit();
        if let Some(token) = self.acl.remove_token(secret, index) {
            let before = token.shown(&self.acl, false);
            self.record_by(call, by, "token", &token.accessor, Some(before), None);
        }
    }
}

fn strs(list: &[String]) -> Vec<&str> {
    list.iter().map(String::as_str).collect()
}

fn expiry(now: Timestamp, body: &Map<String, Value>) -> Result<Option<Timestamp>, ConsulErrorResponse> {
    let (ttl, time) = (number(body, "ExpirationTTL"), text(body, "ExpirationTime"));
    let until = match (ttl, time) {
        (0, "") => return Ok(None),
        (0, time) => Timestamp::parse(time).ok_or_else(|| {
            ConsulErrorResponse::malformed(format!("ExpirationTime is {time:?}, which is not a time"))
        })?,
        (ttl, "") => now.plus(Duration::from_nanos(u64::try_from(ttl).unwrap_or(0))),
        _ => return Err(ConsulErrorResponse::invalid("give ExpirationTTL or ExpirationTime, not both")),
    };
    let life = now.age_at(until);
    if life < SHORTEST || life > LONGEST {
        return Err(ConsulErrorResponse::invalid(format!(
            "a token lives from 1m to 24h, not {} s",
            life.as_secs()
        )));
    }
    Ok(Some(until))
}

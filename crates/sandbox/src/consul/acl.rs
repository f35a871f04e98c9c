//! ACL objects and the caller of a request.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use ecs_mesh_model::Timestamp;

use super::binding::StoredBindingRule;
use super::decode::{self, JsonFieldKind, JsonMessage, UnknownFields, text};
use super::grants::Grants;
use super::ids;
use super::methods::StoredAuthMethod;
use super::permissions::{self, AccessLevel, Permissions, PolicyRule, Resource};
use super::policies::{GLOBAL_MANAGEMENT, StoredPolicy};
use super::response::{ConsulErrorResponse, HandlerResponse, HandlerResult};
use super::roles::StoredRole;
use super::server::{ConsulServer, NODE_NAME, RequestContext};
use super::tokens::{ANONYMOUS, StoredToken};

/// The stored ACL objects, with the index of each table's last change.
#[derive(Default)]
pub(super) struct AclStore {
    pub(super) policies: BTreeMap<String, StoredPolicy>,
    pub(super) roles: BTreeMap<String, StoredRole>,
    /// Tokens by secret, in the order of lists.
    pub(super) tokens: BTreeMap<String, StoredToken>,
    /// Secrets by accessor.
    pub(super) secrets: BTreeMap<String, String>,
    /// Auth methods by [`key_of`] their name.
    pub(super) methods: BTreeMap<String, StoredAuthMethod>,
    pub(super) rules: BTreeMap<String, StoredBindingRule>,
    /// Expiring tokens by expiry.
    pub(super) expiring: BTreeSet<(Timestamp, String)>,
    pub(super) changed: AclIndexes,
}

/// Index of the last change of each table.
#[derive(Clone, Copy, Default)]
pub(super) struct AclIndexes {
    pub(super) policies: u64,
    pub(super) roles: u64,
    pub(super) tokens: u64,
    pub(super) methods: u64,
    pub(super) rules: u64,
}

/// The key of an auth method: names ignore case.
pub(super) fn key_of(method: &str) -> String {
    method.to_ascii_lowercase()
}

impl AclStore {
    /// The auth method with this name.
    pub(super) fn method(&self, name: &str) -> Option<&StoredAuthMethod> {
        self.methods.get(&key_of(name))
    }

    /// The id of a policy by a link's id or name.
    pub(super) fn policy_of(&self, id: &str, name: &str) -> Result<String, ConsulErrorResponse> {
        if id.is_empty() {
            let found = self.policies.values().find(|policy| policy.name == name);
            return found.map(|policy| policy.id.clone()).ok_or_else(|| {
                ConsulErrorResponse::invalid(format!("there is no policy with the name {name:?}"))
            });
        }
        match self.policies.get(id) {
            Some(policy) => Ok(policy.id.clone()),
            None => Err(ConsulErrorResponse::invalid(format!("there is no policy with the id {id:?}"))),
        }
    }

    /// The id of a role by a link's id or name.
    pub(super) fn role_of(&self, id: &str, name: &str) -> Result<String, ConsulErrorResponse> {
        let found = if id.is_empty() {
            self.roles.values().find(|role| role.name == name)
        } else {
            self.roles.get(id)
        };
        found.map(|role| role.id.clone()).ok_or_else(|| {
            ConsulErrorResponse::invalid(format!("there is no role with the id {id:?} or the name {name:?}"))
        })
    }

    pub(super) fn token(&self, accessor: &str) -> Option<&StoredToken> {
        self.tokens.get(self.secrets.get(accessor)?)
    }

    pub(super) fn put_token(&mut self, token: StoredToken, index: u64) {
        if let Some(until) = token.expires {
            self.expiring.insert((until, token.secret.clone()));
        }
        self.secrets.insert(token.accessor.clone(), token.secret.clone());
        self.tokens.insert(token.secret.clone(), token);
        self.changed.tokens = index;
    }

    pub(super) fn remove_token(&mut self, secret: &str, index: u64) -> Option<StoredToken> {
        let token = self.tokens.remove(secret)?;
        self.secrets.remove(&token.accessor);
        if let Some(until) = token.expires {
            self.expiring.remove(&(until, token.secret.clone()));
        }
        self.changed.tokens = index;
        Some(token)
    }

    /// Adds the rules of all granted policies, each once.
    fn rules_of(&self, grants: &Grants, datacenter: &str, permissions: &mut Permissions) {
        for policy in grants.policies.iter().filter_map(|id| self.policies.get(id)) {
            if policy.holds_in(datacenter) {
                permissions.add(&policy.parsed);
            }
        }
        for policy in grants.synthetic(datacenter) {
            // Rules of built-in policies are valid.
            let rules: Vec<PolicyRule> = permissions::parse(&policy.rules).unwrap_or_default();
            permissions.add(&rules);
        }
    }
}

/// The caller of a request, with its permissions.
pub(super) struct AclCaller {
    /// Accessor of its token; `None` for the anonymous token.
    pub(super) accessor: Option<String>,
    /// Its permissions; `None` if ACLs are disabled.
    permissions: Option<Permissions>,
}

impl AclCaller {
    pub(super) fn may(&self, resource: Resource, name: &str, level: AccessLevel) -> bool {
        self.permissions.as_ref().is_none_or(|permissions| permissions.allow(resource, name, level))
    }

    pub(super) fn require(
        &self,
        resource: Resource,
        name: &str,
        level: AccessLevel,
    ) -> Result<(), ConsulErrorResponse> {
        if self.may(resource, name, level) {
            return Ok(());
        }
        let who = match &self.accessor {
            Some(accessor) => format!("the token with the accessor {accessor}"),
            None => "the anonymous token, which stands for requests without one,".to_owned(),
        };
        let level = match level {
            AccessLevel::Read => "read",
            AccessLevel::List => "list",
            _ => "write",
        };
        let word = resource.word();
        let on = if name.is_empty() { String::new() } else { format!(" on {name:?}") };
        Err(ConsulErrorResponse::denied(format!("Permission denied: {who} lacks {word}:{level}{on}")))
    }

    /// Whether responses report that results were filtered. They do not for the anonymous token.
    pub(super) fn reports_filtering(&self) -> bool {
        self.accessor.is_some()
    }
}

/// Maximum number of checks of one request.
const MAX_AUTHORIZE_CHECKS: usize = 64;

const QUESTION: JsonMessage = JsonMessage(&[
    ("Resource", JsonFieldKind::Text),
    ("Segment", JsonFieldKind::Text),
    ("Access", JsonFieldKind::Text),
]);

impl ConsulServer {
    /// Handles `/v1/internal/acl/authorize`: whether the caller has each permission.
    pub(super) fn authorize(&self, call: &RequestContext<'_>) -> HandlerResult {
        let caller = self.caller(call.secret)?;
        let questions: Vec<Value> = serde_json::from_slice(&call.request.body)
            .map_err(|error| ConsulErrorResponse::malformed(format!("decoding the questions: {error}")))?;
        if questions.len() > MAX_AUTHORIZE_CHECKS {
            return Err(ConsulErrorResponse::malformed(format!(
                "more than {MAX_AUTHORIZE_CHECKS} questions at once"
            )));
        }
        let mut answers = Vec::new();
        for question in &questions {
            let mut question = decode::object(&QUESTION, question, UnknownFields::Refused)
                .map_err(|what| ConsulErrorResponse::malformed(format!("decoding a question: {what}")))?;
            let unknown = |what: &str| {
                ConsulErrorResponse::malformed(format!("{:?} is no {what}", text(&question, what)))
            };
            let resource =
                Resource::from_name(text(&question, "Resource")).ok_or_else(|| unknown("Resource"))?;
            let level = AccessLevel::from_name(text(&question, "Access")).ok_or_else(|| unknown("Access"))?;
            let allowed = caller.may(resource, text(&question, "Segment"), level);
            question.insert("Allow".to_owned(), allowed.into());
            answers.push(Value::Object(question));
        }
        Ok(HandlerResponse::Plain(Value::Array(answers)))
    }

    /// The caller with this secret.
    pub(super) fn caller(&self, secret: Option<&str>) -> Result<AclCaller, ConsulErrorResponse> {
        if !self.config.acls_enabled {
            return Ok(AclCaller { accessor: None, permissions: None });
        }
        let given = secret.filter(|secret| !secret.is_empty());
        let token =
            self.acl.tokens.get(given.unwrap_or(ANONYMOUS)).ok_or_else(ConsulErrorResponse::unknown_token)?;
        let accessor = given.map(|_| token.accessor.clone());
        let roles: Vec<&StoredRole> = token.roles.iter().filter_map(|id| self.acl.roles.get(id)).collect();
        let given = || std::iter::once(&token.grants).chain(roles.iter().map(|role| &role.grants));
        if given().any(|grants| grants.policies.iter().any(|id| id == GLOBAL_MANAGEMENT)) {
            return Ok(AclCaller { accessor, permissions: None });
        }
        let mut permissions = Permissions::default();
        for grants in given() {
            self.acl.rules_of(grants, &self.config.datacenter, &mut permissions);
        }
        Ok(AclCaller { accessor, permissions: Some(permissions) })
    }

    /// The caller, if it may write ACL objects.
    pub(super) fn acl_writer(&self, secret: Option<&str>) -> Result<AclCaller, ConsulErrorResponse> {
        let caller = self.caller(secret)?;
        caller.require(Resource::Acl, "", AccessLevel::Write)?;
        Ok(caller)
    }

    pub(super) fn acl_reader(&self, secret: Option<&str>) -> Result<AclCaller, ConsulErrorResponse> {
        let caller = self.caller(secret)?;
        caller.require(Resource::Acl, "", AccessLevel::Read)?;
        Ok(caller)
    }

    /// Adds the fields of `?expanded` to a token.
    pub(super) fn expand(&self, token: &StoredToken, shown: &mut Value) {
        let policies = |grants: &Grants| {
            let stored =
                grants.policies.iter().filter_map(|id| self.acl.policies.get(id)).map(StoredPolicy::shown);
            let synthetic = grants.synthetic(&self.config.datacenter).into_iter().map(|policy| {
                let digest = ids::hash(&[&policy.rules]);
                let id = ids::hex(&policy.rules) + &ids::hex(&digest[..16]);
                json!({
                    "Name": format!("synthetic-policy-{id}"),
                    "ID": id,
                    "Description": policy.description,
                    "Rules": policy.rules,
                    "Hash": digest,
                    "CreateIndex": 0,
                    "ModifyIndex": 0,
                })
            });
            stored.chain(synthetic).collect::<Vec<Value>>()
        };
        let roles: Vec<&StoredRole> = token.roles.iter().filter_map(|id| self.acl.roles.get(id)).collect();
        let mut all: Vec<Value> = Vec::new();
        for grants in std::iter::once(&token.grants).chain(roles.iter().map(|role| &role.grants)) {
            for policy in policies(grants) {
                if !all.contains(&policy) {
                    all.push(policy);
                }
            }
        }
        let list = |list: Vec<Value>| if list.is_empty() { Value::Null } else { Value::Array(list) };
        shown["ExpandedPolicies"] = list(all);
        shown["ExpandedRoles"] = list(roles.iter().map(|role| role.shown(&self.acl)).collect());
        shown["NamespaceDefaultPolicyIDs"] = Value::Null;
        shown["NamespaceDefaultRoleIDs"] = Value::Null;
        shown["AgentACLDefaultPolicy"] = json!("deny");
        shown["AgentACLDownPolicy"] = json!("extend-cache");
        shown["ResolvedByAgent"] = json!(NODE_NAME);
    }
}

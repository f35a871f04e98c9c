//! The ACL objects, and who a request comes from.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use ecs_mesh_model::Timestamp;

use super::response::{HandlerResponse, HandlerResult, ConsulErrorResponse};
use super::binding::StoredBindingRule;
use super::decode::{self, JsonFieldKind, JsonMessage, UnknownFields, text};
use super::grants::Grants;
use super::ids;
use super::methods::StoredAuthMethod;
use super::policies::{GLOBAL_MANAGEMENT, StoredPolicy};
use super::permissions::{self, AccessLevel, Permissions, Resource, PolicyRule};
use super::roles::StoredRole;
use super::server::{RequestContext, ConsulServer};
use super::tokens::{ANONYMOUS, StoredToken};

/// The stored objects, each table with the index of its last change.
#[derive(Default)]
pub(super) struct AclStore {
    pub(super) policies: BTreeMap<String, StoredPolicy>,
    pub(super) roles: BTreeMap<String, StoredRole>,
    /// By secret, the order in which they are listed.
    pub(super) tokens: BTreeMap<String, StoredToken>,
    /// Secrets by accessor.
    pub(super) secrets: BTreeMap<String, String>,
    /// By name, as [`key_of`] has it.
    pub(super) methods: BTreeMap<String, StoredAuthMethod>,
    pub(super) rules: BTreeMap<String, StoredBindingRule>,
    /// Tokens that end, by when.
    pub(super) expiring: BTreeSet<(Timestamp, String)>,
    pub(super) changed: AclIndexes,
    pub(super) bootstrapped_at: u64,
}

/// When each table last changed.
#[derive(Clone, Copy, Default)]
pub(super) struct AclIndexes {
    pub(super) policies: u64,
    pub(super) roles: u64,
    pub(super) tokens: u64,
    pub(super) methods: u64,
    pub(super) rules: u64,
}

/// Names of auth methods that differ in case alone are one method's.
pub(super) fn key_of(method: &str) -> String {
    method.to_ascii_lowercase()
}

impl AclStore {
    /// The auth method of this name.
    pub(super) fn method(&self, name: &str) -> Option<&StoredAuthMethod> {
        self.methods.get(&key_of(name))
    }

    /// The id of a policy by a link's id or name.
    pub(super) fn policy_of(&self, id: &str, name: &str) -> Result<String, ConsulErrorResponse> {
        if id.is_empty() {
            let found = self.policies.values().find(|policy| policy.name == name);
            return found
                .map(|policy| policy.id.clone())
                .ok_or_else(|| ConsulErrorResponse::invalid(format!("there is no policy with the name {name:?}")));
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

    /// The rules of everything that is given, each policy once.
    fn rules_of(&self, grants: &Grants, datacenter: &str, powers: &mut Permissions) {
        for policy in grants.policies.iter().filter_map(|id| self.policies.get(id)) {
            if policy.holds_in(datacenter) {
                powers.add(&policy.parsed);
            }
        }
        for policy in grants.synthetic(datacenter) {
            // Their rules are the server's own.
            let rules: Vec<PolicyRule> = permissions::parse(&policy.rules).unwrap_or_default();
            powers.add(&rules);
        }
    }
}

/// Who asks, and what they may do.
pub(super) struct AclCaller {
    /// Nothing for nobody in particular.
    pub(super) accessor: Option<String>,
    /// Nothing where all is allowed.
    powers: Option<Permissions>,
}

impl AclCaller {
    pub(super) fn may(&self, resource: Resource, name: &str, level: AccessLevel) -> bool {
        self.powers.as_ref().is_none_or(|powers| powers.allow(resource, name, level))
    }

    pub(super) fn require(&self, resource: Resource, name: &str, level: AccessLevel) -> Result<(), ConsulErrorResponse> {
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

    /// Whether it is told that something was left out: whoever gave no token is not.
    pub(super) fn is_told(&self) -> bool {
        self.accessor.is_some()
    }
}

/// The most questions of one call.
const MOST_QUESTIONS: usize = 64;

const QUESTION: JsonMessage =
    JsonMessage(&[("Resource", JsonFieldKind::Text), ("Segment", JsonFieldKind::Text), ("Access", JsonFieldKind::Text)]);

impl ConsulServer {
    /// Says of each right that is asked for whether the caller has it.
    pub(super) fn authorize(&self, call: &RequestContext<'_>) -> HandlerResult {
        let caller = self.caller(call.secret)?;
        let questions: Vec<Value> = serde_json::from_slice(&call.request.body)
            .map_err(|error| ConsulErrorResponse::malformed(format!("the questions can't be read: {error}")))?;
        if questions.len() > MOST_QUESTIONS {
            return Err(ConsulErrorResponse::malformed(format!("more than {MOST_QUESTIONS} questions at once")));
        }
        let mut answers = Vec::new();
        for question in &questions {
            let mut question = decode::object(&QUESTION, question, UnknownFields::Refused)
                .map_err(|what| ConsulErrorResponse::malformed(format!("a question can't be read: {what}")))?;
            let unknown =
                |what: &str| ConsulErrorResponse::malformed(format!("{:?} is no {what}", text(&question, what)));
            let resource =
                Resource::of_word(text(&question, "Resource")).ok_or_else(|| unknown("Resource"))?;
            let level = AccessLevel::of_word(text(&question, "Access")).ok_or_else(|| unknown("Access"))?;
            let allowed = caller.may(resource, text(&question, "Segment"), level);
            question.insert("Allow".to_owned(), allowed.into());
            answers.push(Value::Object(question));
        }
        Ok(HandlerResponse::Plain(Value::Array(answers)))
    }

    /// Who the secret stands for.
    pub(super) fn caller(&self, secret: Option<&str>) -> Result<AclCaller, ConsulErrorResponse> {
        if !self.config.acls_enabled {
            return Ok(AclCaller { accessor: None, powers: None });
        }
        let given = secret.filter(|secret| !secret.is_empty());
        let token = self.acl.tokens.get(given.unwrap_or(ANONYMOUS)).ok_or_else(ConsulErrorResponse::unknown_token)?;
        let accessor = given.map(|_| token.accessor.clone());
        let roles: Vec<&StoredRole> = token.roles.iter().filter_map(|id| self.acl.roles.get(id)).collect();
        let given = || std::iter::once(&token.grants).chain(roles.iter().map(|role| &role.grants));
        if given().any(|grants| grants.policies.iter().any(|id| id == GLOBAL_MANAGEMENT)) {
            return Ok(AclCaller { accessor, powers: None });
        }
        let mut powers = Permissions::new(!self.config.deny_by_default);
        for grants in given() {
            self.acl.rules_of(grants, &self.config.datacenter, &mut powers);
        }
        Ok(AclCaller { accessor, powers: Some(powers) })
    }

    /// Who asks, when they may change ACL objects.
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

    /// What `?expanded` adds to a token.
    pub(super) fn expand(&self, token: &StoredToken, shown: &mut Value) {
        let policies = |grants: &Grants| {
            let stored = grants.policies.iter().filter_map(|id| self.acl.policies.get(id)).map(StoredPolicy::shown);
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
        shown["AgentACLDefaultPolicy"] = json!(if self.config.deny_by_default { "deny" } else { "allow" });
        shown["AgentACLDownPolicy"] = json!("extend-cache");
        shown["ResolvedByAgent"] = json!(self.config.node_name);
    }
}

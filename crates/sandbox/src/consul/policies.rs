//! Policies: named lists of rules.

use serde_json::{Map, Value, json};

use super::decode::{self, JsonFieldKind, JsonMessage, UnknownFields, text, texts};
use super::ids;
use super::permissions::{self, PolicyRule};
use super::response::{ConsulErrorResponse, HandlerResponse, HandlerResult};
use super::server::{ConsulServer, RequestContext};

/// Id of the policy `global-management`.
pub(super) const GLOBAL_MANAGEMENT: &str = "00000000-0000-0000-0000-000000000001";
const READ_ONLY: &str = "00000000-0000-0000-0000-000000000002";

const BODY: JsonMessage = JsonMessage(&[
    ("ID", JsonFieldKind::Text),
    ("Name", JsonFieldKind::Text),
    ("Description", JsonFieldKind::Text),
    ("Rules", JsonFieldKind::Text),
    ("Datacenters", JsonFieldKind::Texts),
    ("Hash", JsonFieldKind::Any),
    ("CreateIndex", JsonFieldKind::Number),
    ("ModifyIndex", JsonFieldKind::Number),
]);

/// A stored policy.
#[derive(Clone)]
pub(super) struct StoredPolicy {
    pub(super) id: String,
    pub(super) name: String,
    description: String,
    rules: String,
    pub(super) parsed: Vec<PolicyRule>,
    datacenters: Vec<String>,
    created: u64,
    modified: u64,
}

impl StoredPolicy {
    pub(super) fn holds_in(&self, datacenter: &str) -> bool {
        self.datacenters.is_empty() || self.datacenters.iter().any(|known| known == datacenter)
    }

    pub(super) fn shown(&self) -> Value {
        let mut shown = self.listed();
        shown["Rules"] = json!(self.rules);
        if self.datacenters.is_empty() {
            shown.as_object_mut().map(|shown| shown.remove("Datacenters"));
        }
        shown
    }

    /// The form in lists, without rules.
    fn listed(&self) -> Value {
        let datacenters = self.datacenters.join(",");
        json!({
            "ID": self.id,
            "Name": self.name,
            "Description": self.description,
            "Datacenters": if self.datacenters.is_empty() { Value::Null } else { json!(self.datacenters) },
            "Hash": ids::hash(&[&self.name, &self.description, &self.rules, &datacenters]),
            "CreateIndex": self.created,
            "ModifyIndex": self.modified,
        })
    }
}

/// Rules that give this level for every resource.
fn everything(level: &str) -> String {
    let named = ["agent", "event", "key", "node", "query", "service", "session"];
    let named = named.map(|word| format!("{word}_prefix \"\" {{\n  policy = \"{level}\"\n}}\n"));
    let others = ["acl", "keyring", "mesh", "operator", "peering"];
    named.concat() + &others.map(|word| format!("{word} = \"{level}\"\n")).concat()
}

impl ConsulServer {
    /// Creates the built-in policies.
    pub(super) fn create_builtin_policies(&mut self) {
        let builtin = [
            (GLOBAL_MANAGEMENT, "global-management", "read and write access to everything", "write"),
            (READ_ONLY, "builtin/global-read-only", "read access to everything", "read"),
        ];
        for (id, name, what, level) in builtin {
            let (rules, index) = (everything(level), self.commit());
            let policy = StoredPolicy {
                id: id.to_owned(),
                name: name.to_owned(),
                description: format!("A policy of the server's own that grants {what}"),
                parsed: permissions::parse(&rules).unwrap_or_default(),
                rules,
                datacenters: Vec::new(),
                created: index,
                modified: index,
            };
            self.acl.policies.insert(id.to_owned(), policy);
            self.acl.changed.policies = index;
        }
    }

    pub(super) fn list_policies(&self, call: &RequestContext<'_>) -> HandlerResult {
        self.acl_reader(call.secret)?;
        let mut policies: Vec<&StoredPolicy> = self.acl.policies.values().collect();
        policies.sort_by(|a, b| a.name.cmp(&b.name));
        let shown = policies.into_iter().map(StoredPolicy::listed).collect();
        Ok(HandlerResponse::read(&shown, self.acl.changed.policies))
    }

    pub(super) fn read_policy(&self, call: &RequestContext<'_>, id: &str) -> HandlerResult {
        self.acl_reader(call.secret)?;
        uuid(id)?;
        self.policy_read(self.acl.policies.get(id))
    }

    pub(super) fn read_policy_by_name(&self, call: &RequestContext<'_>, name: &str) -> HandlerResult {
        self.acl_reader(call.secret)?;
        self.policy_read(self.acl.policies.values().find(|policy| policy.name == name))
    }

    fn policy_read(&self, found: Option<&StoredPolicy>) -> HandlerResult {
        let policy = found.ok_or_else(|| ConsulErrorResponse::not_found("policy"))?;
        Ok(HandlerResponse::read(&policy.shown(), self.acl.changed.policies))
    }

    /// Creates a policy, or replaces the one with this id.
    pub(super) fn write_policy(&mut self, call: &RequestContext<'_>, id: Option<&str>) -> HandlerResult {
        let body = decode::body(&BODY, &call.request.body, UnknownFields::Refused);
        let body =
            body.map_err(|what| ConsulErrorResponse::malformed(format!("decoding the policy: {what}")))?;
        same_id(id, text(&body, "ID"), "a policy")?;
        let caller = self.acl_writer(call.secret)?;
        let (before, policy) = self.checked_policy(id, &body)?;
        let index = self.commit();
        let policy = StoredPolicy {
            created: before.as_ref().map_or(index, |before| before.created),
            modified: index,
            ..policy
        };
        let shown = policy.shown();
        self.record(
            call,
            &caller,
            "policy",
            &policy.id,
            before.map(|before| before.shown()),
            Some(shown.clone()),
        );
        self.acl.policies.insert(policy.id.clone(), policy);
        self.acl.changed.policies = index;
        Ok(HandlerResponse::Plain(shown))
    }

    fn checked_policy(
        &mut self,
        id: Option<&str>,
        body: &Map<String, Value>,
    ) -> Result<(Option<StoredPolicy>, StoredPolicy), ConsulErrorResponse> {
        let name = text(body, "Name");
        if name.is_empty() {
            return Err(ConsulErrorResponse::invalid("the policy has no Name"));
        }
        if !is_policy_name(name) {
            return Err(ConsulErrorResponse::invalid(format!(
                "{name:?} is not a valid policy name: letters, digits, '-', '_' and one '/' are allowed"
            )));
        }
        let before = match id {
            Some(id) => {
                uuid(id)?;
                let found = self.acl.policies.get(id).cloned();
                Some(found.ok_or_else(|| ConsulErrorResponse::invalid(format!("there is no policy {id}")))?)
            }
            None => None,
        };
        let other = self.acl.policies.values().find(|policy| policy.name == name);
        if other.is_some_and(|other| Some(other.id.as_str()) != id) {
            return Err(ConsulErrorResponse::invalid(format!(
                "there is a policy with the name {name:?} already"
            )));
        }
        let rules = text(body, "Rules").to_owned();
        if before.as_ref().is_some_and(|before| is_builtin(&before.id) && before.rules != rules) {
            return Err(ConsulErrorResponse::invalid(
                "the rules of the server's own policies cannot be changed",
            ));
        }
        let policy = StoredPolicy {
            id: id.map_or_else(|| self.ids.uuid(), str::to_owned),
            name: name.to_owned(),
            description: text(body, "Description").to_owned(),
            parsed: permissions::parse(&rules).map_err(ConsulErrorResponse::invalid)?,
            rules,
            datacenters: texts(body, "Datacenters"),
            created: 0,
            modified: 0,
        };
        Ok((before, policy))
    }

    /// Deletes a policy. Roles and tokens lose it.
    pub(super) fn delete_policy(&mut self, call: &RequestContext<'_>, id: &str) -> HandlerResult {
        uuid(id)?;
        let caller = self.acl_writer(call.secret).map_err(|refusal| refusal.of_a_deletion("policy"))?;
        if is_builtin(id) {
            return Err(ConsulErrorResponse::invalid("the server's own policies cannot be deleted"));
        }
        let policy = self.acl.policies.remove(id).ok_or_else(|| ConsulErrorResponse::not_found("policy"))?;
        self.acl.changed.policies = self.commit();
        self.record(call, &caller, "policy", id, Some(policy.shown()), None);
        Ok(HandlerResponse::done())
    }
}

fn is_builtin(id: &str) -> bool {
    matches!(id, GLOBAL_MANAGEMENT | READ_ONLY)
}

fn is_policy_name(name: &str) -> bool {
    name.len() <= 128
        && !name.starts_with('/')
        && name.matches('/').count() <= 1
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'/'))
}

/// Checks that the id is a UUID.
pub(super) fn uuid(id: &str) -> Result<(), ConsulErrorResponse> {
    if ids::is_uuid(id) {
        Ok(())
    } else {
        Err(ConsulErrorResponse::invalid(format!("{id:?} is not a UUID of 36 characters")))
    }
}

/// Checks that the ids of URL and body agree, and that a new object has none.
pub(super) fn same_id(id: Option<&str>, given: &str, what: &str) -> Result<(), ConsulErrorResponse> {
    match id {
        _ if given.is_empty() => Ok(()),
        Some(id) if id == given => Ok(()),
        Some(id) => Err(ConsulErrorResponse::malformed(format!("the URL names {id:?}, the body {given:?}"))),
        None => Err(ConsulErrorResponse::malformed(format!("{what} that is new cannot have an ID yet"))),
    }
}

//! Roles: named sets of policies and identities.

use serde_json::{Map, Value, json};

use super::acl::AclStore;
use super::decode::{self, JsonFieldKind, JsonMessage, UnknownFields, text};
use super::grants::{Grants, LINK, NODE_IDENTITY, SERVICE_IDENTITY, TEMPLATED_POLICY, is_plain_name};
use super::ids;
use super::policies::{same_id, uuid};
use super::response::{ConsulErrorResponse, HandlerResponse, HandlerResult};
use super::server::{ConsulServer, RequestContext};

const BODY: JsonMessage = JsonMessage(&[
    ("ID", JsonFieldKind::Text),
    ("Name", JsonFieldKind::Text),
    ("Description", JsonFieldKind::Text),
    ("Policies", JsonFieldKind::Messages(&LINK)),
    ("ServiceIdentities", JsonFieldKind::Messages(&SERVICE_IDENTITY)),
    ("NodeIdentities", JsonFieldKind::Messages(&NODE_IDENTITY)),
    ("TemplatedPolicies", JsonFieldKind::Messages(&TEMPLATED_POLICY)),
    ("Hash", JsonFieldKind::Any),
    ("CreateIndex", JsonFieldKind::Number),
    ("ModifyIndex", JsonFieldKind::Number),
]);

/// A stored role.
#[derive(Clone)]
pub(super) struct StoredRole {
    pub(super) id: String,
    pub(super) name: String,
    description: String,
    pub(super) grants: Grants,
    created: u64,
    modified: u64,
}

impl StoredRole {
    pub(super) fn shown(&self, acl: &AclStore) -> Value {
        let mut shown = json!({
            "ID": self.id,
            "Name": self.name,
            "Description": self.description,
            "Hash": ids::hash(&[&self.name, &self.description, &self.grants.digest()]),
            "CreateIndex": self.created,
            "ModifyIndex": self.modified,
        });
        self.grants.show(acl, &mut shown);
        shown
    }
}

impl ConsulServer {
    pub(super) fn list_roles(&self, call: &RequestContext<'_>) -> HandlerResult {
        self.acl_reader(call.secret)?;
        let policy = call.target.parameter("policy");
        let mut roles: Vec<&StoredRole> = self.acl.roles.values().collect();
        roles.retain(|role| policy.is_empty() || role.grants.policies.iter().any(|id| id == policy));
        roles.sort_by(|a, b| a.name.cmp(&b.name));
        let shown = roles.into_iter().map(|role| role.shown(&self.acl)).collect();
        Ok(HandlerResponse::read(&shown, self.acl.changed.roles))
    }

    pub(super) fn read_role(&self, call: &RequestContext<'_>, id: &str) -> HandlerResult {
        self.acl_reader(call.secret)?;
        uuid(id)?;
        self.role_read(self.acl.roles.get(id))
    }

    pub(super) fn read_role_by_name(&self, call: &RequestContext<'_>, name: &str) -> HandlerResult {
        self.acl_reader(call.secret)?;
        self.role_read(self.acl.roles.values().find(|role| role.name == name))
    }

    fn role_read(&self, found: Option<&StoredRole>) -> HandlerResult {
        let role = found.ok_or_else(|| ConsulErrorResponse::not_found("role"))?;
        Ok(HandlerResponse::read(&role.shown(&self.acl), self.acl.changed.roles))
    }

    /// Creates a role, or replaces the one with this id.
    pub(super) fn write_role(&mut self, call: &RequestContext<'_>, id: Option<&str>) -> HandlerResult {
        let body = decode::body(&BODY, &call.request.body, UnknownFields::Refused);
        let body =
            body.map_err(|what| ConsulErrorResponse::malformed(format!("decoding the role: {what}")))?;
        same_id(id, text(&body, "ID"), "a role")?;
        let caller = self.acl_writer(call.secret)?;
        let (before, role) = self.checked_role(id, &body)?;
        let index = self.commit();
        let role = StoredRole {
            created: before.as_ref().map_or(index, |before| before.created),
            modified: index,
            ..role
        };
        let shown = role.shown(&self.acl);
        let before = before.map(|before| before.shown(&self.acl));
        self.record(call, &caller, "role", &role.id, before, Some(shown.clone()));
        self.acl.roles.insert(role.id.clone(), role);
        self.acl.changed.roles = index;
        Ok(HandlerResponse::Plain(shown))
    }

    fn checked_role(
        &mut self,
        id: Option<&str>,
        body: &Map<String, Value>,
    ) -> Result<(Option<StoredRole>, StoredRole), ConsulErrorResponse> {
        let name = text(body, "Name");
        if name.is_empty() {
            return Err(ConsulErrorResponse::invalid("the role has no Name"));
        }
        if !is_plain_name(name, 256) {
            return Err(ConsulErrorResponse::invalid(format!(
                "{name:?} is not a valid role name: letters, digits, '-' and '_' are allowed"
            )));
        }
        let before = match id {
            Some(id) => {
                uuid(id)?;
                let found = self.acl.roles.get(id).cloned();
                Some(found.ok_or_else(|| ConsulErrorResponse::invalid(format!("there is no role {id}")))?)
            }
            None => None,
        };
        let other = self.acl.roles.values().find(|role| role.name == name);
        if other.is_some_and(|other| Some(other.id.as_str()) != id) {
            return Err(ConsulErrorResponse::invalid(format!(
                "there is a role with the name {name:?} already"
            )));
        }
        let role = StoredRole {
            id: id.map_or_else(|| self.ids.uuid(), str::to_owned),
            name: name.to_owned(),
            description: text(body, "Description").to_owned(),
            grants: Grants::read(&self.acl, body)?,
            created: 0,
            modified: 0,
        };
        Ok((before, role))
    }

    /// Deletes a role. Tokens lose it.
    pub(super) fn delete_role(&mut self, call: &RequestContext<'_>, id: &str) -> HandlerResult {
        uuid(id)?;
        let caller = self.acl_writer(call.secret).map_err(|refusal| refusal.of_a_deletion("role"))?;
        let role = self.acl.roles.remove(id).ok_or_else(|| ConsulErrorResponse::not_found("role"))?;
        self.acl.changed.roles = self.commit();
        let before = role.shown(&self.acl);
        self.record(call, &caller, "role", id, Some(before), None);
        Ok(HandlerResponse::done())
    }
}

//! Roles: named sets of policies and identities.

use serde_json::{Map, Value, json};

use super::acl::AclStore;
use super::answer::{Answer, Outcome, Refusal};
use super::decode::{self, Kind, Message, Unknown, text};
use super::grants::{Grants, LINK, NODE_IDENTITY, SERVICE_IDENTITY, TEMPLATED_POLICY, is_plain_name};
use super::ids;
use super::policies::{same_id, uuid};
use super::server::{Call, ConsulServer};

const BODY: Message = Message(&[
    ("ID", Kind::Text),
    ("Name", Kind::Text),
    ("Description", Kind::Text),
    ("Policies", Kind::Messages(&LINK)),
    ("ServiceIdentities", Kind::Messages(&SERVICE_IDENTITY)),
    ("NodeIdentities", Kind::Messages(&NODE_IDENTITY)),
    ("TemplatedPolicies", Kind::Messages(&TEMPLATED_POLICY)),
    ("Hash", Kind::Any),
    ("CreateIndex", Kind::Number),
    ("ModifyIndex", Kind::Number),
]);

/// A stored role.
#[derive(Clone)]
pub(super) struct Role {
    pub(super) id: String,
    pub(super) name: String,
    description: String,
    pub(super) grants: Grants,
    created: u64,
    modified: u64,
}

impl Role {
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
    pub(super) fn list_roles(&self, call: &Call<'_>) -> Outcome {
        self.acl_reader(call.secret)?;
        let policy = call.target.parameter("policy");
        let mut roles: Vec<&Role> = self.acl.roles.values().collect();
        roles.retain(|role| policy.is_empty() || role.grants.policies.iter().any(|id| id == policy));
        roles.sort_by(|a, b| a.name.cmp(&b.name));
        let shown = roles.into_iter().map(|role| role.shown(&self.acl)).collect();
        Ok(Answer::read(shown, self.acl.changed.roles))
    }

    pub(super) fn read_role(&self, call: &Call<'_>, id: &str) -> Outcome {
        self.acl_reader(call.secret)?;
        uuid(id)?;
        self.role_read(self.acl.roles.get(id))
    }

    pub(super) fn read_role_by_name(&self, call: &Call<'_>, name: &str) -> Outcome {
        self.acl_reader(call.secret)?;
        self.role_read(self.acl.roles.values().find(|role| role.name == name))
    }

    fn role_read(&self, found: Option<&Role>) -> Outcome {
        let role = found.ok_or_else(|| Refusal::gone("role"))?;
        Ok(Answer::read(role.shown(&self.acl), self.acl.changed.roles))
    }

    /// Makes a role, or with an id writes all of one anew.
    pub(super) fn write_role(&mut self, call: &Call<'_>, id: Option<&str>) -> Outcome {
        let body = decode::body(&BODY, &call.request.body, Unknown::Refused);
        let body = body.map_err(|what| Refusal::malformed(format!("the role can't be read: {what}")))?;
        same_id(id, text(&body, "ID"), "a role")?;
        let caller = self.acl_writer(call.secret)?;
        let (before, role) = self.checked_role(id, &body)?;
        let index = self.commit();
        let role =
            Role { created: before.as_ref().map_or(index, |before| before.created), modified: index, ..role };
        let shown = role.shown(&self.acl);
        let before = before.map(|before| before.shown(&self.acl));
        self.record(call, &caller, "role", &role.id, before, Some(&shown));
        self.acl.roles.insert(role.id.clone(), role);
        self.acl.changed.roles = index;
        Ok(Answer::Plain(shown))
    }

    fn checked_role(
        &mut self,
        id: Option<&str>,
        body: &Map<String, Value>,
    ) -> Result<(Option<Role>, Role), Refusal> {
        let name = text(body, "Name");
        if name.is_empty() {
            return Err(Refusal::invalid("the role has no Name"));
        }
        if !is_plain_name(name, 256) {
            return Err(Refusal::invalid(format!(
                "{name:?} is no name of a role: letters, digits, '-' and '_' are allowed"
            )));
        }
        let before = match id {
            Some(id) => {
                uuid(id)?;
                let found = self.acl.roles.get(id).cloned();
                Some(found.ok_or_else(|| Refusal::invalid(format!("there is no role {id}")))?)
            }
            None => None,
        };
        let other = self.acl.roles.values().find(|role| role.name == name);
        if other.is_some_and(|other| Some(other.id.as_str()) != id) {
            return Err(Refusal::invalid(format!("there is a role with the name {name:?} already")));
        }
        let role = Role {
            id: id.map_or_else(|| self.ids.uuid(), str::to_owned),
            name: name.to_owned(),
            description: text(body, "Description").to_owned(),
            grants: Grants::read(&self.acl, body)?,
            created: 0,
            modified: 0,
        };
        Ok((before, role))
    }

    /// Removes a role; tokens simply lose it.
    pub(super) fn delete_role(&mut self, call: &Call<'_>, id: &str) -> Outcome {
        uuid(id)?;
        let caller = self.acl_writer(call.secret).map_err(|refusal| refusal.of_a_deletion("role"))?;
        let role = self.acl.roles.remove(id).ok_or_else(|| Refusal::gone("role"))?;
        self.acl.changed.roles = self.commit();
        let before = role.shown(&self.acl);
        self.record(call, &caller, "role", id, Some(before), None);
        Ok(Answer::done())
    }
}

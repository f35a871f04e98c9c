//! The actual objects in Consul, as far as readable. An unlisted object is unknown, not absent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::matching::name;
use crate::desired::{ObjectId, ObjectScope, OperatorIds, is_ours};
use ecs_mesh_consul::TokenRefs;
use ecs_mesh_core::plan::report::ObjectKind;

/// Objects as returned by the server, with Consul's field names.
#[derive(Clone, Debug, Default)]
pub struct ActualObjects {
    parts: BTreeMap<(ObjectKind, ObjectScope), KindSnapshot>,
    unread: BTreeMap<ObjectId, String>,
    tokens: BTreeMap<ObjectId, u64>,
    services: BTreeMap<ObjectId, u64>,
    holders: BTreeMap<ObjectId, TokenRefs>,
}

#[derive(Clone, Debug)]
enum KindSnapshot {
    Listed(Vec<Value>),
    Unknown(String),
}

/// The listed objects of a kind in a scope.
pub(super) enum ListedKind<'a> {
    Listed(&'a [Value]),
    Unknown(String),
}

impl ActualObjects {
    /// Sets all objects of this kind in this scope. Lists of policies and auth methods are incomplete: an object that is
    /// compared must be read individually and replace its list entry.
    pub fn set_listed(&mut self, kind: ObjectKind, scope: ObjectScope, mut bodies: Vec<Value>) {
        for body in bodies.iter_mut().filter_map(Value::as_object_mut) {
            // Not needed, and secret.
            body.remove("SecretID");
        }
        self.parts.insert((kind, scope), KindSnapshot::Listed(bodies));
    }

    /// Marks a kind as unlisted, with the reason: a failed call or a filtered answer.
    pub fn mark_unlisted(&mut self, kind: ObjectKind, scope: ObjectScope, error: impl Into<String>) {
        self.parts.insert((kind, scope), KindSnapshot::Unknown(error.into()));
    }

    /// Marks an object as unreadable.
    pub fn mark_unreadable(&mut self, id: ObjectId, error: impl Into<String>) {
        self.unread.insert(id, error.into());
    }

    /// Sets the number of tokens that the auth method issued.
    pub fn tokens_of(&mut self, method: ObjectId, count: u64) {
        self.tokens.insert(method, count);
    }

    /// Sets the number of services on the node. Without it the node is not removed.
    pub fn services_on(&mut self, node: ObjectId, count: u64) {
        self.services.insert(node, count);
    }

    /// Sets the tokens that have the role or policy. Without them it is not removed.
    pub fn held_by(&mut self, id: ObjectId, holders: TokenRefs) {
        self.holders.insert(id, holders);
    }

    /// Names of owned objects of this kind; `None` if not all could be listed.
    pub fn owned_names(&self, kind: ObjectKind, operators: &OperatorIds) -> Option<BTreeSet<Arc<str>>> {
        let mut ours = BTreeSet::new();
        for (_, part) in self.parts.iter().filter(|((listed, _), _)| *listed == kind) {
            let KindSnapshot::Listed(bodies) = part else { return None };
            let marked = bodies.iter().filter(|body| is_ours(kind, body, operators));
            ours.extend(marked.map(|body| Arc::from(name(kind, body))));
        }
        Some(ours)
    }

    /// Whether no owned object of this name is known to exist.
    pub(super) fn has_none_of_ours(&self, id: &ObjectId, operators: &OperatorIds) -> bool {
        let is_it = |body: &&Value| id.name.eq_ignore_ascii_case(name(id.kind, body));
        match self.of(id.kind, &id.scope) {
            ListedKind::Listed(bodies) => {
                !bodies.iter().filter(is_it).any(|body| is_ours(id.kind, body, operators))
            }
            ListedKind::Unknown(_) => false,
        }
    }

    pub(super) fn of(&self, kind: ObjectKind, scope: &ObjectScope) -> ListedKind<'_> {
        match self.parts.get(&(kind, scope.clone())) {
            Some(KindSnapshot::Listed(bodies)) => ListedKind::Listed(bodies),
            Some(KindSnapshot::Unknown(error)) => ListedKind::Unknown(error.clone()),
            None => ListedKind::Unknown("it was not asked for".to_owned()),
        }
    }

    pub(super) fn unread(&self, id: &ObjectId) -> Option<&str> {
        self.unread.get(id).map(String::as_str)
    }

    pub(super) fn tokens(&self, method: &ObjectId) -> Option<u64> {
        self.tokens.get(method).copied()
    }

    pub(super) fn services(&self, node: &ObjectId) -> Option<u64> {
        self.services.get(node).copied()
    }

    pub(super) fn holders(&self, id: &ObjectId) -> Option<&TokenRefs> {
        self.holders.get(id)
    }

    /// All listed objects, with kind and scope.
    pub(crate) fn all(&self) -> impl Iterator<Item = (ObjectKind, &ObjectScope, &Value)> {
        self.parts.iter().flat_map(|((kind, scope), part)| {
            let bodies = match part {
                KindSnapshot::Listed(bodies) => bodies.as_slice(),
                KindSnapshot::Unknown(_) => &[],
            };
            bodies.iter().map(move |body| (*kind, scope, body))
        })
    }

    /// The kinds and scopes of which all objects are listed.
    pub(crate) fn listed_kinds(&self) -> impl Iterator<Item = (ObjectKind, ObjectScope)> {
        let listed = self.parts.iter().filter(|(_, part)| matches!(part, KindSnapshot::Listed(_)));
        listed.map(|((kind, scope), _)| (*kind, scope.clone()))
    }

    pub(super) fn unlisted_kinds(&self) -> impl Iterator<Item = (ObjectKind, &ObjectScope, &str)> {
        self.parts.iter().filter_map(|((kind, scope), part)| match part {
            KindSnapshot::Unknown(error) => Some((*kind, scope, error.as_str())),
            KindSnapshot::Listed(_) => None,
        })
    }
}

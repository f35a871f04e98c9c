//! Objects of Consul's configuration as plain data, under Consul's own names for their fields.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use ecs_mesh_core::plan::report::ObjectKind;
use ecs_mesh_model::Glob;

/// Where an object is in Consul Enterprise; all of it `None` in the community edition.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ObjectScope {
    /// The admin partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<Arc<str>>,
    /// The namespace, for what has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Arc<str>>,
}

impl ObjectScope {
    /// In a partition.
    pub fn new(partition: &str, namespace: Option<&str>) -> Self {
        Self { partition: Some(partition.into()), namespace: namespace.map(Arc::from) }
    }
}

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// Its kind.
    pub kind: ObjectKind,
    /// Where.
    pub scope: ObjectScope,
    /// Consul's name for it. A binding rule has none: METHOD/WHAT-IT-IS-FOR. The anonymous token: its accessor id.
    pub name: Arc<str>,
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ObjectKind::AnonymousToken => f.write_str("the anonymous token"),
            kind => write!(f, "{} {}", kind.as_str(), self.name),
        }
    }
}

/// What is wanted of an object.
#[derive(Clone, Debug, PartialEq)]
pub enum DesiredState {
    /// That it is there, with these fields as they stand here. A field that is not here is not declared, and stays as
    /// it is. An empty value says that the field is to be empty or not there. A map is declared key by key.
    Present {
        /// The fields.
        body: Value,
        /// Objects that must be there first, and be what is declared of them.
        needs: Vec<ObjectId>,
    },
    /// That it is not there, if it is ours.
    Absent,
    /// That these policies hang on it, and those don't; what else hangs on it is none of our business.
    PolicyLinks {
        /// Policies to attach.
        attach: Vec<ObjectId>,
        /// Policies to take off, where they are ours.
        detach: Vec<ObjectId>,
    },
    /// Nothing, for this reason.
    Blocked(String),
}

/// By what a binding rule is known again, whose id Consul makes: its own words, or else what it binds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleKey {
    /// The method that it is of.
    pub auth_method: Arc<str>,
    /// Its description without a mark.
    pub text: &'static str,
    /// What it binds: a type and a name.
    pub bind: (&'static str, Arc<str>),
}

/// One object.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredObject {
    /// Which.
    pub id: ObjectId,
    /// Of a binding rule: what it is known by.
    pub rule: Option<RuleKey>,
    /// What is wanted of it.
    pub state: DesiredState,
}

/// What follows for an object of ours that no manifest declares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UndeclaredPolicy {
    /// It is reported.
    #[default]
    Keep,
    /// It is removed: the whole set-up was declared absent.
    Remove,
}

/// All that a `ConsulAuth` comes to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DesiredObjects {
    /// The objects, in the order in which they are made.
    pub objects: Vec<DesiredObject>,
    /// What follows for the rest of ours.
    pub undeclared: UndeclaredPolicy,
    /// Names of objects without our mark that we may take over.
    pub adopt: Vec<Glob>,
    /// Where objects of ours belong to this set-up and to no other, declared or not.
    pub own: BTreeSet<ObjectScope>,
    /// The `ConsulAuth`'s name, for a person.
    pub declared_by: Option<Arc<str>>,
    /// The manifests have not loaded whole yet: what is not declared here may be meant to be.
    pub manifests_incomplete: bool,
}

impl DesiredObjects {
    /// Whether the object may be taken over where it has no mark.
    pub fn may_adopt(&self, id: &ObjectId) -> bool {
        self.adopt.iter().any(|glob| glob.matches(&id.name))
    }
    /// Whether something is wanted of this kind in this place.
    pub(super) fn wants_any(&self, kind: ObjectKind, scope: &ObjectScope) -> bool {
        let mut here =
            self.objects.iter().filter(|object| object.id.kind == kind && object.id.scope == *scope);
        here.any(|object| !matches!(object.state, DesiredState::Blocked(_)))
    }
}

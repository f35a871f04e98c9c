//! ACL objects as plain data, with Consul's field names.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use ecs_mesh_core::plan::report::ObjectKind;
use ecs_mesh_model::Glob;

/// The partition and namespace of an object; both `None` in the community edition.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ObjectScope {
    /// The admin partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<Arc<str>>,
    /// The namespace, if the object has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Arc<str>>,
}

impl ObjectScope {
    /// A scope in a partition.
    pub fn new(partition: &str, namespace: Option<&str>) -> Self {
        Self { partition: Some(partition.into()), namespace: namespace.map(Arc::from) }
    }
}

/// The identity of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// Its kind.
    pub kind: ObjectKind,
    /// The scope.
    pub scope: ObjectScope,
    /// The name in Consul. Binding rules have none: METHOD/PURPOSE. The anonymous token: its accessor id.
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

/// The desired state of an object.
#[derive(Clone, Debug, PartialEq)]
pub enum DesiredState {
    /// Exists with these fields. An omitted field is not declared and stays unchanged. An empty value declares an empty or
    /// absent field. A map is declared key by key.
    Present {
        /// The fields.
        body: Value,
        /// Dependencies, which must exist as declared.
        needs: Vec<ObjectId>,
    },
    /// Does not exist, if owned.
    Absent,
    /// Has some policies attached and others not; further policies are not affected.
    PolicyLinks {
        /// Policies to attach.
        attach: Vec<ObjectId>,
        /// Owned policies to detach.
        detach: Vec<ObjectId>,
    },
    /// Not determined, for this reason.
    Blocked(String),
}

/// The key of a binding rule, whose id Consul generates: its description, or else its binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleKey {
    /// The auth method.
    pub auth_method: Arc<str>,
    /// The description without a marker.
    pub text: &'static str,
    /// The binding: type and name.
    pub bind: (&'static str, Arc<str>),
}

/// A declared object.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredObject {
    /// The identity.
    pub id: ObjectId,
    /// The key of a binding rule.
    pub rule: Option<RuleKey>,
    /// The desired state.
    pub state: DesiredState,
}

/// Policy for owned objects that are not declared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UndeclaredPolicy {
    /// Kept and reported.
    #[default]
    Keep,
    /// Removed, since the whole `ConsulAuth` is declared absent.
    Remove,
}

/// All objects of a `ConsulAuth`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DesiredObjects {
    /// The objects, in the order of creation.
    pub objects: Vec<DesiredObject>,
    /// Policy for other owned objects.
    pub undeclared: UndeclaredPolicy,
    /// Names of unmarked objects to adopt.
    pub adopt: Vec<Glob>,
    /// The scopes in which owned objects belong to this `ConsulAuth`.
    pub own: BTreeSet<ObjectScope>,
    /// The name of the `ConsulAuth`, for messages.
    pub declared_by: Option<Arc<str>>,
    /// Whether the manifests have errors: undeclared objects may be declared there.
    pub manifests_incomplete: bool,
}

impl DesiredObjects {
    /// Whether an unmarked object may be adopted.
    pub fn may_adopt(&self, id: &ObjectId) -> bool {
        self.adopt.iter().any(|glob| glob.matches(&id.name))
    }
    /// Whether an object of this kind is declared in this scope.
    pub(super) fn wants_any(&self, kind: ObjectKind, scope: &ObjectScope) -> bool {
        let mut here =
            self.objects.iter().filter(|object| object.id.kind == kind && object.id.scope == *scope);
        here.any(|object| !matches!(object.state, DesiredState::Blocked(_)))
    }
}

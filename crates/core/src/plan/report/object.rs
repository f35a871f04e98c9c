//! Kinds of objects in a plan that are not registrations of tasks.

use schemars::JsonSchema;
use serde::Serialize;

/// Kinds of objects, in the order of creation: dependencies first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ObjectKind {
    /// An ACL policy.
    Policy,
    /// An ACL role.
    Role,
    /// An ACL auth method.
    AuthMethod,
    /// A binding rule of an auth method.
    BindingRule,
    /// A node of the catalog.
    Node,
    /// The token of requests without a token. It has no owner: only policies are attached and detached.
    AnonymousToken,
    /// A namespace (Enterprise). It has no owner: only default policies are attached and detached.
    Namespace,
}

impl ObjectKind {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::Policy,
        Self::Role,
        Self::AuthMethod,
        Self::BindingRule,
        Self::Node,
        Self::AnonymousToken,
        Self::Namespace,
    ];

    /// The kind as text for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Role => "role",
            Self::AuthMethod => "auth method",
            Self::BindingRule => "binding rule",
            Self::Node => "node",
            Self::AnonymousToken => "anonymous token",
            Self::Namespace => "namespace",
        }
    }

    /// The kind as a value of metric labels and log fields.
    pub fn label(self) -> &'static str {
        match self {
            Self::AuthMethod => "auth_method",
            Self::BindingRule => "binding_rule",
            Self::AnonymousToken => "anonymous_token",
            Self::Policy | Self::Role | Self::Node | Self::Namespace => self.as_str(),
        }
    }
}

/// The kind of what a change is about, where it is no registration of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum PlannedKind {
    /// An ACL object.
    Acl(ObjectKind),
    /// The tokens that the operator stores for sidecars.
    Stored(StoredKind),
}

/// Kinds of what the operator stores for sidecars.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum StoredKind {
    /// A data plane token, in a secret or parameter.
    DataplaneToken,
}

impl PlannedKind {
    /// A data plane token.
    pub const TOKEN: Self = Self::Stored(StoredKind::DataplaneToken);

    /// The kind as text for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Acl(kind) => kind.as_str(),
            Self::Stored(StoredKind::DataplaneToken) => "data plane token",
        }
    }

    /// The kind as a value of log fields.
    pub fn label(self) -> &'static str {
        match self {
            Self::Acl(kind) => kind.label(),
            Self::Stored(StoredKind::DataplaneToken) => "dataplane_token",
        }
    }
}

impl From<ObjectKind> for PlannedKind {
    fn from(kind: ObjectKind) -> Self {
        Self::Acl(kind)
    }
}

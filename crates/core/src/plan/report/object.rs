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

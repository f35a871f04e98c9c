//! Validated names: a value of these types satisfies the rule of the system that stores it.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{ClusterArn, intern};

/// A name that breaks the rule of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {found:?} is not allowed: {rule}")]
pub struct NameError {
    /// The kind of name that was expected (`mesh name`, `service name`, …).
    pub kind: &'static str,
    /// The text that was found, cut to 80 characters.
    pub found: String,
    /// The rule, for error messages.
    pub rule: &'static str,
}

pub(super) fn name_error(kind: &'static str, found: &str, rule: &'static str) -> NameError {
    NameError { kind, found: found.chars().take(80).collect(), rule }
}

fn is_dns_subdomain(text: &str, max: usize) -> bool {
    !text.is_empty()
        && text.len() <= max
        && text.split('.').all(|part| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !part.starts_with('-')
                && !part.ends_with('-')
        })
}

/// Whether a text may be the value of a label at Kuma: as at Kubernetes, at most 63 characters.
///
/// Source: <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set>.
pub fn is_label_value(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && bytes[0].is_ascii_alphanumeric()
        && bytes[bytes.len() - 1].is_ascii_alphanumeric()
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $rule:literal, $keep:expr, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The rule of this kind of name, for error messages.
            pub const RULE: &'static str = $rule;

            /// Checks the text against the rule of this kind of name.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                let check: fn(&str) -> bool = $check;
                if check(text) { Ok(Self($keep(text))) } else { Err(name_error($kind, text, Self::RULE)) }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name_type!(
    /// The name of a mesh (Kuma: a DNS-1123 subdomain of at most 63 characters).
    MeshName, "mesh name",
    "lower-case letters, digits, '-' and '.', starting and ending with a letter or digit, at most 63 characters",
    intern,
    |t| is_dns_subdomain(t, 63)
);

impl Default for MeshName {
    /// `default`: the mesh that every new Kuma has, and the name of Consul's default partition.
    fn default() -> Self {
        Self("default".into())
    }
}

name_type!(
    /// A service's name in the mesh: a value of the tag `kuma.io/service`
    /// (Kuma: `[a-zA-Z0-9.\-_:]`, not empty).
    ServiceName, "service name",
    "letters, digits, '.', '-', '_' and ':', not empty, at most 253 characters",
    intern,
    |t| (1..=253).contains(&t.len())
        && t.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':'))
);
name_type!(
    /// The stable identity of this operator. Each registration carries it as a label, so it is a label value.
    OperatorId, "operator id",
    "letters, digits, '-', '_' and '.', starting and ending with a letter or digit, at most 63 characters",
    intern,
    is_label_value
);
name_type!(
    /// The last part of a task's ARN: 32 hex digits, or a UUID in old accounts. Always a valid label value.
    TaskId, "task id",
    "letters, digits and '-', at most 63 characters (the last part of a task ARN)",
    intern,
    |t| is_label_value(t) && t.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
);
name_type!(
    /// The first 16 hex digits of the SHA-256 of a cluster's ARN: the ARN itself is too long for a label.
    ClusterId, "cluster id",
    "16 lower-case hex digits",
    intern,
    |t| t.len() == 16 && t.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
);

/// The rule of [`is_consul_service`], for error messages.
pub const CONSUL_SERVICE_RULE: &str =
    "at most 256 lower-case letters, digits, '-' and '_', starting and ending with a letter or digit";

/// Whether Consul allows this name in a service identity, which a login needs. Stricter than [`ServiceName`].
///
/// Source: <https://developer.hashicorp.com/consul/api-docs/acl/tokens> (`ServiceIdentities`, `ServiceName`).
pub fn is_consul_service(text: &str) -> bool {
    let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    (1..=256).contains(&bytes.len())
        && bytes.iter().all(|b| plain(b) || matches!(b, b'-' | b'_'))
        && bytes.first().is_some_and(plain)
        && bytes.last().is_some_and(plain)
}

impl ClusterId {
    /// The id of this cluster in labels.
    pub fn of(cluster: &ClusterArn) -> Self {
        Self(intern(&short_digest(cluster.as_str())))
    }
}

/// The first 16 hex digits of the SHA-256 of a text, where a label's value has no room for the text.
pub fn short_digest(text: &str) -> String {
    use fmt::Write as _;
    let mut hex = String::with_capacity(16);
    for byte in &Sha256::digest(text.as_bytes())[..8] {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mesh_name_is_a_dns_subdomain() {
        assert!(MeshName::parse("default").is_ok());
        for bad in ["", "Default", "a_b", "-a", "a-", "a..b"] {
            assert!(MeshName::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn name_error_contains_the_rule() {
        let error = OperatorId::parse("a/b").unwrap_err().to_string();
        assert!(error.contains("operator id \"a/b\" is not allowed: letters"), "{error}");
    }

    #[test]
    fn consul_service_name_is_lowercase_without_dots() {
        let longest = "a".repeat(256);
        for (name, is_one) in [
            ("web", true),
            ("web-app_2", true),
            ("7", true),
            (&*longest, true),
            ("", false),
            ("web.app", false),
            ("Web", false),
            ("web-", false),
            ("_web", false),
            ("web:app", false),
            (&*"a".repeat(257), false),
        ] {
            assert_eq!(is_consul_service(name), is_one, "{name}");
        }
    }

    #[test]
    fn cluster_id_is_stable_and_valid() {
        let arn = ClusterArn::parse("arn:aws:ecs:eu-west-1:111122223333:cluster/prod").unwrap();
        let id = ClusterId::of(&arn);
        assert_eq!(id.as_str().len(), 16);
        assert!(ClusterId::parse(id.as_str()).is_ok());
        assert_eq!(id, ClusterId::of(&arn));
    }
}

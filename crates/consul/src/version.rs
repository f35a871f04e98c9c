//! The version and edition of Consul's servers.

use std::fmt;

use serde::Deserialize;

use ecs_mesh_control_plane::http::quote;

/// A server's version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsulVersion {
    /// The major version: `1`.
    pub major: u32,
    /// The minor version: `21`.
    pub minor: u32,
    /// The version as the server writes it: `1.21.4`, `1.21.4+ent`. Its `Display` is for messages.
    pub text: String,
}

/// The first version with logins by AWS IAM, and with a header that marks filtered responses.
pub(super) const FIRST_WITH_IAM: (u32, u32) = (1, 12);

/// The one supported version of the latest major. Since 2.0 the middle number is a modification, which need not be compatible.
///
/// Source: <https://developer.hashicorp.com/consul/docs/upgrade/instructions/upgrade-to-2-0-x>.
const LAST_MAJOR: (u32, u32) = (2, 0);

/// The operations that every version accepts in a transaction.
pub(super) const MIN_TXN_OPERATIONS: usize = 64;
/// The operations that versions since 1.14 accept.
pub(super) const TXN_OPERATIONS_SINCE_1_14: usize = 128;
const FIRST_WITH_LARGE_TXN: (u32, u32) = (1, 14);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AgentSelf {
    config: AgentVersionConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AgentVersionConfig {
    version: String,
}

impl ConsulVersion {
    /// Reads the version from the agent's description of itself.
    pub(super) fn read(body: &[u8]) -> Result<Self, &'static str> {
        let agent: AgentSelf = serde_json::from_slice(body).map_err(|_| "no field Config.Version")?;
        Self::parse(&agent.config.version).ok_or("Config.Version is not a version")
    }

    /// Parses a version as servers write it.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(['.', '-', '+']);
        let mut number = || parts.next()?.parse().ok();
        Some(Self { major: number()?, minor: number()?, text: text.to_owned() })
    }

    /// Why servers of this version are not written to, if they are not. The error names the supported versions.
    pub fn refusal(&self) -> Option<String> {
        let is_supported = matches!((self.major, self.minor), (1, _) | LAST_MAJOR);
        (!is_supported).then(|| {
            format!(
                "Consul {self} is not supported (supported: 1.x, 2.0), and nothing is written to it; help: use Consul 1.12 or \
                 a later 1.x, or 2.0, or an operator release that supports this version"
            )
        })
    }

    /// Whether the edition is Consul Enterprise, with partitions and namespaces.
    pub fn is_enterprise(&self) -> bool {
        self.text.contains("+ent")
    }

    /// Whether tasks can log in by AWS IAM.
    pub fn has_iam_logins(&self) -> bool {
        (self.major, self.minor) >= FIRST_WITH_IAM
    }

    /// The maximum number of operations in a transaction.
    pub(super) fn max_txn_operations(&self) -> usize {
        if (self.major, self.minor) >= FIRST_WITH_LARGE_TXN {
            TXN_OPERATIONS_SINCE_1_14
        } else {
            MIN_TXN_OPERATIONS
        }
    }
}

impl fmt::Display for ConsulVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quote(&self.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_shows_edition_and_features() {
        for (text, is_enterprise, has_iam_logins, operations) in [
            ("1.21.4", false, true, 128),
            ("1.12.0+ent", true, true, 64),
            ("1.13.9", false, true, 64),
            ("1.14.0", false, true, 128),
            ("1.18.2+ent.fips1402", true, true, 128),
            ("1.8.7", false, false, 64),
            ("1.22.0-dev", false, true, 128),
            ("2.0.0", false, true, 128),
        ] {
            let body = serde_json::json!({"Config": {"Version": text}}).to_string();
            let version = ConsulVersion::read(body.as_bytes()).unwrap();
            assert_eq!(
                (version.is_enterprise(), version.has_iam_logins(), version.max_txn_operations()),
                (is_enterprise, has_iam_logins, operations),
                "{text}"
            );
        }
        for (text, is_supported) in [
            ("1.8.7", true),
            ("1.22.4", true),
            ("2.0.0", true),
            ("2.0.3+ent", true),
            ("2.1.0", false),
            ("3.0.0", false),
        ] {
            let refusal = ConsulVersion::parse(text).unwrap().refusal();
            assert_eq!(refusal.is_none(), is_supported, "{text}: {refusal:?}");
        }
        let hostile = ConsulVersion::parse("1.21.4+ent.AKIAIOSFODNN7EXAMPLE").unwrap();
        assert_eq!((hostile.is_enterprise(), hostile.to_string().contains("AKIA")), (true, false));
        for body in ["{}", "[]", "<html>", r#"{"Config": {"Version": "new"}}"#] {
            assert!(ConsulVersion::read(body.as_bytes()).is_err(), "{body}");
        }
    }
}

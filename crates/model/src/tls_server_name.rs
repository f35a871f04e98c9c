//! The name that a server's TLS certificate must have.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::NameError;
use super::name::name_error;

/// A DNS name or an IP address, without a port.
///
/// ```
/// use ecs_mesh_model::TlsServerName;
///
/// assert_eq!(TlsServerName::parse("kuma-cp.internal")?.ip(), None);
/// assert!(TlsServerName::parse("10.0.0.7")?.ip().is_some());
/// assert!(TlsServerName::parse("*.internal").is_err());
/// # Ok::<(), ecs_mesh_model::NameError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TlsServerName(String);

impl TlsServerName {
    /// The rule, for error messages.
    pub const RULE: &'static str = "a DNS name or an IP address, without scheme, port and '*'";

    /// Reads a name.
    ///
    /// # Errors
    /// If the text is neither a DNS name nor an IP address.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.parse::<IpAddr>().is_ok() || is_dns_name(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(name_error("TLS server name", text, Self::RULE))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address, unless it is a DNS name.
    pub fn ip(&self) -> Option<IpAddr> {
        self.0.parse().ok()
    }
}

/// A host name of RFC 1123 with at most 253 characters; `_` is allowed, as certificates of private CAs have it. A name
/// whose last label has digits only would be read as an IPv4 address.
pub(super) fn is_dns_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    text.len() <= 253 && text.split('.').all(is_label) && !last.bytes().all(|b| b.is_ascii_digit())
}

impl fmt::Display for TlsServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for TlsServerName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(&text)
    }
}

impl From<TlsServerName> for String {
    fn from(name: TlsServerName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_server_name_is_a_dns_name_or_an_address() {
        for name in ["localhost", "Server.dc1.consul", "a_b.internal", "1.example", "10.0.0.7", "fd00::7"] {
            assert_eq!(TlsServerName::parse(name).unwrap().as_str(), name);
        }
        let long = "a.".repeat(126) + "abc";
        for name in [
            "",
            "*.internal",
            "cp.internal.",
            "cp.internal:5682",
            "https://cp.internal",
            "[fd00::7]",
            "10.0.0.256",
            "-a.internal",
            "a..internal",
            "a b",
            &long,
        ] {
            assert!(TlsServerName::parse(name).is_err(), "{name:?} was accepted");
        }
    }
}

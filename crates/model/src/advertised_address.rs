//! The address under which others reach a zone proxy, such as that of a network load balancer.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::NameError;
use super::name::name_error;
use super::tls_server_name::is_dns_name;

/// A DNS name or an IP address to connect to, without a port.
///
/// ```
/// use ecs_mesh_model::AdvertisedAddress;
///
/// let nlb = "mesh-1a2b3c4d.elb.eu-west-1.amazonaws.com";
/// assert_eq!(AdvertisedAddress::parse(nlb)?.as_str(), nlb);
/// assert!(AdvertisedAddress::parse("0.0.0.0").is_err());
/// # Ok::<(), ecs_mesh_model::NameError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AdvertisedAddress(String);

impl AdvertisedAddress {
    /// The rule, for error messages. Kuma's own is `validateAddress` in `dataplane_validator.go`.
    pub const RULE: &'static str =
        "a DNS name or an IP address to connect to, without scheme and port, and not 0.0.0.0 or ::";

    /// Reads an address.
    ///
    /// # Errors
    /// If the text is neither a DNS name nor an IP address, or if it is the unspecified address.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let is_allowed =
            text.parse::<IpAddr>().map_or_else(|_| is_dns_name(text), |address| !address.is_unspecified());
        if is_allowed {
            Ok(Self(text.to_owned()))
        } else {
            Err(name_error("advertised address", text, Self::RULE))
        }
    }

    /// The address as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AdvertisedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for AdvertisedAddress {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(&text)
    }
}

impl From<AdvertisedAddress> for String {
    fn from(address: AdvertisedAddress) -> Self {
        address.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advertised_address_is_one_to_connect_to() {
        for text in ["nlb-1.elb.eu-west-1.amazonaws.com", "192.0.2.5", "2001:db8::5", "ingress"] {
            assert_eq!(AdvertisedAddress::parse(text).unwrap().as_str(), text);
        }
        for text in ["", "0.0.0.0", "::", "nlb.internal:10001", "https://nlb.internal", "*.internal", "1.2.3"]
        {
            assert!(AdvertisedAddress::parse(text).is_err(), "{text}");
        }
    }
}

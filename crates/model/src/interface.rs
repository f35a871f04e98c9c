//! The addresses of a network interface.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses of one network interface, at most one of each family. Other hosts of the VPC reach all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceAddresses {
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
}

/// An address that no other host reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an address that no other host can reach")]
pub struct UnreachableAddress;

impl InterfaceAddresses {
    /// No address, as an interface has that is pending.
    pub const NONE: Self = Self { v4: None, v6: None };

    /// The addresses of an interface.
    ///
    /// # Errors
    /// For loopback, link-local, multicast, broadcast and unspecified addresses, also those mapped to IPv6. An interface of
    /// a task or of an instance never has one, and no other host reaches it. A loopback address would lead the mesh's traffic
    /// to each proxy's own host.
    pub fn new(v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) -> Result<Self, UnreachableAddress> {
        let all = v4.map(IpAddr::V4).into_iter().chain(v6.map(IpAddr::V6));
        if all.map(|address| address.to_canonical()).any(is_unreachable) {
            return Err(UnreachableAddress);
        }
        Ok(Self { v4, v6 })
    }

    /// The IPv4 address.
    pub fn v4(&self) -> Option<Ipv4Addr> {
        self.v4
    }

    /// The IPv6 address.
    pub fn v6(&self) -> Option<Ipv6Addr> {
        self.v6
    }

    /// These addresses, and for a family without one that of `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self { v4: self.v4.or(other.v4), v6: self.v6.or(other.v6) }
    }

    /// Whether the interface has no address (yet).
    pub fn is_empty(&self) -> bool {
        *self == Self::NONE
    }

    /// All addresses, IPv4 first.
    pub fn all(&self) -> impl Iterator<Item = IpAddr> {
        self.v4.map(IpAddr::V4).into_iter().chain(self.v6.map(IpAddr::V6))
    }
}

fn is_unreachable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4.octets()[0] == 0
        }
        IpAddr::V6(v6) => {
            v6.is_loopback() || v6.is_unicast_link_local() || v6.is_multicast() || v6.is_unspecified()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_that_no_other_host_reaches_is_refused() {
        for text in [
            "127.0.0.1",
            "127.8.9.10",
            "169.254.170.2",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
        ] {
            let (v4, v6) = match text.parse().unwrap() {
                IpAddr::V4(v4) => (Some(v4), None),
                IpAddr::V6(v6) => (None, Some(v6)),
            };
            assert_eq!(InterfaceAddresses::new(v4, v6), Err(UnreachableAddress), "{text}");
        }
    }

    #[test]
    fn addresses_of_subnets_are_accepted() {
        let (v4, v6) = ("10.0.1.7".parse().unwrap(), "2001:db8::7".parse().unwrap());
        let both = InterfaceAddresses::new(Some(v4), Some(v6)).unwrap();
        assert_eq!(both.all().collect::<Vec<_>>(), [IpAddr::V4(v4), IpAddr::V6(v6)]);
        assert!(InterfaceAddresses::NONE.is_empty());
        let v4_alone = InterfaceAddresses::new(Some(v4), None).unwrap();
        assert_eq!((v4_alone.or(both), InterfaceAddresses::NONE.or(v4_alone)), (both, v4_alone));
    }
}

//! Selects the task's own address: that of its network interface, else that of its containers, IPv4 before IPv6. A task
//! whose interface is deleted has no address, since another task may have it by now.
//!
//! An interface has `privateIPv4Address`, a container `privateIpv4Address`.

use std::net::IpAddr;

/// One attachment of a task.
pub(super) struct Attachment<'a> {
    /// `type`.
    pub(super) kind: &'a str,
    /// `status`.
    pub(super) status: &'a str,
    /// `details`, as (name, value).
    pub(super) details: Vec<(&'a str, &'a str)>,
}

/// An unreadable or refused address; its text is dropped.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadAddress;

const INTERFACE: &str = "ElasticNetworkInterface";
const INTERFACE_ADDRESSES: [&str; 3] = ["privateIPv4Address", "ipv6Address", "privateIPv6Address"];

/// The task's own address. `containers` are the containers' (IPv4, IPv6) pairs; an empty text is no address.
pub(super) fn of_task<'a>(
    attachments: &[Attachment<'a>],
    containers: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<Option<IpAddr>, BadAddress> {
    let interfaces: Vec<_> = attachments.iter().filter(|a| a.kind == INTERFACE).collect();
    let (deleted, attached): (Vec<_>, Vec<_>) = interfaces.into_iter().partition(|a| a.status == "DELETED");
    if attached.is_empty() && !deleted.is_empty() {
        return Ok(None);
    }
    let from_interface = INTERFACE_ADDRESSES.iter().find_map(|wanted| {
        attached.iter().flat_map(|a| &a.details).find(|(name, value)| name == wanted && !value.is_empty())
    });
    if let Some((_, text)) = from_interface {
        return parse(text).map(Some);
    }
    let (v4, v6): (Vec<_>, Vec<_>) = containers.unzip();
    v4.into_iter().chain(v6).find(|text| !text.is_empty()).map(parse).transpose()
}

/// An address that another host can reach. Loopback, link-local, multicast, broadcast and unspecified addresses are never
/// those of a task's network interface; registered, they would lead the mesh's traffic to each proxy's own host.
fn parse(text: &str) -> Result<IpAddr, BadAddress> {
    let address: IpAddr = text.parse().map_err(|_| BadAddress)?;
    let refused = match address.to_canonical() {
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
    };
    if refused { Err(BadAddress) } else { Ok(address) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface<'a>(kind: &'a str, status: &'a str, details: &[(&'a str, &'a str)]) -> Attachment<'a> {
        Attachment { kind, status, details: details.to_vec() }
    }

    fn address(attachments: &[Attachment<'_>], containers: &[(&str, &str)]) -> String {
        match of_task(attachments, containers.iter().copied()) {
            Ok(found) => found.map_or_else(|| "none".to_owned(), |ip| ip.to_string()),
            Err(BadAddress) => "bad".to_owned(),
        }
    }

    #[test]
    fn address_prefers_interface_and_ipv4() {
        let v4 = ("privateIPv4Address", "10.0.0.9");
        let v6 = ("ipv6Address", "2001:db8::9");
        for (attachments, containers, expected) in [
            (vec![interface(INTERFACE, "ATTACHED", &[v6, v4])], vec![("10.0.0.1", "")], "10.0.0.9"),
            (vec![interface(INTERFACE, "ATTACHED", &[v4])], vec![], "10.0.0.9"),
            (vec![interface(INTERFACE, "ATTACHED", &[v6])], vec![("", "2001:db8::1")], "2001:db8::9"),
            (vec![interface(INTERFACE, "PRECREATED", &[])], vec![], "none"),
            (vec![interface(INTERFACE, "ATTACHED", &[])], vec![("", "2001:db8::1")], "2001:db8::1"),
            (
                vec![interface(INTERFACE, "ATTACHED", &[])],
                vec![("", "2001:db8::1"), ("10.0.0.1", "")],
                "10.0.0.1",
            ),
            (vec![interface(INTERFACE, "DELETED", &[v4])], vec![("10.0.0.9", "")], "none"),
            (vec![interface("AmazonElasticBlockStorage", "ATTACHED", &[v4])], vec![], "none"),
            (vec![], vec![("", "")], "none"),
            (vec![], vec![("10.0.0.1", "2001:db8::1")], "10.0.0.1"),
            (vec![interface(INTERFACE, "ATTACHED", &[("privateIPv4Address", "10.0.0")])], vec![], "bad"),
        ] {
            assert_eq!(address(&attachments, &containers), expected);
        }
    }

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
            let v4 = interface(INTERFACE, "ATTACHED", &[("privateIPv4Address", text)]);
            assert_eq!(address(&[v4], &[]), "bad", "{text}");
            assert_eq!(address(&[], &[(text, "")]), "bad", "{text}");
        }
    }
}

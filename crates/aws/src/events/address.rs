//! Selects the task's own address: that of its network interface, else that of its containers, IPv4 before IPv6. A task
//! whose interface is deleted has no address, since another task may have it by now.
//!
//! Events and the API use different spellings: an attachment's type is `eni` in an event and
//! `ElasticNetworkInterface` in the API; the interface has `privateIPv4Address`, a container `privateIpv4Address`.

use std::net::IpAddr;

/// One attachment of a task.
pub(crate) struct Attachment<'a> {
    /// `type`.
    pub(crate) kind: &'a str,
    /// `status`.
    pub(crate) status: &'a str,
    /// `details`, as (name, value).
    pub(crate) details: Vec<(&'a str, &'a str)>,
}

/// An unreadable address; its text is dropped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadAddress;

const INTERFACE_KINDS: [&str; 2] = ["eni", "ElasticNetworkInterface"];
const INTERFACE_ADDRESSES: [&str; 3] = ["privateIPv4Address", "ipv6Address", "privateIPv6Address"];

/// The task's own address. `containers` are the containers' (IPv4, IPv6) pairs; an empty text is no address.
pub(crate) fn of_task<'a>(
    attachments: &[Attachment<'a>],
    containers: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<Option<IpAddr>, BadAddress> {
    let interfaces: Vec<_> = attachments.iter().filter(|a| INTERFACE_KINDS.contains(&a.kind)).collect();
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

fn parse(text: &str) -> Result<IpAddr, BadAddress> {
    text.parse().map_err(|_| BadAddress)
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
            (vec![interface("eni", "ATTACHED", &[v6, v4])], vec![("10.0.0.1", "")], "10.0.0.9"),
            (vec![interface("ElasticNetworkInterface", "ATTACHED", &[v4])], vec![], "10.0.0.9"),
            (vec![interface("eni", "ATTACHED", &[v6])], vec![("", "2001:db8::1")], "2001:db8::9"),
            (vec![interface("eni", "PRECREATED", &[])], vec![], "none"),
            (vec![interface("eni", "ATTACHED", &[])], vec![("", "2001:db8::1")], "2001:db8::1"),
            (
                vec![interface("eni", "ATTACHED", &[])],
                vec![("", "2001:db8::1"), ("10.0.0.1", "")],
                "10.0.0.1",
            ),
            (vec![interface("eni", "DELETED", &[v4])], vec![("10.0.0.9", "")], "none"),
            (vec![interface("AmazonElasticBlockStorage", "ATTACHED", &[v4])], vec![], "none"),
            (vec![], vec![("", "")], "none"),
            (vec![], vec![("10.0.0.1", "2001:db8::1")], "10.0.0.1"),
            (vec![interface("eni", "ATTACHED", &[("privateIPv4Address", "10.0.0")])], vec![], "bad"),
        ] {
            assert_eq!(address(&attachments, &containers), expected);
        }
    }
}

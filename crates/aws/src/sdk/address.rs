//! Reads the addresses of the task's own network interface: the first that has one, else that of its containers. A task
//! whose interface is deleted has no address, since another task may have it by now.
//!
//! ECS gives a task one interface; where a response has several, the first is the one that ECS created the task with, and
//! addresses of two interfaces are never mixed. An interface has `privateIPv4Address`, a container `privateIpv4Address`.
//! Source: <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-networking-awsvpc.html>.

use ecs_mesh_model::InterfaceAddresses;

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
const IPV4: &[&str] = &["privateIPv4Address"];
const IPV6: &[&str] = &["ipv6Address", "privateIPv6Address"];

/// The task's own addresses. `containers` are the containers' (IPv4, IPv6) pairs; an empty text is no address.
pub(super) fn of_task<'a>(
    attachments: &[Attachment<'a>],
    containers: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<InterfaceAddresses, BadAddress> {
    let interfaces: Vec<_> = attachments.iter().filter(|a| a.kind == INTERFACE).collect();
    let (deleted, attached): (Vec<_>, Vec<_>) = interfaces.into_iter().partition(|a| a.status == "DELETED");
    if attached.is_empty() && !deleted.is_empty() {
        return Ok(InterfaceAddresses::NONE);
    }
    let of_interfaces =
        attached.into_iter().map(|interface| (interface.detail(IPV4), interface.detail(IPV6)));
    let mut found = of_interfaces.chain(containers).filter(|(v4, v6)| !v4.is_empty() || !v6.is_empty());
    found.next().map_or(Ok(InterfaceAddresses::NONE), |(v4, v6)| pair(v4, v6))
}

impl<'a> Attachment<'a> {
    /// The first of these details that has a value; empty without one.
    fn detail(&self, names: &[&str]) -> &'a str {
        let values =
            names.iter().flat_map(|wanted| self.details.iter().filter(move |(name, _)| name == wanted));
        values.map(|(_, value)| *value).find(|value| !value.is_empty()).unwrap_or_default()
    }
}

/// The addresses of an interface, from texts that may be empty.
pub(super) fn pair(v4: &str, v6: &str) -> Result<InterfaceAddresses, BadAddress> {
    let (v4, v6) = (parse(v4)?, parse(v6)?);
    InterfaceAddresses::new(v4, v6).map_err(|_| BadAddress)
}

fn parse<T: std::str::FromStr>(text: &str) -> Result<Option<T>, BadAddress> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(|_| BadAddress) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface<'a>(kind: &'a str, status: &'a str, details: &[(&'a str, &'a str)]) -> Attachment<'a> {
        Attachment { kind, status, details: details.to_vec() }
    }

    /// The addresses, IPv4 first.
    fn addresses(attachments: &[Attachment<'_>], containers: &[(&str, &str)]) -> Vec<String> {
        match of_task(attachments, containers.iter().copied()) {
            Ok(found) => found.all().map(|address| address.to_string()).collect(),
            Err(BadAddress) => vec!["bad".to_owned()],
        }
    }

    #[test]
    fn addresses_are_those_of_the_first_interface() {
        let v4 = ("privateIPv4Address", "10.0.0.9");
        let v6 = ("ipv6Address", "2001:db8::9");
        let second = interface(INTERFACE, "ATTACHED", &[("privateIPv4Address", "10.0.0.8")]);
        let attached = |details: &[(&'static str, &'static str)]| interface(INTERFACE, "ATTACHED", details);
        for (attachments, containers, expected) in [
            (vec![attached(&[v6, v4])], vec![("10.0.0.1", "")], vec!["10.0.0.9", "2001:db8::9"]),
            (vec![attached(&[v4])], vec![], vec!["10.0.0.9"]),
            (vec![attached(&[v6])], vec![("10.0.0.1", "2001:db8::1")], vec!["2001:db8::9"]),
            (vec![attached(&[v6]), second], vec![], vec!["2001:db8::9"]),
            (vec![attached(&[]), attached(&[v4])], vec![], vec!["10.0.0.9"]),
            (vec![interface(INTERFACE, "DELETED", &[v4]), attached(&[v6])], vec![], vec!["2001:db8::9"]),
            (vec![interface(INTERFACE, "PRECREATED", &[])], vec![], vec![]),
            (vec![attached(&[])], vec![("", "2001:db8::1")], vec!["2001:db8::1"]),
            (vec![attached(&[])], vec![("", ""), ("10.0.0.1", "")], vec!["10.0.0.1"]),
            (vec![interface(INTERFACE, "DELETED", &[v4])], vec![("10.0.0.9", "")], vec![]),
            (vec![interface("AmazonElasticBlockStorage", "ATTACHED", &[v4])], vec![], vec![]),
            (vec![], vec![("", "")], vec![]),
            (vec![], vec![("10.0.0.1", "2001:db8::1")], vec!["10.0.0.1", "2001:db8::1"]),
            (vec![attached(&[("privateIPv4Address", "10.0.0")])], vec![], vec!["bad"]),
            (vec![attached(&[("privateIPv4Address", "169.254.170.2")])], vec![], vec!["bad"]),
            (vec![], vec![("", "fe80::1")], vec!["bad"]),
        ] {
            assert_eq!(addresses(&attachments, &containers), expected);
        }
    }
}

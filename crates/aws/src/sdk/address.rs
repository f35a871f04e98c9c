//! Reads the addresses of the task's own network interface: the first that has one, else that of its containers. A task
//! whose interface is deleted has no address, since another task may have it by now.
//!
//! ECS gives a task one interface; where a response has several, the first is the one that ECS created the task with, and
//! addresses of two interfaces are never mixed. ECS documents the IPv4 address of an attachment (`privateIPv4Address`), and
//! both families of a container's interface (`privateIpv4Address`, `ipv6Address`), whose `attachmentId` names the attachment.
//! Sources: <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-networking-awsvpc.html>,
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_NetworkInterface.html>.

use std::net::{Ipv4Addr, Ipv6Addr};

use ecs_mesh_model::{InterfaceAddresses, UnreachableAddress};

/// One attachment of a task.
pub(super) struct Attachment<'a> {
    /// `id`.
    pub(super) id: &'a str,
    /// `type`.
    pub(super) kind: &'a str,
    /// `status`.
    pub(super) status: &'a str,
    /// `details`, as (name, value).
    pub(super) details: Vec<(&'a str, &'a str)>,
}

/// One network interface of a container. An empty text is none.
#[derive(Clone, Copy)]
pub(super) struct ContainerInterface<'a> {
    /// `attachmentId`.
    pub(super) attachment: &'a str,
    /// `privateIpv4Address`.
    pub(super) v4: &'a str,
    /// `ipv6Address`.
    pub(super) v6: &'a str,
}

/// Why an interface has no usable address. The address itself is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadAddress {
    /// The field's text is not an address of its family.
    #[error("{0}: not an IP address of this family")]
    Unreadable(&'static str),
    /// No other host reaches the field's address.
    #[error("{0}: {UnreachableAddress}")]
    Unreachable(&'static str),
}

/// Collects the usable addresses of one interface from texts that may be empty: of each family the first one.
#[derive(Debug, Default)]
pub(super) struct AddressReading {
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
    bad: Option<BadAddress>,
}

const INTERFACE: &str = "ElasticNetworkInterface";

/// The task's own addresses.
pub(super) fn of_task(
    attachments: &[Attachment<'_>],
    containers: &[ContainerInterface<'_>],
) -> Result<InterfaceAddresses, BadAddress> {
    let interfaces: Vec<_> = attachments.iter().filter(|a| a.kind == INTERFACE).collect();
    let (deleted, attached): (Vec<_>, Vec<_>) = interfaces.into_iter().partition(|a| a.status == "DELETED");
    if attached.is_empty() && !deleted.is_empty() {
        return Ok(InterfaceAddresses::NONE);
    }
    let of_attachments = attached.into_iter().map(|attachment| attachment.addresses(containers));
    let of_containers = containers.iter().map(|interface| {
        let mut reading = AddressReading::default();
        reading.add_interface(interface);
        reading
    });
    let mut found = of_attachments.chain(of_containers).filter(|reading| !reading.is_empty());
    found.next().map_or(Ok(InterfaceAddresses::NONE), AddressReading::finish)
}

impl<'a> Attachment<'a> {
    /// The attachment's own addresses, and of a family that it lacks that of its containers' interface.
    fn addresses(&self, containers: &[ContainerInterface<'_>]) -> AddressReading {
        let mut reading = AddressReading::default();
        reading.add_v4("attachments[].details[privateIPv4Address]", self.detail("privateIPv4Address"));
        reading.add_v6("attachments[].details[ipv6Address]", self.detail("ipv6Address"));
        reading.add_v6("attachments[].details[privateIPv6Address]", self.detail("privateIPv6Address"));
        let same = containers.iter().filter(|one| !one.attachment.is_empty() && one.attachment == self.id);
        same.for_each(|interface| reading.add_interface(interface));
        reading
    }

    /// A detail's value; empty without one.
    fn detail(&self, name: &str) -> &'a str {
        let mut named = self.details.iter().filter(|(found, value)| *found == name && !value.is_empty());
        named.next().map_or("", |(_, value)| value)
    }
}

impl AddressReading {
    fn add_interface(&mut self, interface: &ContainerInterface<'_>) {
        self.add_v4("containers[].networkInterfaces[].privateIpv4Address", interface.v4);
        self.add_v6("containers[].networkInterfaces[].ipv6Address", interface.v6);
    }

    /// Adds the IPv4 address of this field, unless there is one.
    pub(super) fn add_v4(&mut self, field: &'static str, text: &str) {
        if self.v4.is_none() && !text.is_empty() {
            let read = text.parse().map_err(|_| BadAddress::Unreadable(field));
            self.v4 = self.keep(field, read, |address| InterfaceAddresses::new(Some(address), None));
        }
    }

    /// Adds the IPv6 address of this field, unless there is one.
    pub(super) fn add_v6(&mut self, field: &'static str, text: &str) {
        if self.v6.is_none() && !text.is_empty() {
            let read = text.parse().map_err(|_| BadAddress::Unreadable(field));
            self.v6 = self.keep(field, read, |address| InterfaceAddresses::new(None, Some(address)));
        }
    }

    /// The address if it is usable. The first that is not is recorded.
    fn keep<T: Copy>(
        &mut self,
        field: &'static str,
        read: Result<T, BadAddress>,
        check: impl FnOnce(T) -> Result<InterfaceAddresses, UnreachableAddress>,
    ) -> Option<T> {
        let checked = read.and_then(|address| match check(address) {
            Ok(_) => Ok(address),
            Err(UnreachableAddress) => Err(BadAddress::Unreachable(field)),
        });
        checked.map_err(|bad| self.bad.get_or_insert(bad)).ok()
    }

    /// Whether no text was given.
    fn is_empty(&self) -> bool {
        self.v4.is_none() && self.v6.is_none() && self.bad.is_none()
    }

    /// The addresses.
    ///
    /// # Errors
    /// When texts were given, and none of them is a usable address: the first.
    pub(super) fn finish(self) -> Result<InterfaceAddresses, BadAddress> {
        let addresses = InterfaceAddresses::new(self.v4, self.v6).unwrap_or_default();
        match self.bad {
            Some(bad) if addresses.is_empty() => Err(bad),
            _ => Ok(addresses),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface<'a>(kind: &'a str, status: &'a str, details: &[(&'a str, &'a str)]) -> Attachment<'a> {
        Attachment { id: "eni-1", kind, status, details: details.to_vec() }
    }

    /// The addresses, IPv4 first. `containers` are (attachment, IPv4, IPv6).
    fn addresses(attachments: &[Attachment<'_>], containers: &[(&str, &str, &str)]) -> Vec<String> {
        let interface = |&(attachment, v4, v6)| ContainerInterface { attachment, v4, v6 };
        let containers: Vec<_> = containers.iter().map(interface).collect();
        match of_task(attachments, &containers) {
            Ok(found) => found.all().map(|address| address.to_string()).collect(),
            Err(bad) => vec![bad.to_string()],
        }
    }

    #[test]
    fn addresses_are_those_of_the_first_interface() {
        let v4 = ("privateIPv4Address", "10.0.0.9");
        let v6 = ("ipv6Address", "2001:db8::9");
        let second = interface(INTERFACE, "ATTACHED", &[("privateIPv4Address", "10.0.0.8")]);
        let attached = |details: &[(&'static str, &'static str)]| interface(INTERFACE, "ATTACHED", details);
        for (attachments, containers, expected) in [
            (vec![attached(&[v6, v4])], vec![("", "10.0.0.1", "")], vec!["10.0.0.9", "2001:db8::9"]),
            (vec![attached(&[v4])], vec![], vec!["10.0.0.9"]),
            (vec![attached(&[v6])], vec![("", "10.0.0.1", "2001:db8::1")], vec!["2001:db8::9"]),
            (vec![attached(&[v6]), second], vec![], vec!["2001:db8::9"]),
            (vec![attached(&[]), attached(&[v4])], vec![], vec!["10.0.0.9"]),
            (vec![interface(INTERFACE, "DELETED", &[v4]), attached(&[v6])], vec![], vec!["2001:db8::9"]),
            (vec![interface(INTERFACE, "PRECREATED", &[])], vec![], vec![]),
            (vec![attached(&[])], vec![("", "", "2001:db8::1")], vec!["2001:db8::1"]),
            (vec![attached(&[])], vec![("", "", ""), ("", "10.0.0.1", "")], vec!["10.0.0.1"]),
            (vec![interface(INTERFACE, "DELETED", &[v4])], vec![("", "10.0.0.9", "")], vec![]),
            (vec![interface("AmazonElasticBlockStorage", "ATTACHED", &[v4])], vec![], vec![]),
            (vec![], vec![("", "", "")], vec![]),
            (vec![], vec![("", "10.0.0.1", "2001:db8::1")], vec!["10.0.0.1", "2001:db8::1"]),
        ] {
            assert_eq!(addresses(&attachments, &containers), expected);
        }
    }

    #[test]
    fn family_that_the_attachment_lacks_is_that_of_its_containers() {
        let v4 = ("privateIPv4Address", "10.0.0.9");
        let attached = || interface(INTERFACE, "ATTACHED", &[v4]);
        for (containers, expected) in [
            (vec![("eni-1", "10.0.0.1", "2001:db8::1")], vec!["10.0.0.9", "2001:db8::1"]),
            (vec![("eni-2", "10.0.0.1", "2001:db8::1")], vec!["10.0.0.9"]),
            (vec![("", "10.0.0.1", "2001:db8::1")], vec!["10.0.0.9"]),
            (
                vec![("eni-2", "", "2001:db8::2"), ("eni-1", "", ""), ("eni-1", "", "2001:db8::1")],
                vec!["10.0.0.9", "2001:db8::1"],
            ),
        ] {
            assert_eq!(addresses(&[attached()], &containers), expected, "{containers:?}");
        }
    }

    #[test]
    fn unusable_address_is_an_error_if_no_other_is_left() {
        let no_v4 = "attachments[].details[privateIPv4Address]: not an IP address of this family";
        let far_v4 = "attachments[].details[privateIPv4Address]: an address that no other host can reach";
        let far_v6 = "containers[].networkInterfaces[].ipv6Address: an address that no other host can reach";
        for (v4, v6, container, expected) in [
            ("10.0.0", "", ("", "", ""), vec![no_v4]),
            ("2001:db8::9", "", ("", "", ""), vec![no_v4]),
            ("169.254.170.2", "", ("", "", ""), vec![far_v4]),
            ("", "", ("", "", "fe80::1"), vec![far_v6]),
            ("10.0.0", "fe80::1", ("", "", ""), vec![no_v4]),
            ("10.0.0.9", "fe80::1", ("", "", ""), vec!["10.0.0.9"]),
            ("10.0.0", "2001:db8::9", ("", "", ""), vec!["2001:db8::9"]),
            ("10.0.0.9", "nonsense", ("eni-1", "", "2001:db8::1"), vec!["10.0.0.9", "2001:db8::1"]),
        ] {
            let details = [("privateIPv4Address", v4), ("ipv6Address", v6)];
            let attachment = interface(INTERFACE, "ATTACHED", &details);
            assert_eq!(addresses(&[attachment], &[container]), expected);
        }
    }
}

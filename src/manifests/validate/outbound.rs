//! Rules of outbounds: the ports on which a sidecar can listen.

use std::num::NonZeroU16;

use super::Report;
use crate::api::{Listen, Outbound, OutboundListSpec, WorkloadSpec};
use crate::manifests::outbounds::{addresses_clash, socket};

/// Ports that the sidecar takes for itself, on any address.
const RESERVED: [(u16, &str); 3] = [
    (9901, "the sidecar's admin port"),
    (9902, "the sidecar's readiness port"),
    (15053, "the sidecar's DNS proxy"),
];

/// What the sidecar uses the port for itself.
pub(super) fn reserved(port: NonZeroU16) -> Option<&'static str> {
    RESERVED.iter().find(|(reserved, _)| *reserved == port.get()).map(|(_, what)| *what)
}

pub(super) fn check_list(spec: &OutboundListSpec, report: &mut Report<'_>) {
    if spec.workloads.is_empty() {
        report.add("spec.workloads", "is empty: name at least one Workload, or a pattern over their names");
    }
    report.globs_have_content("spec.workloads", &spec.workloads);
    check_listeners("spec.outbounds", &spec.outbounds, report);
}

/// Reports listeners on reserved ports, and those that meet within one manifest.
pub(super) fn check_listeners(path: &str, outbounds: &[Outbound], report: &mut Report<'_>) {
    for (index, outbound) in outbounds.iter().enumerate() {
        let listen = outbound.listen;
        if let Some(what) = reserved(listen.port) {
            report.add(
                format!("{path}[{index}].listen.port"),
                format!("{} is {what}: choose another", listen.port),
            );
        }
        let clash = outbounds[..index].iter().position(|earlier| {
            earlier.listen.port == listen.port && addresses_clash(earlier.listen.address, listen.address)
        });
        if let Some(earlier) = clash {
            let taken = &outbounds[earlier];
            let message = format!(
                "{} is taken by {path}[{earlier}], on {} for {}:{}: choose another port, or delete one",
                socket(listen),
                socket(taken.listen),
                taken.service,
                taken.target_port
            );
            report.add(format!("{path}[{index}].listen"), message);
        }
    }
}

/// The workload's own field that a listener would be in the way of, and what it is.
///
/// An app without a `serviceAddress` is taken to listen on every address, as most do. The sidecar's own listeners for
/// inbounds are on the task's address, where loopback listeners don't meet them.
pub(super) fn own_port(workload: &WorkloadSpec, listen: Listen) -> Option<(String, String)> {
    workload.inbounds.iter().enumerate().find_map(|(index, inbound)| {
        let path = format!("spec.inbounds[{index}]");
        let port = listen.port;
        let on_app = inbound.service_address.is_none_or(|address| addresses_clash(address, listen.address));
        if inbound.container_port == port && on_app {
            return Some((format!("{path}.containerPort"), format!("the app listens on port {port}")));
        }
        (inbound.port == port && !listen.address.is_loopback())
            .then(|| (format!("{path}.port"), format!("the sidecar listens on port {port} for this inbound")))
    })
}

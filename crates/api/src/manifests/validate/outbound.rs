//! Rules of outbounds: the ports on which a sidecar can listen.

use super::FindingCollector;
use crate::manifests::outbounds::{addresses_clash, reserved, socket};
use crate::{Outbound, OutboundListSpec};

pub(super) fn check_list(spec: &OutboundListSpec, report: &mut FindingCollector<'_>) {
    if spec.workloads.is_empty() {
        report.add("spec.workloads", "is empty: name at least one Workload, or a pattern over their names");
    }
    report.globs_have_content("spec.workloads", &spec.workloads);
    check_listeners("spec.outbounds", &spec.outbounds, report);
}

/// Reports listeners on reserved ports, and listeners of one manifest that collide.
pub(super) fn check_listeners(path: &str, outbounds: &[Outbound], report: &mut FindingCollector<'_>) {
    for (index, outbound) in outbounds.iter().enumerate() {
        let listen = outbound.listen;
        if let Some(user) = reserved(listen.port) {
            report.add(
                format!("{path}[{index}].listen.port"),
                format!("{} is {user}: choose another", listen.port),
            );
        }
        let clash = outbounds[..index].iter().position(|earlier| {
            earlier.listen.port == listen.port && addresses_clash(earlier.listen.address, listen.address)
        });
        if let Some(earlier) = clash {
            let other = &outbounds[earlier];
            let message = format!(
                "{} is taken by {path}[{earlier}], on {} for {}:{}: choose another port, or delete one",
                socket(listen),
                socket(other.listen),
                other.service,
                other.target_port
            );
            report.add(format!("{path}[{index}].listen"), message);
        }
    }
}

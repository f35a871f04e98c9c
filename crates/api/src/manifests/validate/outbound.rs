//! Rules of outbounds: what they call, and the ports on which a sidecar can listen.

use super::FindingCollector;
use crate::manifests::outbounds::{BrokenOutboundRule, addresses_clash, own_port, reserved, socket};
use crate::{Outbound, OutboundListSpec, Reach, WorkloadSpec};

pub(super) fn check_list(spec: &OutboundListSpec, report: &mut FindingCollector<'_>) {
    if spec.workloads.is_empty() {
        report.add("spec.workloads", "is empty: name at least one Workload, or a pattern over their names");
    }
    report.globs_have_content("spec.workloads", &spec.workloads);
    // Whether an outbound needs a listener depends on the workloads. One that has it is complete.
    for (index, outbound) in spec.outbounds.iter().enumerate() {
        let rule = match outbound.listen {
            Some(_) => outbound.as_listener().map(drop),
            None => outbound.as_backend().map(drop),
        };
        add_broken(&format!("spec.outbounds[{index}]"), rule, report);
    }
    check_listeners("spec.outbounds", &spec.outbounds, report);
}

/// The outbounds of a workload, by its `reach`.
pub(super) fn check_own(spec: &WorkloadSpec, report: &mut FindingCollector<'_>) {
    let outbounds = spec.outbounds.as_deref().unwrap_or_default();
    for (index, outbound) in outbounds.iter().enumerate() {
        let path = format!("spec.outbounds[{index}]");
        let rule = match spec.reach {
            Reach::Outbounds => outbound.as_listener().map(drop),
            Reach::BindOutbounds => outbound.as_backend().map(drop),
        };
        add_broken(&path, rule, report);
        match (spec.reach, outbound.listen) {
            (Reach::BindOutbounds, Some(_)) => {
                let message = "has no meaning with reach: bindOutbounds, since the sidecar listens on the address of the \
                               service: leave it out";
                report.add(format!("{path}.listen"), message);
            }
            (Reach::Outbounds, Some(listen)) => {
                if let Some(used) = own_port(spec, listen) {
                    let message = format!("{} is not possible, since {used}: choose another", socket(listen));
                    report.add(format!("{path}.listen"), message);
                }
            }
            (_, None) => {}
        }
    }
    if spec.reach == Reach::Outbounds {
        check_listeners("spec.outbounds", outbounds, report);
    }
}

fn add_broken(path: &str, rule: Result<(), BrokenOutboundRule>, report: &mut FindingCollector<'_>) {
    let Err(BrokenOutboundRule { field, message }) = rule else { return };
    let path = if field.is_empty() { path.to_owned() } else { format!("{path}.{field}") };
    report.add(path, message);
}

/// Reports listeners on reserved ports, and listeners of one manifest that collide.
fn check_listeners(path: &str, outbounds: &[Outbound], report: &mut FindingCollector<'_>) {
    let listeners = || outbounds.iter().enumerate().filter_map(|(at, outbound)| Some((at, outbound.listen?)));
    for (index, listen) in listeners() {
        if let Some(user) = reserved(listen.port) {
            report.add(
                format!("{path}[{index}].listen.port"),
                format!("{} is {user}: choose another", listen.port),
            );
        }
        let clash = listeners().take_while(|(earlier, _)| *earlier < index).find(|(_, earlier)| {
            earlier.port == listen.port && addresses_clash(earlier.address, listen.address)
        });
        if let Some((earlier, other)) = clash {
            let called = outbounds[earlier].as_listener();
            let called =
                called.map(|called| format!(" for {}:{}", called.backend, called.port)).unwrap_or_default();
            let message = format!(
                "{} is taken by {path}[{earlier}], on {}{called}: choose another port, or delete one",
                socket(listen),
                socket(other),
            );
            report.add(format!("{path}[{index}].listen"), message);
        }
    }
}

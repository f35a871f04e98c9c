//! The outbounds of a workload: its own and those of every list that names it, and no port claimed twice.
//!
//! Kuma accepts duplicate ports without a word (seen on 2.14), so this is where they are refused.

use std::net::IpAddr;

use super::Outbounds;
use crate::api::{Listen, Outbound, WorkloadSpec};
use crate::manifests::ManifestSet;

/// Ports that the sidecar itself listens on: Envoy's admin, readiness, and the DNS proxy.
pub const RESERVED: [(u16, &str); 3] = [
    (9901, "Envoy's admin port"),
    (9902, "the sidecar's readiness port"),
    (15053, "the sidecar's DNS proxy"),
];

/// An outbound with the place that asks for it.
struct Claim<'a> {
    outbound: &'a Outbound,
    place: String,
    disputed: bool,
}

/// Adds up the outbounds of the workload called `name`, in a stable order. What is in dispute is told in `warnings`,
/// with the two places that claim it.
pub(super) fn outbounds(
    set: &ManifestSet,
    name: &str,
    workload: &WorkloadSpec,
    warnings: &mut Vec<String>,
) -> Outbounds {
    let mut claims: Vec<Claim<'_>> = Vec::new();
    let own = workload.outbounds.iter().map(|outbound| (outbound, format!("Workload {name}")));
    let lists = set.outbound_lists.iter().filter(|(_, l)| l.workloads.iter().any(|glob| glob.matches(name)));
    let listed = lists.flat_map(|(list, spec)| {
        spec.outbounds.iter().map(move |outbound| (outbound, format!("OutboundList {list}")))
    });
    for (outbound, place) in own.chain(listed) {
        if !claims.iter().any(|claim| claim.outbound == outbound) {
            claims.push(Claim { outbound, place, disputed: false });
        }
    }
    let before = warnings.len();
    refuse_taken_ports(name, workload, &mut claims, warnings);
    refuse_shared_listeners(name, &mut claims, warnings);
    let mut undisputed: Vec<Outbound> =
        claims.iter().filter(|claim| !claim.disputed).map(|claim| claim.outbound.clone()).collect();
    undisputed
        .sort_by(|a, b| (a.listen, &a.service, a.target_port).cmp(&(b.listen, &b.service, b.target_port)));
    // What an invalid document would have asked for is not known, so nothing that is registered may go for its silence.
    if warnings.len() == before && set.complete {
        Outbounds::Exactly(undisputed)
    } else {
        Outbounds::KeepRegistered { fallback: undisputed }
    }
}

fn refuse_taken_ports(
    name: &str,
    workload: &WorkloadSpec,
    claims: &mut [Claim<'_>],
    warnings: &mut Vec<String>,
) {
    let mut taken: Vec<(u16, String)> =
        RESERVED.iter().map(|(port, what)| (*port, (*what).to_owned())).collect();
    for (index, inbound) in workload.inbounds.iter().enumerate() {
        taken
            .push((inbound.container_port.get(), format!("Workload {name} inbounds[{index}].containerPort")));
    }
    for claim in claims {
        let port = claim.outbound.listen.port.get();
        if let Some((_, by)) = taken.iter().find(|(taken, _)| *taken == port) {
            claim.disputed = true;
            warnings.push(format!(
                "port {port} is claimed by {} (outbound to {}) and by {by}; give the outbound another listen.port",
                claim.place, claim.outbound.service
            ));
        }
    }
}

fn refuse_shared_listeners(name: &str, claims: &mut [Claim<'_>], warnings: &mut Vec<String>) {
    for second in 1..claims.len() {
        let (earlier, later) = claims.split_at_mut(second);
        let later = &mut later[0];
        for first in earlier.iter_mut() {
            if overlap(first.outbound.listen, later.outbound.listen) {
                first.disputed = true;
                later.disputed = true;
                warnings.push(format!(
                    "port {} of workload {name} is claimed by {} (for {}:{}) and by {} (for {}:{}); give one of them \
                     another listen.port",
                    later.outbound.listen.port,
                    first.place,
                    first.outbound.service,
                    first.outbound.target_port,
                    later.place,
                    later.outbound.service,
                    later.outbound.target_port,
                ));
            }
        }
    }
}

/// A wildcard address overlaps with every address: on Linux `::` takes IPv4 too.
fn overlap(a: Listen, b: Listen) -> bool {
    let wild = |address: IpAddr| address.is_unspecified();
    a.port == b.port && (a.address == b.address || wild(a.address) || wild(b.address))
}

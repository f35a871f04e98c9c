//! Moves outbounds that several workloads have into an `OutboundList`.

use std::collections::{BTreeMap, BTreeSet};

use ecs_mesh_api::{Outbound, OutboundListSpec, Reach, WorkloadSpec};
use ecs_mesh_model::Glob;

use crate::names::{NameRule, assign};
use crate::output::ImportedManifest;

/// The workloads that share an outbound.
type Callers<'a> = BTreeSet<&'a str>;

/// The outbounds that stay with each workload, and the lists of the others.
pub(super) fn share<'a>(
    workloads: impl Iterator<Item = (&'a str, &'a WorkloadSpec)> + Clone,
) -> (Vec<Option<Vec<Outbound>>>, Vec<ImportedManifest>) {
    let mut callers: BTreeMap<&Outbound, Callers<'_>> = BTreeMap::new();
    for (name, spec) in workloads.clone().filter(|(_, spec)| has_listeners(spec)) {
        for outbound in spec.outbounds.iter().flatten() {
            callers.entry(outbound).or_default().insert(name);
        }
    }
    callers.retain(|_, callers| callers.len() > 1);
    let stays =
        |spec: &WorkloadSpec, outbound: &Outbound| !has_listeners(spec) || !callers.contains_key(outbound);
    let own = workloads
        .map(|(_, spec)| {
            let all = spec.outbounds.as_ref()?;
            let own: Vec<Outbound> = all.iter().filter(|outbound| stays(spec, outbound)).cloned().collect();
            // Reachable backends without an entry are none; listeners without one are left out.
            (!own.is_empty() || !has_listeners(spec)).then_some(own)
        })
        .collect();
    (own, lists(&callers))
}

/// Sidecars that bind their outbounds keep theirs: a list with `listen` would mean another thing for them.
fn has_listeners(spec: &WorkloadSpec) -> bool {
    spec.reach == Reach::Outbounds
}

/// A list for each called backend and its callers.
fn lists(callers: &BTreeMap<&Outbound, Callers<'_>>) -> Vec<ImportedManifest> {
    let mut groups: BTreeMap<(String, &Callers<'_>), Vec<Outbound>> = BTreeMap::new();
    for (outbound, callers) in callers {
        groups.entry((called(outbound), callers)).or_default().push((*outbound).clone());
    }
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    let keys: Vec<String> = groups
        .keys()
        .map(|(called, _)| {
            let number = numbers.entry(called).or_default();
            *number += 1;
            if *number > 1 { format!("{called}-users-{number}") } else { format!("{called}-users") }
        })
        .collect();
    let names = assign(NameRule::Manifest, &keys.iter().map(|key| (key.clone(), key.clone())).collect());
    groups
        .iter()
        .zip(&keys)
        .map(|(((called, callers), outbounds), key)| {
            let workloads = callers.iter().map(|caller| Glob::new(*caller)).collect();
            let spec = OutboundListSpec { workloads, outbounds: outbounds.clone() };
            let comment = format!("Workloads that call {called} in the same way");
            ImportedManifest::outbound_list(&names[key], &comment, &spec)
        })
        .collect()
}

fn called(outbound: &Outbound) -> String {
    let backend = outbound.backend.as_ref().and_then(|backend| backend.name.clone());
    let service = outbound.service.as_ref().map(|service| service.as_str().to_owned());
    service.or(backend).unwrap_or_else(|| "labelled".to_owned())
}

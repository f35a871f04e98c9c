//! The rules between the fields of a manifest and between manifests: what passes here holds together.
//!
//! A manifest that breaks a rule is left out, and with it every manifest that rests on it; each says why.

mod cluster;
mod consul_auth;
mod control_plane;
mod mesh_binding;
mod outbound;
mod workload;

pub(crate) use consul_auth::CONSUL_NAME_RULE;
use workload::BindingMismatch;
pub use workload::{DNS_LABEL, is_dns_label};

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::document::{ManifestKind, Manifest, DocumentOrigin, ManifestSpec, no_such};
use super::finding::ManifestFinding;
use super::outbounds::{OutboundConflict, UsedPort};
use super::set::{Binding, ManifestSet};
use crate::limits::DurationRange;
use crate::{ConsulAuthSpec, ControlPlaneSpec, Discovery, HumanDuration, MeshBindingSpec, WorkloadSpec};
use ecs_mesh_model::{Glob, MeshName, Timestamp};

/// What all documents together come to.
pub struct Assembled {
    /// The valid ones; `generation` and `complete` are not decided here.
    pub set: ManifestSet,
    /// What is invalid.
    pub errors: Vec<ManifestFinding>,
    /// What is valid and most likely not meant.
    pub warnings: Vec<ManifestFinding>,
}

/// Where the rules of one manifest put what they find.
struct FindingCollector<'a> {
    origin: &'a DocumentOrigin,
    findings: &'a mut Vec<ManifestFinding>,
}

impl FindingCollector<'_> {
    fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.findings.push(self.origin.finding(path, message));
    }

    fn number<T: PartialOrd + Display>(&mut self, path: &str, value: &T, allowed: &RangeInclusive<T>) {
        if !allowed.contains(value) {
            let message = format!("{value} is out of range: write {} to {}", allowed.start(), allowed.end());
            self.add(path, message);
        }
    }

    fn duration(&mut self, path: &str, value: HumanDuration, allowed: DurationRange) {
        if !(allowed.min..=allowed.max).contains(&value.0) {
            self.add(path, format!("{value} is out of range: write {}", allowed.description));
        }
    }

    fn globs_have_content(&mut self, path: &str, globs: &[Glob]) {
        for (index, glob) in globs.iter().enumerate() {
            if glob.as_str().trim().is_empty() {
                self.add(format!("{path}[{index}]"), "is empty: write a name or a pattern with * and ?");
            }
        }
    }
}

/// Whether the manifests are all that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManifestScope {
    /// They are: what they refer to must be among them.
    Complete,
    /// There may be others: a name that is not among them is taken to be right.
    Partial,
}

/// Puts the manifests together.
pub fn assemble(mut manifests: Vec<Manifest>, extent: ManifestScope) -> Assembled {
    let (mut errors, mut warnings) = (Vec::new(), Vec::new());
    refuse_duplicates(&mut manifests, &mut errors);
    for manifest in &mut manifests {
        let before = errors.len();
        let mut report = FindingCollector { origin: &manifest.origin, findings: &mut errors };
        match &manifest.spec {
            Some(ManifestSpec::ControlPlane(spec)) => {
                let mut warn = FindingCollector { origin: &manifest.origin, findings: &mut warnings };
                control_plane::check(spec, &mut report, &mut warn);
            }
            Some(ManifestSpec::MeshBinding(spec)) => mesh_binding::check(spec, &mut report),
            Some(ManifestSpec::Workload(spec)) => workload::check(spec, &mut report),
            Some(ManifestSpec::OutboundList(spec)) => outbound::check_list(spec, &mut report),
            Some(ManifestSpec::ConsulAuth(spec)) => {
                let mut warn = FindingCollector { origin: &manifest.origin, findings: &mut warnings };
                consul_auth::check(spec, &mut report, &mut warn);
            }
            None => {}
        }
        if errors.len() > before {
            manifest.spec = None;
        }
    }
    let mut assembly = Assembly::over(&manifests, extent, errors, warnings);
    assembly.take(manifests);
    if extent == ManifestScope::Complete {
        assembly.warn_of_idle_patterns();
    }
    assembly.warn_of_conflicting_outbounds();
    let Assembly { set, errors, warnings, .. } = assembly;
    Assembled { set, errors, warnings }
}

fn refuse_duplicates(manifests: &mut [Manifest], errors: &mut Vec<ManifestFinding>) {
    let mut first: BTreeMap<(ManifestKind, Arc<str>), usize> = BTreeMap::new();
    for index in 0..manifests.len() {
        let Manifest { kind, name, origin, .. } = &manifests[index];
        let Some(&earlier) = first.get(&(*kind, Arc::clone(name))) else {
            first.insert((*kind, Arc::clone(name)), index);
            continue;
        };
        let place = manifests[earlier].origin.place();
        let message =
            format!("{kind} {name} is also at {place}: names are unique within a kind: rename or delete one");
        errors.push(origin.finding("metadata.name", message));
        // Which of the two is meant is not ours to guess.
        manifests[index].spec = None;
        manifests[earlier].spec = None;
    }
}

/// The partition of who names none (Enterprise).
const DEFAULT_PARTITION: &str = "default";

/// Servers and partition, as far as a control plane's manifest tells them. Without a partition it is `default`.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct ConsulLocationKey {
    address: Option<String>,
    datacenter: Option<String>,
    partition: Option<String>,
}

impl ConsulLocationKey {
    fn of(control_plane: &ControlPlaneSpec) -> Self {
        let consul = control_plane.consul.as_ref();
        Self {
            address: consul.map(|consul| consul.address.trim_end_matches('/').to_ascii_lowercase()),
            datacenter: consul.and_then(|consul| consul.datacenter.clone()),
            partition: consul
                .map(|consul| consul.partition.clone().unwrap_or_else(|| DEFAULT_PARTITION.to_owned())),
        }
    }
}

struct Assembly {
    extent: ManifestScope,
    set: ManifestSet,
    /// Bindings that are valid as far as can be seen, and rest on a control plane that is not given.
    open_bindings: BTreeSet<Arc<str>>,
    /// Every name that some document has, whether or not the document is valid.
    named: BTreeSet<(ManifestKind, Arc<str>)>,
    workload_origins: BTreeMap<Arc<str>, DocumentOrigin>,
    list_origins: BTreeMap<Arc<str>, DocumentOrigin>,
    /// Which `ConsulAuth` is for which servers, and where it is.
    auths_by_place: BTreeMap<ConsulLocationKey, (Arc<str>, DocumentOrigin)>,
    errors: Vec<ManifestFinding>,
    warnings: Vec<ManifestFinding>,
}

impl Assembly {
    fn over(manifests: &[Manifest], extent: ManifestScope, errors: Vec<ManifestFinding>, warnings: Vec<ManifestFinding>) -> Self {
        Self {
            extent,
            set: ManifestSet::default(),
            open_bindings: BTreeSet::new(),
            named: manifests.iter().map(|manifest| (manifest.kind, Arc::clone(&manifest.name))).collect(),
            workload_origins: BTreeMap::new(),
            list_origins: BTreeMap::new(),
            auths_by_place: BTreeMap::new(),
            errors,
            warnings,
        }
    }

    /// Takes each valid manifest whose references hold, those that others rest on first.
    fn take(&mut self, mut manifests: Vec<Manifest>) {
        manifests.sort_by_key(|manifest| manifest.kind);
        for Manifest { name, origin, spec, .. } in manifests {
            match spec {
                Some(ManifestSpec::ControlPlane(spec)) => {
                    self.set.control_planes.insert(name, Arc::new(spec));
                }
                Some(ManifestSpec::MeshBinding(spec)) => self.take_binding(name, &origin, spec),
                Some(ManifestSpec::Workload(spec)) => self.take_workload(name, origin, spec),
                Some(ManifestSpec::OutboundList(spec)) => {
                    self.set.outbound_lists.insert(Arc::clone(&name), Arc::new(spec));
                    self.list_origins.insert(name, origin);
                }
                Some(ManifestSpec::ConsulAuth(spec)) => self.take_consul_auth(name, &origin, spec),
                None => {}
            }
        }
    }

    fn take_binding(&mut self, name: Arc<str>, origin: &DocumentOrigin, mut spec: MeshBindingSpec) {
        let Some(control_plane) = self.set.control_planes.get(spec.control_plane.as_str()) else {
            if self.may_be_outside(ManifestKind::ControlPlane, &spec.control_plane) {
                self.open_bindings.insert(name);
                return;
            }
            let message = self.broken_reference(ManifestKind::ControlPlane, &spec.control_plane);
            self.errors.push(origin.finding("spec.controlPlane", message));
            return;
        };
        let before = self.errors.len();
        mesh_binding::check_against_control_plane(&spec, control_plane, |path, message| {
            self.errors.push(origin.finding(path, message));
        });
        if self.errors.len() > before {
            return;
        }
        let control_plane_type = control_plane.kind;
        // Left out, Consul's mesh is the partition, as registrations there say.
        if let Some(partition) = control_plane.consul.as_ref().and_then(|consul| consul.partition.as_deref())
            && let Ok(partition) = MeshName::parse(partition)
        {
            spec.mesh = partition;
        }
        let guard_released_until = spec.cleanup.guard.release_until.as_deref().and_then(Timestamp::parse);
        let binding = Binding { name: Arc::clone(&name), spec, control_plane_type, guard_released_until };
        self.set.bindings.insert(name, Arc::new(binding));
    }

    fn take_consul_auth(&mut self, name: Arc<str>, origin: &DocumentOrigin, spec: ConsulAuthSpec) {
        let Some(control_plane) = self.set.control_planes.get(spec.control_plane.as_str()) else {
            if !self.may_be_outside(ManifestKind::ControlPlane, &spec.control_plane) {
                let message = self.broken_reference(ManifestKind::ControlPlane, &spec.control_plane);
                self.errors.push(origin.finding("spec.controlPlane", message));
            }
            return;
        };
        let Some(consul) = &control_plane.consul else {
            let (of, kind) = (&spec.control_plane, control_plane.kind.as_str());
            let message = format!("ControlPlane {of} is of type {kind}: name one of type consul");
            self.errors.push(origin.finding("spec.controlPlane", message));
            return;
        };
        let before = self.errors.len();
        consul_auth::check_against_control_plane(&spec, consul, |path, message| {
            self.errors.push(origin.finding(path, message));
        });
        let place = ConsulLocationKey::of(control_plane);
        if let Some((other, at)) = self.auths_by_place.get(&place) {
            // Which of the two is meant is not ours to guess.
            self.set.consul_auths.remove(other);
            for (of, who, place) in [(origin, other, at.place()), (at, &name, origin.place())] {
                let message = format!(
                    "the same servers and partition are also those of ConsulAuth {who} at {place}: keep one of the \
                     two, since each would undo the other"
                );
                self.errors.push(of.finding("spec.controlPlane", message));
            }
        }
        self.auths_by_place.entry(place).or_insert_with(|| (Arc::clone(&name), origin.clone()));
        if self.errors.len() == before {
            self.set.consul_auths.insert(name, Arc::new(spec));
        }
    }

    fn take_workload(&mut self, name: Arc<str>, origin: DocumentOrigin, spec: WorkloadSpec) {
        let before = self.errors.len();
        for (index, binding) in spec.bindings.iter().enumerate() {
            let is_there = self.set.bindings.contains_key(binding.as_str())
                || self.open_bindings.contains(binding.as_str())
                || self.may_be_outside(ManifestKind::MeshBinding, binding);
            if !is_there {
                let message = self.broken_reference(ManifestKind::MeshBinding, binding);
                self.errors.push(origin.finding(format!("spec.bindings[{index}]"), message));
            }
        }
        self.check_service(&origin, &spec);
        if self.errors.len() == before {
            self.set.workloads.insert(Arc::clone(&name), Arc::new(spec));
            self.workload_origins.insert(name, origin);
        }
    }

    /// Where no binding is named, any may take the workload's tasks.
    fn check_service(&mut self, origin: &DocumentOrigin, spec: &WorkloadSpec) {
        let is_for = |name: &str| spec.bindings.is_empty() || spec.bindings.iter().any(|one| one == name);
        let bindings = self.set.bindings.values().map(Arc::as_ref).filter(|binding| is_for(&binding.name));
        let has = |name: &str| self.set.bindings.contains_key(name);
        let named = self.named.iter().filter(|(kind, _)| *kind == ManifestKind::MeshBinding);
        let all_known = if spec.bindings.is_empty() {
            self.extent == ManifestScope::Complete && named.map(|(_, name)| name).all(|name| has(name))
        } else {
            spec.bindings.iter().all(|name| has(name))
        };
        match workload::refused_by_consul(spec, bindings, all_known) {
            None => {}
            Some(BindingMismatch::Everywhere(message)) => {
                self.errors.push(origin.finding("spec.service", message));
            }
            Some(BindingMismatch::Somewhere(message)) => {
                self.warnings.push(origin.finding("spec.service", message));
            }
        }
    }

    fn may_be_outside(&self, kind: ManifestKind, name: &str) -> bool {
        self.extent == ManifestScope::Partial && !self.named.contains(&(kind, name.into()))
    }

    fn broken_reference(&self, kind: ManifestKind, name: &str) -> String {
        if self.named.contains(&(kind, name.into())) {
            return format!("rests on {kind} {name}, which has an error of its own");
        }
        let known: Vec<&str> =
            self.named.iter().filter(|(other, _)| *other == kind).map(|(_, name)| name.as_ref()).collect();
        no_such(kind, name, &known)
    }

    /// Where tasks may also be described by their tags, names of services are not known here, and a pattern that
    /// matches no `Workload` may well be right.
    fn warn_of_idle_patterns(&mut self) {
        if self.set.bindings.values().any(|binding| binding.spec.discovery == Discovery::Tags) {
            return;
        }
        let known: Vec<&str> = self
            .named
            .iter()
            .filter(|(kind, _)| *kind == ManifestKind::Workload)
            .map(|(_, name)| name.as_ref())
            .collect();
        for (name, list) in &self.set.outbound_lists {
            for (index, glob) in list.workloads.iter().enumerate() {
                if known.iter().any(|workload| glob.matches(workload)) {
                    continue;
                }
                let message = if glob.is_literal() {
                    no_such(ManifestKind::Workload, glob.as_str(), &known)
                } else {
                    format!("the pattern {:?} matches no Workload", glob.as_str())
                };
                self.warnings
                    .push(self.list_origins[name].finding(format!("spec.workloads[{index}]"), message));
            }
        }
    }

    fn warn_of_conflicting_outbounds(&mut self) {
        for (name, workload) in &self.set.workloads {
            let origin = &self.workload_origins[name];
            for conflict in self.set.merged_outbounds(name, workload).conflicts {
                let message = format!("{conflict}. Until then its tasks keep the outbounds that they have");
                let field = match conflict {
                    OutboundConflict::PortInUse { by: UsedPort { field: Some(field), .. }, .. } => field,
                    _ => "spec.outbounds".to_owned(),
                };
                self.warnings.push(origin.finding(field, message));
            }
        }
    }
}

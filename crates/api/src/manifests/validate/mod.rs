//! The rules between the fields of a manifest and between manifests. A set that passes is consistent.
//!
//! A manifest that breaks a rule is omitted, together with every manifest that refers to it. Each is reported.

mod aws_account;
mod cluster;
mod consul_auth;
mod control_plane;
mod dialects;
mod mesh_binding;
mod no_effect;
mod outbound;
mod proxy;
mod tokens;
mod workload;

use workload::BindingMismatch;
pub use workload::{broken_description, is_dns_label};

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::document::{DocumentOrigin, Manifest, ManifestKind, ManifestSpec, not_found};
use super::finding::ManifestFinding;
use super::outbounds::{DeclaredReach, OutboundConflict, UsedPort};
use super::set::{Binding, ManifestSet};
use crate::limits::DurationRange;
use crate::{
    AllowList, AwsAccountSpec, ConsulAuthSpec, ControlPlaneSpec, Discovery, HumanDuration, MeshBindingSpec,
    TokenPolicy, TokenStoreKind, WorkloadSpec,
};
use ecs_mesh_model::{Glob, MeshName, Timestamp};

/// The result of assembling all documents.
pub struct Assembled {
    /// The valid manifests. The caller sets `generation` and `complete`.
    pub set: ManifestSet,
    /// Errors.
    pub errors: Vec<ManifestFinding>,
    /// Warnings: valid values that are probably unintended.
    pub warnings: Vec<ManifestFinding>,
}

/// Collects the findings of one manifest's rules.
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

/// Whether the given manifests are all manifests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManifestScope {
    /// They are: every reference must resolve.
    Complete,
    /// There may be others: an unknown reference is accepted.
    Partial,
}

/// Checks all rules and assembles the valid manifests.
pub fn assemble(mut manifests: Vec<Manifest>, scope: ManifestScope) -> Assembled {
    let (mut errors, mut warnings) = (Vec::new(), Vec::new());
    reject_duplicates(&mut manifests, &mut errors);
    for manifest in &mut manifests {
        let Manifest { spec, draft, origin, .. } = &*manifest;
        let found = match (spec, draft) {
            (Some(spec), _) => broken_rules(spec, origin),
            (None, Some(draft)) => BrokenRules {
                errors: draft.findings(|spec| broken_rules(spec, origin).errors),
                warnings: draft.findings(|spec| broken_rules(spec, origin).warnings),
            },
            (None, None) => continue,
        };
        if !found.errors.is_empty() {
            manifest.invalidate();
        }
        errors.extend(found.errors);
        warnings.extend(found.warnings);
    }
    let mut assembly = Assembly::over(&manifests, scope, errors, warnings);
    assembly.check_drafts(&manifests);
    assembly.add_all(manifests);
    if scope == ManifestScope::Complete {
        assembly.warn_unmatched_patterns();
    }
    assembly.warn_of_reach();
    assembly.warn_of_no_effect();
    assembly.warn_of_dialects();
    assembly.warn_of_unread_clusters();
    let Assembly { set, errors, warnings, .. } = assembly;
    Assembled { set, errors, warnings }
}

/// Errors for the files and environment variables that manifests may not name. An operator with another list refuses
/// others, when it connects.
pub fn refused_sources(manifests: &[Manifest], allowed: &AllowList) -> Vec<ManifestFinding> {
    let check = |spec: &ManifestSpec, origin: &DocumentOrigin| {
        let mut findings = Vec::new();
        if let ManifestSpec::ControlPlane(spec) = spec {
            let mut report = FindingCollector { origin, findings: &mut findings };
            control_plane::check_allowed(spec, allowed, &mut report);
        }
        findings
    };
    let of_manifest = |Manifest { spec, draft, origin, .. }: &Manifest| match (spec, draft) {
        (Some(spec), _) => check(spec, origin),
        (None, Some(draft)) => draft.findings(|spec| check(spec, origin)),
        (None, None) => Vec::new(),
    };
    manifests.iter().flat_map(of_manifest).collect()
}

/// The findings of the rules on one manifest.
#[derive(Default)]
struct BrokenRules {
    errors: Vec<ManifestFinding>,
    warnings: Vec<ManifestFinding>,
}

fn broken_rules(spec: &ManifestSpec, origin: &DocumentOrigin) -> BrokenRules {
    let mut found = BrokenRules::default();
    let mut report = FindingCollector { origin, findings: &mut found.errors };
    let mut warn = FindingCollector { origin, findings: &mut found.warnings };
    match spec {
        ManifestSpec::ControlPlane(spec) => control_plane::check(spec, &mut report, &mut warn),
        ManifestSpec::MeshBinding(spec) => mesh_binding::check(spec, &mut report),
        ManifestSpec::Workload(spec) => workload::check(spec, &mut report),
        ManifestSpec::OutboundList(spec) => outbound::check_list(spec, &mut report),
        ManifestSpec::ConsulAuth(spec) => consul_auth::check(spec, &mut report, &mut warn),
        ManifestSpec::AwsAccount(spec) => aws_account::check(spec, &mut report),
    }
    found
}

fn reject_duplicates(manifests: &mut [Manifest], errors: &mut Vec<ManifestFinding>) {
    let mut first: BTreeMap<(ManifestKind, Arc<str>), usize> = BTreeMap::new();
    for index in 0..manifests.len() {
        let Manifest { kind, name, origin, .. } = &manifests[index];
        if name.is_empty() {
            continue;
        }
        let Some(&earlier) = first.get(&(*kind, Arc::clone(name))) else {
            first.insert((*kind, Arc::clone(name)), index);
            continue;
        };
        let location = manifests[earlier].origin.location();
        let message = format!(
            "{kind} {name} is also at {location}: names are unique within a kind: rename or delete one"
        );
        errors.push(origin.finding("metadata.name", message));
        // Either may be the intended one.
        manifests[index].invalidate();
        manifests[earlier].invalidate();
    }
}

/// The default partition (Enterprise).
const DEFAULT_PARTITION: &str = "default";

/// The servers and the partition of a control plane, as far as its manifest declares them.
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

/// The path of a binding's stored tokens.
struct TokenPathUse {
    binding: Arc<str>,
    store: TokenStoreKind,
    path: String,
    origin: DocumentOrigin,
}

struct Assembly {
    scope: ManifestScope,
    set: ManifestSet,
    /// Valid bindings whose control plane is outside the given manifests.
    external_bindings: BTreeSet<Arc<str>>,
    /// The names of all documents, valid or not.
    names: BTreeSet<(ManifestKind, Arc<str>)>,
    binding_origins: BTreeMap<Arc<str>, DocumentOrigin>,
    workload_origins: BTreeMap<Arc<str>, DocumentOrigin>,
    list_origins: BTreeMap<Arc<str>, DocumentOrigin>,
    /// The `ConsulAuth` of each Consul location, with its origin.
    auths_by_location: BTreeMap<ConsulLocationKey, (Arc<str>, DocumentOrigin)>,
    /// The `AwsAccount` of each account, with its origin.
    accounts: BTreeMap<String, (Arc<str>, DocumentOrigin)>,
    /// The bindings with a path of stored tokens.
    token_paths: Vec<TokenPathUse>,
    errors: Vec<ManifestFinding>,
    warnings: Vec<ManifestFinding>,
}

impl Assembly {
    fn over(
        manifests: &[Manifest],
        scope: ManifestScope,
        errors: Vec<ManifestFinding>,
        warnings: Vec<ManifestFinding>,
    ) -> Self {
        let named = manifests.iter().filter(|manifest| !manifest.name.is_empty());
        Self {
            scope,
            set: ManifestSet::default(),
            external_bindings: BTreeSet::new(),
            names: named.map(|manifest| (manifest.kind, Arc::clone(&manifest.name))).collect(),
            binding_origins: BTreeMap::new(),
            workload_origins: BTreeMap::new(),
            list_origins: BTreeMap::new(),
            auths_by_location: BTreeMap::new(),
            accounts: BTreeMap::new(),
            token_paths: Vec::new(),
            errors,
            warnings,
        }
    }

    /// Adds each valid manifest whose references resolve, dependencies first.
    fn add_all(&mut self, mut manifests: Vec<Manifest>) {
        manifests.sort_by_key(|manifest| manifest.kind);
        for Manifest { name, origin, spec, .. } in manifests {
            match spec {
                Some(ManifestSpec::ControlPlane(spec)) => {
                    self.set.control_planes.insert(name, Arc::new(spec));
                }
                Some(ManifestSpec::MeshBinding(spec)) => self.add_binding(name, &origin, spec),
                Some(ManifestSpec::Workload(spec)) => self.add_workload(name, origin, spec),
                Some(ManifestSpec::OutboundList(spec)) => {
                    self.set.outbound_lists.insert(Arc::clone(&name), Arc::new(spec));
                    self.list_origins.insert(name, origin);
                }
                Some(ManifestSpec::ConsulAuth(spec)) => self.add_consul_auth(name, &origin, spec),
                Some(ManifestSpec::AwsAccount(spec)) => self.add_aws_account(name, origin, spec),
                None => {}
            }
        }
    }

    /// Reports references of invalid manifests to names that no manifest has. A reference to an invalid manifest is not an
    /// error of its own.
    fn check_drafts(&mut self, manifests: &[Manifest]) {
        for Manifest { draft, origin, .. } in manifests {
            let Some(draft) = draft else { continue };
            let broken = draft.findings(|spec| self.unknown_references(spec, origin));
            self.errors.extend(broken);
        }
    }

    fn unknown_references(&self, spec: &ManifestSpec, origin: &DocumentOrigin) -> Vec<ManifestFinding> {
        let references: Vec<(String, ManifestKind, &str)> = match spec {
            ManifestSpec::MeshBinding(MeshBindingSpec { control_plane, .. })
            | ManifestSpec::ConsulAuth(ConsulAuthSpec { control_plane, .. }) => {
                vec![("spec.controlPlane".to_owned(), ManifestKind::ControlPlane, control_plane)]
            }
            ManifestSpec::Workload(spec) => {
                let bindings = spec.bindings.iter().enumerate();
                let named = bindings.map(|(index, name)| {
                    (format!("spec.bindings[{index}]"), ManifestKind::MeshBinding, name.as_str())
                });
                named.collect()
            }
            ManifestSpec::ControlPlane(_) | ManifestSpec::OutboundList(_) | ManifestSpec::AwsAccount(_) => {
                Vec::new()
            }
        };
        let unknown = references.into_iter().filter(|(_, kind, name)| {
            !self.names.contains(&(*kind, (*name).into())) && !self.may_be_external(*kind, name)
        });
        unknown.map(|(path, kind, name)| origin.finding(path, self.broken_reference(kind, name))).collect()
    }

    fn add_binding(&mut self, name: Arc<str>, origin: &DocumentOrigin, mut spec: MeshBindingSpec) {
        let declared = self.set.control_planes.get(spec.control_plane.as_str()).map(Arc::clone);
        let Some(control_plane) = declared else {
            if self.may_be_external(ManifestKind::ControlPlane, &spec.control_plane) {
                self.external_bindings.insert(name);
                return;
            }
            let message = self.broken_reference(ManifestKind::ControlPlane, &spec.control_plane);
            self.errors.push(origin.finding("spec.controlPlane", message));
            return;
        };
        let before = self.errors.len();
        mesh_binding::check_against_control_plane(&spec, &control_plane, |path, message| {
            self.errors.push(origin.finding(path, message));
        });
        if self.errors.len() > before {
            return;
        }
        let control_plane_type = control_plane.kind;
        self.check_token_path(&name, origin, &mut spec);
        // At Consul the mesh is the partition, as in its registrations.
        if let Some(partition) = control_plane.consul.as_ref().and_then(|consul| consul.partition.as_deref())
            && let Ok(partition) = MeshName::parse(partition)
        {
            spec.mesh = partition;
        }
        let guard_released_until = spec.cleanup.guard.release_until.as_deref().and_then(Timestamp::parse);
        let binding = Binding { name: Arc::clone(&name), spec, control_plane_type, guard_released_until };
        self.binding_origins.insert(Arc::clone(&name), origin.clone());
        self.set.bindings.insert(name, Arc::new(binding));
    }

    /// Each binding has a path of its own: two would take each other's tokens for withdrawn ones. Where paths overlap, both
    /// bindings lose their `tokens`, since either may be the intended one; what else they declare stays in force.
    fn check_token_path(&mut self, name: &Arc<str>, origin: &DocumentOrigin, spec: &mut MeshBindingSpec) {
        let Some(path) = spec.tokens.path.clone() else { return };
        let store = spec.tokens.store;
        for other in &self.token_paths {
            if other.store != store || !tokens::overlap(&other.path, &path) {
                continue;
            }
            spec.tokens = TokenPolicy::default();
            if let Some(binding) = self.set.bindings.get_mut(&other.binding) {
                Arc::make_mut(binding).spec.tokens = TokenPolicy::default();
            }
            for (document, rival, path, location) in [
                (origin, &other.binding, &other.path, other.origin.location()),
                (&other.origin, name, &path, origin.location()),
            ] {
                let message = format!(
                    "overlaps the path {path} of MeshBinding {rival} at {location}: give each binding a path of its own"
                );
                self.errors.push(document.finding("spec.tokens.path", message));
            }
        }
        let binding = Arc::clone(name);
        self.token_paths.push(TokenPathUse { binding, store, path, origin: origin.clone() });
    }

    fn add_consul_auth(&mut self, name: Arc<str>, origin: &DocumentOrigin, spec: ConsulAuthSpec) {
        let Some(control_plane) = self.set.control_planes.get(spec.control_plane.as_str()) else {
            if !self.may_be_external(ManifestKind::ControlPlane, &spec.control_plane) {
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
        let location = ConsulLocationKey::of(control_plane);
        if let Some((other, at)) = self.auths_by_location.get(&location) {
            // Either may be the intended one.
            self.set.consul_auths.remove(other);
            for (document, rival, location) in
                [(origin, other, at.location()), (at, &name, origin.location())]
            {
                let message = format!(
                    "the same servers and partition are also those of ConsulAuth {rival} at {location}: keep one of the \
                     two, since each would undo the other"
                );
                self.errors.push(document.finding("spec.controlPlane", message));
            }
        }
        self.auths_by_location.entry(location).or_insert_with(|| (Arc::clone(&name), origin.clone()));
        if self.errors.len() == before {
            self.set.consul_auths.insert(name, Arc::new(spec));
        }
    }

    fn add_aws_account(&mut self, name: Arc<str>, origin: DocumentOrigin, spec: AwsAccountSpec) {
        let Some((other, at)) = self.accounts.get(&spec.account) else {
            self.accounts.insert(spec.account.clone(), (Arc::clone(&name), origin));
            self.set.aws_accounts.insert(name, Arc::new(spec));
            return;
        };
        // Either may be the intended one.
        self.set.aws_accounts.remove(other);
        for (document, rival, location) in [(&origin, other, at.location()), (at, &name, origin.location())] {
            let message = format!(
                "is also the account of AwsAccount {rival} at {location}: keep one, with all Regions"
            );
            self.errors.push(document.finding("spec.account", message));
        }
    }

    fn add_workload(&mut self, name: Arc<str>, origin: DocumentOrigin, spec: WorkloadSpec) {
        let before = self.errors.len();
        for (index, binding) in spec.bindings.iter().enumerate() {
            let resolves = self.set.bindings.contains_key(binding.as_str())
                || self.external_bindings.contains(binding.as_str())
                || self.may_be_external(ManifestKind::MeshBinding, binding);
            if !resolves {
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

    /// Checks the service against the workload's bindings; without `bindings`, against all.
    fn check_service(&mut self, origin: &DocumentOrigin, spec: &WorkloadSpec) {
        let is_for = |name: &str| spec.bindings.is_empty() || spec.bindings.iter().any(|one| one == name);
        let bindings = self.set.bindings.values().map(Arc::as_ref).filter(|binding| is_for(&binding.name));
        match workload::refused_by_consul(spec, bindings, self.knows_all_bindings(spec)) {
            None => {}
            Some(BindingMismatch::Everywhere(message)) => {
                self.errors.push(origin.finding("spec.service", message));
            }
            Some(BindingMismatch::Somewhere(message)) => {
                self.warnings.push(origin.finding("spec.service", message));
            }
        }
    }

    /// Whether all bindings that the workload can have are known.
    fn knows_all_bindings(&self, spec: &WorkloadSpec) -> bool {
        let has = |name: &str| self.set.bindings.contains_key(name);
        if spec.bindings.is_empty() {
            let named = self.names.iter().filter(|(kind, _)| *kind == ManifestKind::MeshBinding);
            self.scope == ManifestScope::Complete && named.map(|(_, name)| name).all(|name| has(name))
        } else {
            spec.bindings.iter().all(|name| has(name))
        }
    }

    fn may_be_external(&self, kind: ManifestKind, name: &str) -> bool {
        self.scope == ManifestScope::Partial && !self.names.contains(&(kind, name.into()))
    }

    fn broken_reference(&self, kind: ManifestKind, name: &str) -> String {
        if self.names.contains(&(kind, name.into())) {
            return format!("refers to {kind} {name}, which is invalid");
        }
        let known: Vec<&str> =
            self.names.iter().filter(|(other, _)| *other == kind).map(|(_, name)| name.as_ref()).collect();
        not_found(kind, name, &known)
    }

    /// Warns of patterns that match no `Workload`, unless tasks may be described by tags, whose services are unknown here.
    fn warn_unmatched_patterns(&mut self) {
        let bindings = self.names.iter().filter(|(kind, _)| *kind == ManifestKind::MeshBinding);
        let may_discover_by_tags = |name: &Arc<str>| {
            self.set.bindings.get(name).is_none_or(|binding| binding.spec.discovery == Discovery::Tags)
        };
        if bindings.map(|(_, name)| name).any(may_discover_by_tags) {
            return;
        }
        let known: Vec<&str> = self
            .names
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
                    not_found(ManifestKind::Workload, glob.as_str(), &known)
                } else {
                    format!("the pattern {:?} matches no Workload", glob.as_str())
                };
                self.warnings
                    .push(self.list_origins[name].finding(format!("spec.workloads[{index}]"), message));
            }
        }
    }

    /// Warns of outbounds that are not possible, and of workloads whose sidecars bind every service.
    fn warn_of_reach(&mut self) {
        for (name, workload) in &self.set.workloads {
            let origin = &self.workload_origins[name];
            let conflicts = match self.set.declared_reach(name, workload) {
                DeclaredReach::Listeners(merged) => merged.conflicts,
                DeclaredReach::EveryBackend if self.scope == ManifestScope::Complete => {
                    let message = "no outbounds are declared, so with reach: bindOutbounds each sidecar binds every service of \
                                   the mesh: list those that the workload calls";
                    self.warnings.push(origin.finding("spec.reach", message));
                    continue;
                }
                DeclaredReach::EveryBackend | DeclaredReach::Backends(_) => continue,
            };
            for conflict in conflicts {
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

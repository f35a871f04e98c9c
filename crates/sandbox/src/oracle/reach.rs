//! Judges what clients reach: no change of the mesh, and no upgrade, may take an outbound or an endpoint from them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{DRAIN_LABEL, OPERATOR_LABEL, label};
use crate::kuma::{KumaCp, ReachedService, outbounds_by_tag, service_of};
use ecs_mesh_model::Timestamp;

/// An outbound or an endpoint that a client lost, or a service that it should not reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReachViolation {
    /// When it was noticed.
    pub at: Timestamp,
    /// The losses, by client.
    pub message: String,
}

/// The services that clients reach by an operator's registrations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReachCounts {
    /// Registrations with inbounds.
    pub registered: usize,
    /// Those of them that clients are routed to.
    pub endpoints: usize,
    /// Services that proxies reach, of all proxies.
    pub outbounds: usize,
}

/// Checks what clients reach by an operator's registrations, which must not become less. Manifests may add outbounds, and
/// must not remove any.
#[derive(Debug)]
pub struct ReachOracle {
    operator: String,
    /// The services that sidecars of a service may bind, for services whose sidecars do.
    bound: BTreeMap<String, BTreeSet<String>>,
    seen: BTreeMap<String, SeenReach>,
    violations: Vec<ReachViolation>,
    changes: Option<u64>,
}

/// A registration, as it was seen last.
#[derive(Debug, Default)]
struct SeenReach {
    /// Tells it from another one of the same name.
    created: String,
    reached: BTreeSet<ReachedService>,
    is_endpoint: bool,
    is_exceeding: bool,
}

impl ReachOracle {
    /// An oracle of the registrations of this operator.
    pub fn new(operator: &str) -> Self {
        Self {
            operator: operator.to_owned(),
            bound: BTreeMap::new(),
            seen: BTreeMap::new(),
            violations: Vec::new(),
            changes: None,
        }
    }

    /// Records what the sidecars of a service bind by its manifests.
    pub fn record_bound(&mut self, service: &str, called: &[&str]) {
        self.bound.insert(service.to_owned(), called.iter().map(|name| (*name).to_owned()).collect());
    }

    /// The violations so far.
    pub fn violations(&self) -> &[ReachViolation] {
        &self.violations
    }

    /// Counts what clients reach now.
    pub fn counts(&self, kuma: &KumaCp) -> ReachCounts {
        let mut counts = ReachCounts::default();
        for (mesh, name, body) in self.registered(kuma) {
            counts.registered += usize::from(has_inbounds(body));
            counts.endpoints +=
                usize::from(kuma.is_endpoint(mesh, body) && has_inbounds(body) && kuma.is_online(mesh, name));
            counts.outbounds += kuma.reached_services(mesh, name, body).len();
        }
        counts
    }

    /// Counts the outbounds that name their service by a tag.
    pub fn outbounds_by_tag(&self, kuma: &KumaCp) -> usize {
        self.registered(kuma).map(|(_, _, body)| outbounds_by_tag(body)).sum()
    }

    /// Compares what clients reach with what they reached at the last call.
    pub fn check(&mut self, kuma: &KumaCp, now: Timestamp) {
        if self.changes.replace(kuma.changes()) == Some(kuma.changes()) {
            return;
        }
        let mut seen = std::mem::take(&mut self.seen);
        let mut found = BTreeMap::new();
        let mut violations = Vec::new();
        for (mesh, name, body) in self.registered(kuma) {
            let created = body["creationTime"].as_str().unwrap_or_default().to_owned();
            let service = service_of(body).unwrap_or("?").to_owned();
            let mut before = seen.remove(name).filter(|before| before.created == created).unwrap_or_default();
            let reached = kuma.reached_services(mesh, name, body);
            let is_endpoint = has_inbounds(body) && kuma.is_endpoint(mesh, body);
            for lost in before.reached.difference(&reached) {
                let by = lost.port.map(|port| format!(" on port {port}")).unwrap_or_default();
                violations.push(format!("{name} of {service} lost its outbound to {}{by}", lost.service));
            }
            if before.is_endpoint && !is_endpoint {
                violations.push(format!("{name} is no endpoint of its service any more"));
            }
            if let Some(undeclared) = self.undeclared(&service, &reached)
                && !std::mem::replace(&mut before.is_exceeding, true)
            {
                violations.push(format!("{name} of {service} binds {undeclared}, which is not declared"));
            }
            let is_exceeding = before.is_exceeding;
            found.insert(name.to_owned(), SeenReach { created, reached, is_endpoint, is_exceeding });
        }
        self.seen = found;
        self.violations.extend(violations.into_iter().map(|message| ReachViolation { at: now, message }));
    }

    /// A service that a sidecar binds although its manifests do not declare it.
    fn undeclared<'r>(&self, service: &str, reached: &'r BTreeSet<ReachedService>) -> Option<&'r str> {
        let declared = self.bound.get(service)?;
        let bound = reached.iter().filter(|reached| reached.port.is_none());
        bound.map(|reached| reached.service.as_str()).find(|bound| !declared.contains(*bound))
    }

    /// The operator's registrations that are not drained.
    fn registered<'k>(&'k self, kuma: &'k KumaCp) -> impl Iterator<Item = (&'k str, &'k str, &'k Value)> {
        kuma.dataplanes().filter(|(_, _, body)| {
            label(body, OPERATOR_LABEL) == Some(self.operator.as_str()) && label(body, DRAIN_LABEL).is_none()
        })
    }
}

fn has_inbounds(body: &Value) -> bool {
    body["networking"].get("inbound").is_some()
}

//! Merges the outbounds of several sources into one list, and finds conflicts.
//!
//! For listeners, the only code that decides when two listeners of a task collide. The rules of single manifests, the warnings of a load
//! and the list of each task use it. Kuma accepts duplicate ports without an error (as of 2.14).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use super::finding::quoted;
use super::validate::is_dns_label;
use crate::limits::DNS_LABEL_RULE;
use crate::{Backend, CalledBackend, Listen, Outbound, OutboundListener, ReachableBackend, WorkloadSpec};

/// Ports that the sidecar uses itself, on any address.
const RESERVED: [(u16, &str); 3] = [
    (9901, "the sidecar's admin port"),
    (9902, "the sidecar's readiness port"),
    (15053, "the sidecar's DNS proxy"),
];

/// The sidecar's own use of the port.
pub fn reserved(port: NonZeroU16) -> Option<&'static str> {
    RESERVED.iter().find(|(reserved, _)| *reserved == port.get()).map(|(_, user)| *user)
}

/// A rule that an outbound breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BrokenOutboundRule {
    /// The field below the outbound; empty for the outbound itself.
    pub(super) field: &'static str,
    /// The rule, and what to write instead.
    pub(super) message: String,
}

fn broken(field: &'static str, message: impl Into<String>) -> BrokenOutboundRule {
    BrokenOutboundRule { field, message: message.into() }
}

impl Outbound {
    /// The outbound for a sidecar that listens within the task.
    ///
    /// # Errors
    /// The broken rule.
    pub(super) fn as_listener(&self) -> Result<OutboundListener, BrokenOutboundRule> {
        let (backend, port) = match self.as_backend()? {
            ReachableBackend::One { backend, port } => (backend, port),
            ReachableBackend::All { kind, labels } => {
                let port = self.backend.as_ref().and_then(|backend| backend.port);
                (CalledBackend::Labelled { kind, labels }, port)
            }
        };
        let port_field = if self.backend.is_some() { "backend.port" } else { "targetPort" };
        let port = port.ok_or_else(|| {
            broken(port_field, "is missing: with reach: outbounds a listener needs one port")
        })?;
        let listen = self
            .listen
            .ok_or_else(|| broken("listen", "is missing: with reach: outbounds the sidecar listens there"))?;
        Ok(OutboundListener { backend, port, listen })
    }

    /// The backend for a sidecar that binds its outbounds.
    ///
    /// # Errors
    /// The broken rule.
    pub(super) fn as_backend(&self) -> Result<ReachableBackend, BrokenOutboundRule> {
        match (&self.service, &self.backend) {
            (Some(_), Some(_)) => {
                Err(broken("backend", "is an alternative to service: write one of the two"))
            }
            (None, None) => {
                Err(broken("", "names nothing to call: write service and targetPort, or backend"))
            }
            (None, Some(_)) if self.target_port.is_some() => {
                Err(broken("targetPort", "belongs to service: write backend.port"))
            }
            (None, Some(backend)) => backend.reachable(self.listen.is_some()),
            (Some(service), None) => {
                let backend = CalledBackend::Service(service.clone());
                Ok(ReachableBackend::One { backend, port: self.target_port })
            }
        }
    }
}

impl Backend {
    /// `has_listener`: the port is that of a listener, and sidecars that bind their outbounds do not use it.
    fn reachable(&self, has_listener: bool) -> Result<ReachableBackend, BrokenOutboundRule> {
        let Self { kind, name, labels, port } = self;
        match (name, labels.is_empty()) {
            (Some(name), true) if is_dns_label(name) => {
                let backend = CalledBackend::Resource { kind: *kind, name: name.clone() };
                Ok(ReachableBackend::One { backend, port: *port })
            }
            (Some(name), true) => {
                Err(broken("backend.name", format!("{} is not allowed: {DNS_LABEL_RULE}", quoted(name))))
            }
            (Some(_), false) => {
                Err(broken("backend.labels", "is an alternative to name: write one of the two"))
            }
            (None, true) => Err(broken("backend.name", "is missing: write name, or labels")),
            // The loop over the resources ends at the first that has the port (`GetReachableBackends` in
            // `pkg/xds/context/destination_index.go` of 2.14 and 3.0).
            (None, false) if port.is_some() && !has_listener => Err(broken(
                "backend.port",
                "cannot be given with labels, since Kuma would take one of the resources alone: leave it out",
            )),
            (None, false) => Ok(ReachableBackend::All { kind: *kind, labels: labels.clone() }),
        }
    }
}

/// An outbound and its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundClaim {
    /// The `OutboundList`'s name; `None` for an outbound of the `Workload` itself.
    pub list: Option<Arc<str>>,
    /// The declared outbound.
    pub outbound: OutboundListener,
}

impl fmt::Display for OutboundClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OutboundListener { backend, port, listen } = &self.outbound;
        write!(f, "{backend}:{port} on {} ({})", socket(*listen), SourceName(self.list.as_deref()))
    }
}

/// The document of an outbound in messages.
fn document(list: Option<&str>) -> String {
    list.map_or_else(|| "the Workload".to_owned(), |list| format!("OutboundList {list}"))
}

/// The source of an outbound in messages.
struct SourceName<'a>(Option<&'a str>);

impl fmt::Display for SourceName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => write!(f, "OutboundList {name}"),
            None => f.write_str("inline"),
        }
    }
}

/// Why an outbound is not possible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutboundConflict {
    /// Two sources use one address and port for different targets.
    #[error("{first} and {second} conflict: give one of them another port")]
    Contradiction {
        /// The claim of the first source.
        first: OutboundClaim,
        /// The claim of the later source.
        second: OutboundClaim,
    },
    /// The task already listens there.
    #[error("{claim} is not possible, since {by}: give the outbound another port")]
    PortInUse {
        /// The declared outbound.
        claim: OutboundClaim,
        /// The listener in the way.
        by: UsedPort,
    },
    /// The outbound is for sidecars that bind their outbounds, and the workload's sidecars do not.
    #[error("outbound {index} of {} cannot be a listener: {reason}", document(.list.as_deref()))]
    NoListener {
        /// The list's name; `None` for an outbound of the `Workload` itself.
        list: Option<Arc<str>>,
        /// The outbound's place in the source.
        index: usize,
        /// The missing or surplus field.
        reason: String,
    },
}

/// A listener of the task that is no outbound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedPort {
    /// The workload's field that declares it, such as `spec.inbounds[0].containerPort`; `None` for the sidecar's own ports.
    pub field: Option<String>,
    /// The listener, such as `the app listens on port 5050`.
    pub description: String,
}

impl fmt::Display for UsedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.description)?;
        self.field.as_ref().map_or(Ok(()), |field| write!(f, " ({field})"))
    }
}

/// How the sidecars of a workload get their outbounds, and which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeclaredReach {
    /// The sidecar listens within the task.
    Listeners(MergedOutbounds),
    /// The sidecar binds these backends, sorted, each once.
    Backends(Vec<ReachableBackend>),
    /// The sidecar binds every backend, since no outbound is declared.
    EveryBackend,
}

impl DeclaredReach {
    /// The called backends, each once. A listener's backend is named with its port.
    pub fn backends(&self) -> BTreeSet<ReachableBackend> {
        match self {
            Self::Listeners(merged) => {
                let called = |OutboundListener { backend, port, .. }: &OutboundListener| {
                    ReachableBackend::One { backend: backend.clone(), port: Some(*port) }
                };
                merged.resolved.iter().map(called).collect()
            }
            Self::Backends(backends) => backends.iter().cloned().collect(),
            Self::EveryBackend => BTreeSet::new(),
        }
    }
}

/// The merged outbounds of a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MergedOutbounds {
    /// Outbounds without a conflict, sorted, each listener once.
    pub resolved: Vec<OutboundListener>,
    /// Conflicts. Each conflicting outbound is named at least once.
    pub conflicts: Vec<OutboundConflict>,
}

impl MergedOutbounds {
    /// The listeners that Kuma 3.0 does not open. It names Envoy's listener by its destination, so of several for one port of a
    /// backend only that with the highest port answers (seen on a preview of 3.0).
    pub fn lost_in_3_0(&self) -> Vec<&OutboundListener> {
        let is_kept_instead = |lost: &OutboundListener, other: &OutboundListener| {
            let of = |one: &OutboundListener| (one.listen.port, one.listen.address);
            (&other.backend, other.port) == (&lost.backend, lost.port) && of(other) > of(lost)
        };
        let is_lost = |one: &&OutboundListener| self.resolved.iter().any(|other| is_kept_instead(one, other));
        self.resolved.iter().filter(is_lost).collect()
    }
}

/// The outbounds of one source.
pub(super) struct OutboundSource<'a> {
    /// The `OutboundList`'s name; `None` for the `Workload` itself.
    pub(super) list: Option<&'a Arc<str>>,
    pub(super) outbounds: &'a [Outbound],
}

/// Merges the listeners of all sources.
pub(super) fn merge_listeners(workload: &WorkloadSpec, sources: &[OutboundSource<'_>]) -> MergedOutbounds {
    let (mut claims, mut conflicts) = (Vec::new(), Vec::new());
    for OutboundSource { list, outbounds } in sources {
        for (index, outbound) in outbounds.iter().enumerate() {
            let list = list.cloned();
            match outbound.as_listener() {
                Ok(outbound) => claims.push(OutboundClaim { list, outbound }),
                Err(BrokenOutboundRule { field, message }) => {
                    conflicts.push(OutboundConflict::NoListener {
                        list,
                        index,
                        reason: format!("{field} {message}"),
                    });
                }
            }
        }
    }
    let mut merged = merge(workload, claims);
    merged.conflicts.extend(conflicts);
    merged
}

/// Merges the backends of all sources, whose rules were checked. A backend with all its ports includes one of its ports.
pub(super) fn merge_backends(sources: &[OutboundSource<'_>]) -> Vec<ReachableBackend> {
    let all: BTreeSet<ReachableBackend> = sources
        .iter()
        .flat_map(|source| source.outbounds)
        .filter_map(|outbound| outbound.as_backend().ok())
        .collect();
    let is_included = |one: &ReachableBackend| match one {
        ReachableBackend::One { backend, port: Some(_) } => {
            all.contains(&ReachableBackend::One { backend: CalledBackend::clone(backend), port: None })
        }
        _ => false,
    };
    all.iter().filter(|one| !is_included(one)).cloned().collect()
}

/// `ADDRESS:PORT`, with brackets around an IPv6 address.
pub(super) fn socket(listen: Listen) -> String {
    std::net::SocketAddr::new(listen.address, listen.port.get()).to_string()
}

/// Whether two listeners on one port collide.
pub(super) fn addresses_clash(a: IpAddr, b: IpAddr) -> bool {
    // On Linux `::` includes IPv4, unless the listener sets IPV6_V6ONLY.
    let includes = |wide: IpAddr, other: IpAddr| wide.is_unspecified() && (wide.is_ipv6() || other.is_ipv4());
    a == b || includes(a, b) || includes(b, a)
}

/// The workload's own listener with which an outbound's listener collides.
///
/// An app without a `serviceAddress` counts as listening on every address, as most apps do. The sidecar's inbound listeners
/// are on the task's address, where loopback listeners do not collide with them.
pub(super) fn own_port(workload: &WorkloadSpec, listen: Listen) -> Option<UsedPort> {
    let port = listen.port;
    workload.inbounds.iter().enumerate().find_map(|(index, inbound)| {
        let used = |field: &str, description: String| {
            Some(UsedPort { field: Some(format!("spec.inbounds[{index}].{field}")), description })
        };
        let on_app = inbound.service_address.is_none_or(|address| addresses_clash(address, listen.address));
        if inbound.container_port == port && on_app {
            return used("containerPort", format!("the app listens on port {port}"));
        }
        if inbound.port == port && !listen.address.is_loopback() {
            return used("port", format!("the sidecar listens on port {port} for this inbound"));
        }
        None
    })
}

/// Merges all claims on the listeners of one workload. A listener on every address replaces narrower ones for the same
/// service.
fn merge(workload: &WorkloadSpec, claims: impl IntoIterator<Item = OutboundClaim>) -> MergedOutbounds {
    let mut by_port: BTreeMap<NonZeroU16, Vec<(OutboundClaim, IsConflicting)>> = BTreeMap::new();
    let mut merged = MergedOutbounds::default();
    for claim in claims {
        let others = by_port.entry(claim.outbound.listen.port).or_default();
        if others.iter().any(|(other, _)| other.outbound == claim.outbound) {
            continue;
        }
        let used = used_port(workload, claim.outbound.listen);
        let mut conflicting = used.is_some();
        merged.conflicts.extend(used.map(|by| OutboundConflict::PortInUse { claim: claim.clone(), by }));
        let rivals = others.iter_mut().filter(|(other, _)| contradict(&other.outbound, &claim.outbound));
        for (index, (rival, rival_conflicting)) in rivals.enumerate() {
            *rival_conflicting = true;
            conflicting = true;
            // One rival is reported: the next conflict shows once this one is resolved.
            if index == 0 {
                let (first, second) = (rival.clone(), claim.clone());
                merged.conflicts.push(OutboundConflict::Contradiction { first, second });
            }
        }
        others.push((claim, conflicting));
    }
    let resolved = |claims: Vec<(OutboundClaim, IsConflicting)>| {
        claims.into_iter().filter(|(_, conflicting)| !conflicting).map(|(claim, _)| claim.outbound)
    };
    for claims in by_port.into_values() {
        merged.resolved.extend(without_covered(&resolved(claims).collect::<Vec<_>>()));
    }
    merged.resolved.sort();
    merged
}

/// Whether the claim conflicts with another.
type IsConflicting = bool;

fn used_port(workload: &WorkloadSpec, listen: Listen) -> Option<UsedPort> {
    let by_sidecar = || {
        let user = reserved(listen.port)?;
        Some(UsedPort { field: None, description: format!("{} is {user}", listen.port) })
    };
    by_sidecar().or_else(|| own_port(workload, listen))
}

fn contradict(a: &OutboundListener, b: &OutboundListener) -> bool {
    addresses_clash(a.listen.address, b.listen.address) && (a.backend != b.backend || a.port != b.port)
}

/// Omits outbounds that another one covers. All listen on the same port, and none equals another.
fn without_covered(outbounds: &[OutboundListener]) -> Vec<OutboundListener> {
    let is_covered =
        |narrow: &OutboundListener| outbounds.iter().any(|wide| wide != narrow && covers(wide, narrow));
    outbounds.iter().filter(|outbound| !is_covered(outbound)).cloned().collect()
}

/// Whether `wide` includes `narrow`. `::` does not include IPv4 here, since that depends on an option of the listener.
fn covers(wide: &OutboundListener, narrow: &OutboundListener) -> bool {
    let same_target = wide.backend == narrow.backend && wide.port == narrow.port;
    let (wide, narrow) = (wide.listen.address, narrow.listen.address);
    same_target && wide.is_unspecified() && wide.is_ipv4() == narrow.is_ipv4()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_mesh_model::ServiceName;
    use serde_json::json;

    fn claim(list: &str, service: &str, target: u16, listen: &str) -> OutboundClaim {
        let (address, port) = listen.rsplit_once(':').unwrap();
        OutboundClaim {
            list: (!list.is_empty()).then(|| list.into()),
            outbound: OutboundListener {
                backend: CalledBackend::Service(ServiceName::parse(service).unwrap()),
                port: NonZeroU16::new(target).unwrap(),
                listen: Listen { address: address.parse().unwrap(), port: port.parse().unwrap() },
            },
        }
    }

    /// A workload with an app on 5050 behind the sidecar's 15000.
    fn workload() -> WorkloadSpec {
        let inbounds = json!([{"containerPort": 5050, "port": 15000}]);
        serde_json::from_value(json!({"service": "app", "selector": {}, "inbounds": inbounds})).unwrap()
    }

    fn merge(
        claims: impl IntoIterator<Item = OutboundClaim>,
    ) -> Result<Vec<OutboundListener>, Vec<OutboundConflict>> {
        let MergedOutbounds { resolved, conflicts } = super::merge(&workload(), claims);
        if conflicts.is_empty() { Ok(resolved) } else { Err(conflicts) }
    }

    fn listeners(merged: &[OutboundListener]) -> Vec<String> {
        merged.iter().map(|o| format!("{}:{} {}", o.backend, o.port, socket(o.listen))).collect()
    }

    #[test]
    fn outbound_merge_dedups_independent_of_order() {
        let claims = [
            claim("b", "redis", 6379, "127.0.0.1:6379"),
            claim("a", "kv", 15050, "127.0.0.1:15050"),
            claim("", "redis", 6379, "127.0.0.1:6379"),
        ];
        let merged = merge(claims.clone()).unwrap();
        assert_eq!(listeners(&merged), ["kv:15050 127.0.0.1:15050", "redis:6379 127.0.0.1:6379"]);
        assert_eq!(merge(claims.into_iter().rev()).unwrap(), merged);
    }

    #[test]
    fn wildcard_listener_replaces_narrower_ones() {
        let narrow = claim("a", "redis", 6379, "127.0.0.1:6379");
        let wide = claim("b", "redis", 6379, "0.0.0.0:6379");
        for claims in [[narrow.clone(), wide.clone()], [wide, narrow]] {
            assert_eq!(listeners(&merge(claims).unwrap()), ["redis:6379 0.0.0.0:6379"]);
        }
    }

    #[test]
    fn listener_for_two_targets_is_a_conflict() {
        for (a, b) in [
            (claim("a", "redis", 6379, "127.0.0.1:6379"), claim("b", "cache", 6379, "127.0.0.1:6379")),
            (claim("a", "redis", 6379, "127.0.0.1:6379"), claim("b", "redis", 6380, "127.0.0.1:6379")),
            (claim("a", "redis", 6379, "0.0.0.0:6379"), claim("b", "cache", 6379, "127.0.0.1:6379")),
            (claim("a", "redis", 6379, "::1:6379"), claim("b", "cache", 6379, ":::6379")),
            (claim("a", "redis", 6379, "127.0.0.1:6379"), claim("b", "cache", 6379, ":::6379")),
            (claim("a", "redis", 6379, ":::6379"), claim("b", "cache", 6379, "0.0.0.0:6379")),
        ] {
            assert!(merge([a.clone(), b.clone()]).is_err(), "{a} and {b} were accepted");
        }
    }

    #[test]
    fn listeners_on_other_family_or_port_do_not_conflict() {
        let merged = merge([
            claim("a", "redis", 6379, "127.0.0.1:6379"),
            claim("a", "cache", 6379, "::1:6379"),
            claim("a", "cache", 6379, "127.0.0.1:6380"),
            claim("a", "queue", 5672, "0.0.0.0:5672"),
            claim("a", "other", 5672, "::1:5672"),
        ]);
        assert_eq!(merged.unwrap().len(), 5);
    }

    #[test]
    fn ipv6_wildcard_listener_keeps_ipv4_listener() {
        let claims = [claim("a", "redis", 6379, "127.0.0.1:6379"), claim("b", "redis", 6379, ":::6379")];
        assert_eq!(merge(claims).unwrap().len(), 2);
    }

    #[test]
    fn merge_separates_resolved_and_conflicting_outbounds() {
        let merged = super::merge(
            &workload(),
            [
                claim("a", "redis", 6379, "127.0.0.1:6379"),
                claim("a", "queue", 5672, "127.0.0.1:5672"),
                claim("b", "cache", 6379, "127.0.0.1:6379"),
                claim("c", "third", 6379, "0.0.0.0:6379"),
                claim("c", "redis", 6379, "127.0.0.2:6379"),
                claim("", "kv", 15050, "127.0.0.1:15050"),
            ],
        );
        assert_eq!(listeners(&merged.resolved), ["kv:15050 127.0.0.1:15050", "queue:5672 127.0.0.1:5672"]);
        let messages: Vec<String> = merged.conflicts.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(messages.join("\n"), @r#"
        redis:6379 on 127.0.0.1:6379 (OutboundList a) and cache:6379 on 127.0.0.1:6379 (OutboundList b) conflict: give one of them another port
        redis:6379 on 127.0.0.1:6379 (OutboundList a) and third:6379 on 0.0.0.0:6379 (OutboundList c) conflict: give one of them another port
        third:6379 on 0.0.0.0:6379 (OutboundList c) and redis:6379 on 127.0.0.2:6379 (OutboundList c) conflict: give one of them another port
        "#);
    }

    #[test]
    fn ports_of_app_and_sidecar_are_in_use() {
        let claims = [
            claim("a", "redis", 6379, "127.0.0.1:5050"),
            claim("a", "redis", 6379, "0.0.0.0:15000"),
            claim("a", "redis", 6379, "127.0.0.1:9901"),
            claim("a", "redis", 6379, "10.9.9.9:9902"),
            claim("", "redis", 6379, "127.0.0.1:15053"),
        ];
        let merged = super::merge(&workload(), claims);
        assert_eq!(merged.resolved, []);
        let messages: Vec<String> = merged.conflicts.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(messages.join("\n"), @r#"
        redis:6379 on 127.0.0.1:5050 (OutboundList a) is not possible, since the app listens on port 5050 (spec.inbounds[0].containerPort): give the outbound another port
        redis:6379 on 0.0.0.0:15000 (OutboundList a) is not possible, since the sidecar listens on port 15000 for this inbound (spec.inbounds[0].port): give the outbound another port
        redis:6379 on 127.0.0.1:9901 (OutboundList a) is not possible, since 9901 is the sidecar's admin port: give the outbound another port
        redis:6379 on 10.9.9.9:9902 (OutboundList a) is not possible, since 9902 is the sidecar's readiness port: give the outbound another port
        redis:6379 on 127.0.0.1:15053 (inline) is not possible, since 15053 is the sidecar's DNS proxy: give the outbound another port
        "#);
    }

    #[test]
    fn sidecar_inbound_leaves_loopback_port_free() {
        assert!(merge([claim("a", "redis", 6379, "127.0.0.1:15000")]).is_ok());
    }

    #[test]
    fn app_on_one_address_leaves_port_free_on_others() {
        let mut workload = workload();
        workload.inbounds[0].service_address = Some("127.0.0.1".parse().unwrap());
        for (listen, free) in
            [("127.0.0.2:5050", true), ("127.0.0.1:5050", false), ("0.0.0.0:5050", false), (":::5050", false)]
        {
            let merged = super::merge(&workload, [claim("a", "redis", 6379, listen)]);
            assert_eq!(merged.conflicts.is_empty(), free, "{listen}");
        }
    }

    #[test]
    fn conflict_names_both_sources() {
        let conflict = merge([
            claim("redis-users", "redis", 6379, "127.0.0.1:6379"),
            claim("", "cache", 6380, "0.0.0.0:6379"),
        ]);
        insta::assert_snapshot!(conflict.unwrap_err()[0], @r#"redis:6379 on 127.0.0.1:6379 (OutboundList redis-users) and cache:6380 on 0.0.0.0:6379 (inline) conflict: give one of them another port"#);
    }
}

//! How outbounds of several sources add up to one list, and when they cannot.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;

use crate::api::{Listen, Outbound};

/// Two sources want different things of one address and port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{first} and {second} cannot both be: give one of them another port")]
pub struct OutboundConflict {
    /// Of the source that comes first.
    pub first: OutboundClaim,
    /// Of the source that comes later.
    pub second: OutboundClaim,
}

/// An outbound and who wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundClaim {
    /// The `OutboundList`'s name; `None`: the outbounds that stand in the `Workload` (or in the task's tags).
    pub list: Option<std::sync::Arc<str>>,
    /// What is wanted.
    pub outbound: Outbound,
}

impl fmt::Display for OutboundClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outbound { service, target_port, listen } = &self.outbound;
        write!(f, "{service}:{target_port} on {} (", socket(*listen))?;
        match &self.list {
            Some(name) => write!(f, "OutboundList {name})"),
            None => f.write_str("inline)"),
        }
    }
}

/// `ADDRESS:PORT`, with brackets around an IPv6 address.
pub(super) fn socket(listen: Listen) -> String {
    std::net::SocketAddr::new(listen.address, listen.port.get()).to_string()
}

/// Whether two listeners on one port would get in each other's way: `0.0.0.0` and `::` take every address of their
/// family.
pub(super) fn addresses_clash(a: IpAddr, b: IpAddr) -> bool {
    a == b || (a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified()))
}

/// Adds all claims up: sorted, each listener once.
///
/// Of two listeners for the same service of which one takes every address, that one stays.
pub(super) fn merge(
    claims: impl IntoIterator<Item = OutboundClaim>,
) -> Result<Vec<Outbound>, OutboundConflict> {
    let mut by_port: BTreeMap<NonZeroU16, Vec<OutboundClaim>> = BTreeMap::new();
    for claim in claims {
        let port = by_port.entry(claim.outbound.listen.port).or_default();
        let wanted = &claim.outbound;
        if let Some(first) = port.iter().find(|other| contradict(&other.outbound, wanted)) {
            return Err(OutboundConflict { first: first.clone(), second: claim });
        }
        if !port.iter().any(|other| covers(&other.outbound, wanted)) {
            port.retain(|other| !covers(wanted, &other.outbound));
            port.push(claim);
        }
    }
    let mut merged: Vec<Outbound> = by_port.into_values().flatten().map(|claim| claim.outbound).collect();
    merged.sort();
    Ok(merged)
}

fn contradict(a: &Outbound, b: &Outbound) -> bool {
    addresses_clash(a.listen.address, b.listen.address)
        && (a.service != b.service || a.target_port != b.target_port)
}

/// Whether `wide` does all that `narrow` does. Both listen on the same port.
fn covers(wide: &Outbound, narrow: &Outbound) -> bool {
    let same_target = wide.service == narrow.service && wide.target_port == narrow.target_port;
    let (wide, narrow) = (wide.listen.address, narrow.listen.address);
    same_target && (wide == narrow || (wide.is_unspecified() && wide.is_ipv4() == narrow.is_ipv4()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ServiceName;

    fn claim(list: &str, service: &str, target: u16, listen: &str) -> OutboundClaim {
        let (address, port) = listen.rsplit_once(':').unwrap();
        OutboundClaim {
            list: (!list.is_empty()).then(|| list.into()),
            outbound: Outbound {
                service: ServiceName::parse(service).unwrap(),
                target_port: NonZeroU16::new(target).unwrap(),
                listen: Listen { address: address.parse().unwrap(), port: port.parse().unwrap() },
            },
        }
    }

    fn listeners(merged: &[Outbound]) -> Vec<String> {
        merged.iter().map(|o| format!("{}:{} {}", o.service, o.target_port, socket(o.listen))).collect()
    }

    #[test]
    fn the_same_outbound_twice_is_one_and_the_order_of_the_sources_does_not_show() {
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
    fn a_listener_on_every_address_takes_the_place_of_narrower_ones_for_the_same_service() {
        let narrow = claim("a", "redis", 6379, "127.0.0.1:6379");
        let wide = claim("b", "redis", 6379, "0.0.0.0:6379");
        for claims in [[narrow.clone(), wide.clone()], [wide, narrow]] {
            assert_eq!(listeners(&merge(claims).unwrap()), ["redis:6379 0.0.0.0:6379"]);
        }
    }

    #[test]
    fn one_listener_for_two_services_or_two_target_ports_is_a_conflict() {
        for (a, b) in [
            (claim("a", "redis", 6379, "127.0.0.1:6379"), claim("b", "cache", 6379, "127.0.0.1:6379")),
            (claim("a", "redis", 6379, "127.0.0.1:6379"), claim("b", "redis", 6380, "127.0.0.1:6379")),
            (claim("a", "redis", 6379, "0.0.0.0:6379"), claim("b", "cache", 6379, "127.0.0.1:6379")),
            (claim("a", "redis", 6379, "::1:6379"), claim("b", "cache", 6379, ":::6379")),
        ] {
            assert!(merge([a.clone(), b.clone()]).is_err(), "{a} and {b} were accepted");
        }
    }

    #[test]
    fn listeners_of_two_address_families_or_two_ports_do_not_meet() {
        let merged = merge([
            claim("a", "redis", 6379, "127.0.0.1:6379"),
            claim("a", "cache", 6379, "::1:6379"),
            claim("a", "cache", 6379, "127.0.0.1:6380"),
        ]);
        assert_eq!(merged.unwrap().len(), 3);
    }

    #[test]
    fn a_conflict_names_both_sources() {
        let conflict = merge([
            claim("redis-users", "redis", 6379, "127.0.0.1:6379"),
            claim("", "cache", 6380, "0.0.0.0:6379"),
        ]);
        insta::assert_snapshot!(conflict.unwrap_err(), @r#"redis:6379 on 127.0.0.1:6379 (OutboundList redis-users) and cache:6380 on 0.0.0.0:6379 (inline) cannot both be: give one of them another port"#);
    }
}

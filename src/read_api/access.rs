//! Which requests are answered: the host that they name, and the rate of their client.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// Requests of one client address in a second, on average and at once.
const RATE: f64 = 200.0;
const BURST: f64 = 400.0;

/// Most client addresses that are counted. Beyond, the address that has been silent for longest is forgotten.
const MAX_CLIENTS: usize = 1_024;

/// The requests of each client address.
#[derive(Debug, Default)]
pub(super) struct ClientRates(Mutex<BTreeMap<IpAddr, ClientRate>>);

#[derive(Debug)]
struct ClientRate {
    left: f64,
    at: Instant,
}

impl ClientRates {
    /// Counts a request. Whether the client may have an answer.
    pub(super) fn admit(&self, client: IpAddr) -> bool {
        let now = Instant::now();
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= MAX_CLIENTS && !clients.contains_key(&client) {
            let silent = clients.iter().min_by_key(|(_, rate)| rate.at).map(|(client, _)| *client);
            silent.and_then(|client| clients.remove(&client));
        }
        let rate = clients.entry(client.to_canonical()).or_insert(ClientRate { left: BURST, at: now });
        let earned = now.duration_since(rate.at).as_secs_f64() * RATE;
        rate.left = (rate.left + earned).min(BURST);
        rate.at = now;
        let is_admitted = rate.left >= 1.0;
        if is_admitted {
            rate.left -= 1.0;
        }
        is_admitted
    }
}

/// Whether a `Host` names this machine's loopback. A page of another site that resolves its own name to 127.0.0.1 (DNS
/// rebinding) sends that name.
pub(super) fn is_loopback_host(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.trim_end_matches('.');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_loopback_hosts_are_allowed() {
        for (host, allowed) in [
            ("localhost", true),
            ("LOCALHOST:9103", true),
            ("localhost.:9103", true),
            ("127.0.0.1:9103", true),
            ("127.8.0.1", true),
            ("[::1]:9103", true),
            ("[::ffff:127.0.0.1]:9103", true),
            ("", false),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example:9103", false),
            ("10.0.0.1:9103", false),
            ("[::]:9103", false),
            ("[localhost", true),
        ] {
            assert_eq!(is_loopback_host(host), allowed, "{host}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn client_over_its_rate_waits_and_others_do_not() {
        let (rates, client) = (ClientRates::default(), "10.0.0.1".parse().unwrap());
        let admitted = (0..1_000).filter(|_| rates.admit(client)).count();
        assert_eq!(admitted, 400);
        assert!(rates.admit("10.0.0.2".parse().unwrap()));
        tokio::time::advance(Duration::from_millis(100)).await;
        assert_eq!((0..1_000).filter(|_| rates.admit(client)).count(), 20);
        for n in 0..5_000_u32 {
            rates.admit(std::net::Ipv4Addr::from(n).into());
        }
        assert_eq!(rates.0.lock().unwrap().len(), MAX_CLIENTS);
    }
}

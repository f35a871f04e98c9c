//! How often each client address may ask.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// Most client addresses that are counted. Beyond, the address that has been silent for longest is forgotten.
const MAX_CLIENTS: usize = 1_024;

/// How often something may happen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    /// Times a second, on average.
    pub(crate) per_second: f64,
    /// Times at once.
    pub(crate) burst: u32,
}

/// The part of its rate that each client address has used.
#[derive(Debug)]
pub(crate) struct ClientRates {
    rate: Rate,
    clients: Mutex<BTreeMap<IpAddr, ClientRate>>,
}

#[derive(Debug)]
struct ClientRate {
    left: f64,
    at: Instant,
}

impl ClientRates {
    /// Each client has this rate.
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, clients: Mutex::default() }
    }

    /// Counts one more. Whether the client has it left.
    pub(crate) fn admit(&self, client: IpAddr) -> bool {
        let burst = f64::from(self.rate.burst);
        let (now, client) = (Instant::now(), client.to_canonical());
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= MAX_CLIENTS && !clients.contains_key(&client) {
            let silent = clients.iter().min_by_key(|(_, rate)| rate.at).map(|(client, _)| *client);
            silent.and_then(|client| clients.remove(&client));
        }
        let rate = clients.entry(client).or_insert(ClientRate { left: burst, at: now });
        let earned = now.duration_since(rate.at).as_secs_f64() * self.rate.per_second;
        rate.left = (rate.left + earned).min(burst);
        rate.at = now;
        let is_admitted = rate.left >= 1.0;
        if is_admitted {
            rate.left -= 1.0;
        }
        is_admitted
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const RATE: Rate = Rate { per_second: 200.0, burst: 400 };

    #[tokio::test(start_paused = true)]
    async fn mapped_client_evicts_no_other() {
        let rates = ClientRates::new(RATE);
        let client = |n: u32| std::net::Ipv4Addr::from(n);
        (0..1_024).for_each(|n| assert!(rates.admit(client(n).into())));
        // A listener on [::] shows IPv4 clients so.
        (0..1_024).for_each(|n| assert!(rates.admit(client(n).to_ipv6_mapped().into())));
        assert_eq!(rates.clients.lock().unwrap().len(), MAX_CLIENTS);
    }

    #[tokio::test(start_paused = true)]
    async fn client_over_its_rate_waits_and_others_do_not() {
        let (rates, client) = (ClientRates::new(RATE), "10.0.0.1".parse().unwrap());
        let admitted = (0..1_000).filter(|_| rates.admit(client)).count();
        assert_eq!(admitted, 400);
        assert!(rates.admit("10.0.0.2".parse().unwrap()));
        tokio::time::advance(Duration::from_millis(100)).await;
        assert_eq!((0..1_000).filter(|_| rates.admit(client)).count(), 20);
        for n in 0..5_000_u32 {
            rates.admit(std::net::Ipv4Addr::from(n).into());
        }
        assert_eq!(rates.clients.lock().unwrap().len(), MAX_CLIENTS);
    }
}

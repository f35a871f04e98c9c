//! Allocation of subnet addresses. A released address is reused by the configured rule.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;

use crate::aws::AddressReuse;

/// The subnet's addresses.
#[derive(Debug)]
pub(super) struct Addresses {
    next: u32,
    last: u32,
    free: VecDeque<u32>,
    /// Number of tasks with the address; more than one only after [`force`](Addresses::force).
    used: BTreeMap<u32, u32>,
    reuse: AddressReuse,
    forced: VecDeque<Ipv4Addr>,
}

impl Addresses {
    pub(super) fn new(subnet: &str, reuse: AddressReuse) -> Self {
        let (base, bits) = parse(subnet).unwrap_or((0x0a00_0000, 16));
        // A shift by 32 (a /0) would overflow. The largest supported range is a /8.
        let size = 1_u32 << (32 - bits.clamp(8, 28));
        let base = base & !(size - 1);
        Self {
            next: base + 4,
            last: base + size - 2,
            free: VecDeque::new(),
            used: BTreeMap::new(),
            reuse,
            forced: VecDeque::new(),
        }
    }

    /// Gives this address to the next task, even if another task has it.
    pub(super) fn force(&mut self, address: Ipv4Addr) {
        self.forced.push_back(address);
    }

    /// The next address, or `None` when the subnet is used up.
    pub(super) fn take(&mut self) -> Option<Ipv4Addr> {
        let address = match self.forced.pop_front() {
            Some(forced) => u32::from(forced),
            None => self.pick()?,
        };
        *self.used.entry(address).or_default() += 1;
        Some(address.into())
    }

    fn pick(&mut self) -> Option<u32> {
        if self.reuse == AddressReuse::Immediate
            && let Some(freed) = self.pop_free(true)
        {
            return Some(freed);
        }
        while self.next <= self.last {
            let fresh = self.next;
            self.next += 1;
            if !self.used.contains_key(&fresh) {
                return Some(fresh);
            }
        }
        self.pop_free(self.reuse == AddressReuse::Lifo)
    }

    /// Skips addresses that were forced upon a task while they were free.
    fn pop_free(&mut self, newest: bool) -> Option<u32> {
        loop {
            let freed = if newest { self.free.pop_back() } else { self.free.pop_front() }?;
            if !self.used.contains_key(&freed) {
                return Some(freed);
            }
        }
    }

    pub(super) fn release(&mut self, address: Ipv4Addr) {
        let address = u32::from(address);
        let Some(count) = self.used.get_mut(&address) else { return };
        *count -= 1;
        if *count == 0 {
            self.used.remove(&address);
            self.free.push_back(address);
        }
    }
}

fn parse(subnet: &str) -> Option<(u32, u32)> {
    let (base, bits) = subnet.split_once('/')?;
    Some((u32::from(base.parse::<Ipv4Addr>().ok()?), bits.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, last)
    }

    #[test]
    fn address_is_reused_by_the_configured_rule() {
        for (reuse, expected) in
            [(AddressReuse::Immediate, ip(5)), (AddressReuse::Lifo, ip(6)), (AddressReuse::Fifo, ip(6))]
        {
            let mut addresses = Addresses::new("10.0.0.0/24", reuse);
            let (first, second) = (addresses.take().unwrap(), addresses.take().unwrap());
            assert_eq!((first, second), (ip(4), ip(5)));
            addresses.release(first);
            addresses.release(second);
            assert_eq!(addresses.take(), Some(expected), "{reuse:?}");
        }
    }

    #[test]
    fn full_subnet_has_no_address_until_one_is_released() {
        for (reuse, expected) in [(AddressReuse::Lifo, ip(5)), (AddressReuse::Fifo, ip(4))] {
            let mut addresses = Addresses::new("10.0.0.0/28", reuse);
            let all: Vec<_> = std::iter::from_fn(|| addresses.take()).collect();
            assert_eq!(all.len(), 11);
            addresses.release(all[0]);
            addresses.release(all[1]);
            assert_eq!(addresses.take(), Some(expected), "{reuse:?}");
        }
    }

    #[test]
    fn forced_address_is_used_until_both_tasks_are_gone() {
        let mut addresses = Addresses::new("10.0.0.0/28", AddressReuse::Immediate);
        let first = addresses.take().unwrap();
        addresses.force(first);
        assert_eq!(addresses.take(), Some(first));
        addresses.release(first);
        assert_eq!(addresses.take(), Some(ip(5)));
        addresses.release(first);
        assert_eq!(addresses.take(), Some(first));
    }
}

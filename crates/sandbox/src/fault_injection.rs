//! What goes wrong between the operator and the sandbox's servers, by a seed.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::aws::{AwsFault, AwsFaults, Delivery};
use super::consul::http::{ConsulFault, ConsulFaults};
use super::kuma::http::{KumaFault, KumaFaults};

/// How much goes wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum FaultLevel {
    /// Nothing.
    #[default]
    None,
    /// Now and then something.
    Some,
    /// All the time something.
    Many,
}

impl FaultLevel {
    fn factor(self) -> f64 {
        match self {
            Self::None => 0.0,
            Self::Some => 0.3,
            Self::Many => 1.0,
        }
    }

    /// How badly events are delivered.
    pub fn delivery(self) -> Delivery {
        let factor = self.factor();
        if factor == 0.0 {
            return Delivery::default();
        }
        Delivery {
            duplicate: 0.2 * factor,
            lose: 0.05 * factor,
            delay_min: Duration::ZERO,
            delay_max: Duration::from_millis(1_500).mul_f64(factor),
            shuffle: true,
            replay: 0.05 * factor,
            replay_after: Duration::from_secs(20),
        }
    }
}

/// Throws the dice for each call; can be told to stop.
#[derive(Debug)]
pub struct FaultInjector {
    dice: Mutex<(fastrand::Rng, f64)>,
}

impl FaultInjector {
    /// Dice for this level.
    pub fn new(level: FaultLevel, seed: u64) -> Self {
        Self { dice: Mutex::new((fastrand::Rng::with_seed(seed), level.factor())) }
    }

    /// Nothing goes wrong any more.
    pub fn end(&self) {
        self.dice.lock().unwrap_or_else(PoisonError::into_inner).1 = 0.0;
    }

    /// One of the kinds, each with its chance, or none.
    fn choose<T: Copy>(&self, kinds: &[(f64, T)]) -> Option<T> {
        let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
        let (rng, factor) = &mut *dice;
        let mut thrown = rng.f64();
        for (chance, kind) in kinds {
            thrown -= chance * *factor;
            if thrown < 0.0 {
                return Some(*kind);
            }
        }
        None
    }
}

impl AwsFaults for FaultInjector {
    fn decide(&self, service: &str, operation: &str) -> AwsFault {
        let lists = operation.starts_with("List");
        let kinds = [
            (0.04, AwsFault::Throttle),
            (0.02, AwsFault::InternalError),
            (0.02, AwsFault::Drop),
            (0.02, AwsFault::DropAfterEffect),
            (0.02, AwsFault::ErrorAfterEffect),
            (0.02, AwsFault::Delay(Duration::from_millis(800))),
            (if service == "iam" { 0.02 } else { 0.0 }, AwsFault::AccessDenied),
            (if lists { 0.03 } else { 0.0 }, AwsFault::EmptyList),
        ];
        self.choose(&kinds).unwrap_or(AwsFault::None)
    }
}

impl KumaFaults for FaultInjector {
    fn decide(&self, method: &str, _path: &str) -> KumaFault {
        let writes = method != "GET";
        let kinds = [
            (0.03, KumaFault::Status(503)),
            (if writes { 0.03 } else { 0.0 }, KumaFault::Status(409)),
            (0.02, KumaFault::StatusAfterEffect(500)),
            (0.02, KumaFault::Drop),
            (0.02, KumaFault::DropAfterEffect),
            (0.03, KumaFault::Delay(Duration::from_millis(600))),
        ];
        self.choose(&kinds).unwrap_or(KumaFault::None)
    }
}

impl ConsulFaults for FaultInjector {
    fn decide(&self, _method: &str, _path: &str) -> ConsulFault {
        let kinds = [
            (0.03, ConsulFault::Status(500)),
            (0.02, ConsulFault::Status(429)),
            (0.02, ConsulFault::StatusAfterEffect(500)),
            (0.02, ConsulFault::Drop),
            (0.02, ConsulFault::DropAfterEffect),
            (0.03, ConsulFault::Delay(Duration::from_millis(600))),
        ];
        self.choose(&kinds).unwrap_or(ConsulFault::None)
    }
}

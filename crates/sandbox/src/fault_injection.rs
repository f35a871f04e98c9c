//! Seeded faults between the operator and the emulated servers.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::aws::{AwsFault, AwsFaults, Delivery};
use super::consul::http::{ConsulFault, ConsulFaults};
use super::kuma::http::{KumaFault, KumaFaults};

/// Rate of injected faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum FaultLevel {
    /// No faults.
    #[default]
    None,
    /// Occasional faults.
    Some,
    /// Frequent faults.
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

    /// Faults of event delivery at this level.
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

/// Draws a fault for each call until [`stop`](Self::stop).
#[derive(Debug)]
pub struct FaultInjector {
    state: Mutex<(fastrand::Rng, f64)>,
}

impl FaultInjector {
    /// An injector for this level and seed.
    pub fn new(level: FaultLevel, seed: u64) -> Self {
        Self { state: Mutex::new((fastrand::Rng::with_seed(seed), level.factor())) }
    }

    /// Stops injecting faults.
    pub fn stop(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1 = 0.0;
    }

    /// Draws one of the faults by its probability, or none.
    fn choose<T: Copy>(&self, kinds: &[(f64, T)]) -> Option<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (rng, factor) = &mut *state;
        let mut draw = rng.f64();
        for (chance, kind) in kinds {
            draw -= chance * *factor;
            if draw < 0.0 {
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

//! Guarantees that an unreachable remote receives one probe at a time, at growing intervals.
//!
//! A closed circuit opens after a number of consecutive failures. An open circuit admits no call until an instant at
//! which it admits one probe (half open). A successful probe closes the circuit; a failed one delays the next probe.
//! Only transport failures count: a remote that responds with an error is reachable.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::backoff::{Backoff, Delays};
use super::{lock, saturating_add};

/// Thresholds of a circuit: when it opens and how often it probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircuitConfig {
    /// The number of consecutive failures that opens the circuit.
    pub failures: u32,
    /// The intervals between probes. A probe without a result for `max` is replaced by another.
    pub probes: Backoff,
}

impl Default for CircuitConfig {
    /// Five failures; probes 1 s to 30 s apart.
    fn default() -> Self {
        Self { failures: 5, probes: Backoff { min: Duration::from_secs(1), max: Duration::from_secs(30) } }
    }
}

/// The state of a circuit, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircuitState {
    /// Calls are admitted.
    Closed,
    /// No call is admitted.
    Open,
    /// One probe is in flight.
    HalfOpen,
}

impl CircuitState {
    /// The name as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// The circuit rejected a call. The next call may be admitted at this instant at the earliest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("circuit open: the remote is unreachable; waiting for the next probe")]
pub struct CircuitOpenUntil(pub Instant);

/// The circuit of one remote, shared by its clones.
#[derive(Clone, Debug)]
pub struct Circuit {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    remote: String,
    config: CircuitConfig,
    rng: fastrand::Rng,
    phase: CircuitPhase,
    /// Counts the phases, so that results of calls admitted in an earlier phase are ignored.
    epoch: u64,
}

#[derive(Debug)]
enum CircuitPhase {
    Closed { failures: u32 },
    Open { until: Instant, delays: Delays },
    HalfOpen { since: Instant, delays: Delays },
}

impl Circuit {
    /// A closed circuit. `remote` names it in logs: it must hold no secret. The jitter comes from `seed`.
    pub fn new(remote: impl Into<String>, config: CircuitConfig, seed: u64) -> Self {
        let inner = Inner {
            remote: remote.into(),
            config,
            rng: fastrand::Rng::with_seed(seed),
            phase: CircuitPhase::Closed { failures: 0 },
            epoch: 0,
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Admits a call, or returns the instant of the next attempt. Report the call's result with the permit.
    ///
    /// # Errors
    /// If the circuit is open or its probe is in flight.
    pub fn admit(&self) -> Result<Permit, CircuitOpenUntil> {
        let epoch = lock(&self.inner).admit(Instant::now())?;
        Ok(Permit { circuit: self.clone(), epoch })
    }

    /// The current state.
    pub fn state(&self) -> CircuitState {
        match lock(&self.inner).phase {
            CircuitPhase::Closed { .. } => CircuitState::Closed,
            CircuitPhase::Open { .. } => CircuitState::Open,
            CircuitPhase::HalfOpen { .. } => CircuitState::HalfOpen,
        }
    }
}

/// One admitted call. Dropping the permit reports no result; after a dropped probe another one is admitted immediately.
#[derive(Debug)]
#[must_use = "a dropped permit reports no result to the circuit"]
pub struct Permit {
    circuit: Circuit,
    epoch: u64,
}

impl Permit {
    /// Reports that the remote responded, with success or with an error.
    pub fn success(self) {
        lock(&self.circuit.inner).succeeded(self.epoch);
    }

    /// Reports that the remote was unreachable or did not respond.
    pub fn failure(self) {
        lock(&self.circuit.inner).failed(self.epoch, Instant::now());
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // After a reported result the epoch is an earlier one, or the permit is not a probe's.
        lock(&self.circuit.inner).dropped(self.epoch, Instant::now());
    }
}

impl Inner {
    fn admit(&mut self, now: Instant) -> Result<u64, CircuitOpenUntil> {
        let Backoff { min, max } = self.config.probes;
        match &self.phase {
            CircuitPhase::Closed { .. } => return Ok(self.epoch),
            CircuitPhase::Open { until, .. } if now < *until => return Err(CircuitOpenUntil(*until)),
            // The end of the probe is unknown, but most probes end within the shortest interval.
            CircuitPhase::HalfOpen { since, .. } if now < saturating_add(*since, max) => {
                return Err(CircuitOpenUntil(saturating_add(now, min).min(saturating_add(*since, max))));
            }
            CircuitPhase::Open { .. } | CircuitPhase::HalfOpen { .. } => {}
        }
        self.change(|phase| match phase {
            CircuitPhase::Open { delays, .. } | CircuitPhase::HalfOpen { delays, .. } => {
                CircuitPhase::HalfOpen { since: now, delays }
            }
            closed @ CircuitPhase::Closed { .. } => closed,
        });
        Ok(self.epoch)
    }

    fn succeeded(&mut self, epoch: u64) {
        if epoch != self.epoch {
            return;
        }
        match &mut self.phase {
            CircuitPhase::Closed { failures } => *failures = 0,
            CircuitPhase::Open { .. } => {}
            CircuitPhase::HalfOpen { .. } => {
                self.change(|_| CircuitPhase::Closed { failures: 0 });
                tracing::info!(remote = self.remote, "remote reachable again; circuit closed");
            }
        }
    }

    fn failed(&mut self, epoch: u64, now: Instant) {
        if epoch != self.epoch {
            return;
        }
        match &mut self.phase {
            CircuitPhase::Closed { failures } => {
                *failures += 1;
                if *failures >= self.config.failures {
                    let mut delays = self.config.probes.start(self.rng.u64(..));
                    let until = saturating_add(now, delays.after_failure());
                    self.change(|_| CircuitPhase::Open { until, delays });
                    tracing::warn!(remote = self.remote, "remote unreachable; circuit opened");
                }
            }
            CircuitPhase::Open { .. } => {}
            CircuitPhase::HalfOpen { .. } => self.change(|phase| match phase {
                CircuitPhase::Open { mut delays, .. } | CircuitPhase::HalfOpen { mut delays, .. } => {
                    CircuitPhase::Open { until: saturating_add(now, delays.after_failure()), delays }
                }
                closed @ CircuitPhase::Closed { .. } => closed,
            }),
        }
    }

    fn dropped(&mut self, epoch: u64, now: Instant) {
        if epoch == self.epoch && matches!(self.phase, CircuitPhase::HalfOpen { .. }) {
            self.change(|phase| match phase {
                CircuitPhase::HalfOpen { delays, .. } => CircuitPhase::Open { until: now, delays },
                other => other,
            });
        }
    }

    fn change(&mut self, to: impl FnOnce(CircuitPhase) -> CircuitPhase) {
        self.phase = to(std::mem::replace(&mut self.phase, CircuitPhase::Closed { failures: 0 }));
        self.epoch += 1;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep_until};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn circuit() -> Circuit {
        Circuit::new("control plane", CircuitConfig { failures: 3, ..CircuitConfig::default() }, 1)
    }

    fn fail(circuit: &Circuit, times: usize) {
        for _ in 0..times {
            circuit.admit().unwrap().failure();
        }
    }

    async fn next_probe(circuit: &Circuit) -> Permit {
        let CircuitOpenUntil(at) = circuit.admit().unwrap_err();
        sleep_until(at).await;
        circuit.admit().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn consecutive_failures_open_the_circuit() {
        let circuit = circuit();
        fail(&circuit, 2);
        circuit.admit().unwrap().success();
        fail(&circuit, 2);
        assert_eq!(circuit.state(), CircuitState::Closed);
        fail(&circuit, 1);
        assert_eq!(circuit.state(), CircuitState::Open);
        assert!(circuit.admit().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn open_circuit_admits_one_probe_at_a_time() {
        let circuit = circuit();
        fail(&circuit, 3);
        let probe = next_probe(&circuit).await;
        assert_eq!(circuit.state(), CircuitState::HalfOpen);
        assert_eq!(circuit.admit().unwrap_err(), CircuitOpenUntil(Instant::now() + SECOND));
        probe.success();
        assert_eq!(circuit.state(), CircuitState::Closed);
        let calls = [circuit.admit().unwrap(), circuit.admit().unwrap()];
        calls.into_iter().for_each(Permit::success);
    }

    #[tokio::test(start_paused = true)]
    async fn failed_probes_back_off_from_one_to_thirty_seconds() {
        let circuit = circuit();
        fail(&circuit, 3);
        for base in [1, 2, 4, 8, 15, 15, 15] {
            let CircuitOpenUntil(at) = circuit.admit().unwrap_err();
            let delay = at - Instant::now();
            assert!((base * SECOND..=2 * base * SECOND).contains(&delay), "{delay:?} for {base} s");
            next_probe(&circuit).await.failure();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn closing_the_circuit_resets_probe_backoff() {
        let circuit = circuit();
        fail(&circuit, 3);
        for _ in 0..5 {
            next_probe(&circuit).await.failure();
        }
        next_probe(&circuit).await.success();
        fail(&circuit, 3);
        let CircuitOpenUntil(at) = circuit.admit().unwrap_err();
        assert!(at - Instant::now() <= 2 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn circuit_admits_another_probe_when_one_is_dropped() {
        let circuit = circuit();
        fail(&circuit, 3);
        drop(next_probe(&circuit).await);
        circuit.admit().unwrap().success();
        assert_eq!(circuit.state(), CircuitState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn dropped_permit_reports_no_result() {
        let circuit = circuit();
        fail(&circuit, 2);
        drop(circuit.admit().unwrap());
        fail(&circuit, 1);
        assert_eq!(circuit.state(), CircuitState::Open);
    }

    #[tokio::test(start_paused = true)]
    async fn hung_probe_is_replaced_and_ignored() {
        let circuit = circuit();
        fail(&circuit, 3);
        let hanging = next_probe(&circuit).await;
        advance(29 * SECOND + SECOND / 2).await;
        assert_eq!(circuit.admit().unwrap_err(), CircuitOpenUntil(Instant::now() + SECOND / 2));
        advance(SECOND / 2).await;
        let second = circuit.admit().unwrap();
        hanging.failure();
        assert_eq!(circuit.state(), CircuitState::HalfOpen);
        second.success();
        assert_eq!(circuit.state(), CircuitState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn late_results_do_not_change_an_open_circuit() {
        let circuit = circuit();
        let early = [circuit.admit().unwrap(), circuit.admit().unwrap(), circuit.admit().unwrap()];
        let early_success = circuit.admit().unwrap();
        fail(&circuit, 3);
        early_success.success();
        assert_eq!(circuit.state(), CircuitState::Open);
        next_probe(&circuit).await.success();
        early.into_iter().for_each(Permit::failure);
        assert_eq!(circuit.state(), CircuitState::Closed);
    }
}

//! Guarantees that a remote that is down is asked by one probe at a time, further and further apart.
//!
//! Closed, until so many calls in a row failed to get through; then open: nobody calls before an instant, at which
//! one probe may. If it gets through the circuit is closed, else the next probe is further away. Only failures of
//! the transport count: a remote that answers "no" is up.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::backoff::{Backoff, Delays};
use super::{saturating_add, lock};

/// When a circuit opens and how often it probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircuitConfig {
    /// So many failures in a row, with no success in between, open it.
    pub failures: u32,
    /// How far probes are apart. A probe without a result for as long as `max` frees its place for another.
    pub probes: Backoff,
}

impl Default for CircuitConfig {
    /// Five failures; probes 1 s to 30 s apart.
    fn default() -> Self {
        Self { failures: 5, probes: Backoff { min: Duration::from_secs(1), max: Duration::from_secs(30) } }
    }
}

/// Where a circuit stands, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircuitState {
    /// Calls go through.
    Closed,
    /// No call goes through.
    Open,
    /// One probe is under way.
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

/// The refusal of a call: ask again at this instant, at the earliest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the remote has not been reachable; it is not called before the next probe")]
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
    /// Counts the phases, so that the result of a call let through in an earlier one can be told and dropped.
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

    /// Lets a call through, or says when to ask again. Say how the call went by the permit.
    ///
    /// # Errors
    /// When the circuit is open, or its probe is under way.
    pub fn admit(&self) -> Result<Permit, CircuitOpenUntil> {
        let epoch = lock(&self.inner).admit(Instant::now())?;
        Ok(Permit { circuit: self.clone(), epoch })
    }

    /// Where the circuit stands.
    pub fn state(&self) -> CircuitState {
        match lock(&self.inner).phase {
            CircuitPhase::Closed { .. } => CircuitState::Closed,
            CircuitPhase::Open { .. } => CircuitState::Open,
            CircuitPhase::HalfOpen { .. } => CircuitState::HalfOpen,
        }
    }
}

/// One call let through. Dropping it says nothing about the remote; a dropped probe lets another one go at once.
#[derive(Debug)]
#[must_use = "a permit that is dropped tells the circuit nothing"]
pub struct Permit {
    circuit: Circuit,
    epoch: u64,
}

impl Permit {
    /// The remote answered, whatever the answer was.
    pub fn success(self) {
        lock(&self.circuit.inner).succeeded(self.epoch);
    }

    /// The remote could not be reached or did not answer.
    pub fn failure(self) {
        lock(&self.circuit.inner).failed(self.epoch, Instant::now());
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // After a result this is of an earlier epoch, or not of a probe.
        lock(&self.circuit.inner).dropped(self.epoch, Instant::now());
    }
}

impl Inner {
    fn admit(&mut self, now: Instant) -> Result<u64, CircuitOpenUntil> {
        let Backoff { min, max } = self.config.probes;
        match &self.phase {
            CircuitPhase::Closed { .. } => return Ok(self.epoch),
            CircuitPhase::Open { until, .. } if now < *until => return Err(CircuitOpenUntil(*until)),
            // When the probe will end is not known, but most do within the shortest distance.
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
                tracing::info!(remote = self.remote, "the remote is reachable again");
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
                    tracing::warn!(
                        remote = self.remote,
                        "the remote is not reachable; calls wait for a probe"
                    );
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
    async fn an_open_circuit_lets_one_probe_through_at_a_time() {
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
    async fn failed_probes_come_apart_from_one_second_to_thirty() {
        let circuit = circuit();
        fail(&circuit, 3);
        for base in [1, 2, 4, 8, 15, 15, 15] {
            let CircuitOpenUntil(at) = circuit.admit().unwrap_err();
            let distance = at - Instant::now();
            assert!((base * SECOND..=2 * base * SECOND).contains(&distance), "{distance:?} for {base} s");
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
    async fn a_dropped_probe_lets_another_one_go_at_once() {
        let circuit = circuit();
        fail(&circuit, 3);
        drop(next_probe(&circuit).await);
        circuit.admit().unwrap().success();
        assert_eq!(circuit.state(), CircuitState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_call_counts_neither_way() {
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

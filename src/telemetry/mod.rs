//! State, metrics, probes and logs of the operator.
//!
//! | module | contents |
//! |---|---|
//! | [`state`] | the state of the operator at one moment, with its readiness |
//! | [`metrics`] | counters, histograms, and gauges read from the state |
//! | [`server`] | `/metrics`, `/healthz`, `/readyz` and `/startupz` |
//! | [`log`] | format and filters of the log |

pub mod log;
mod logfmt;
pub mod metrics;
pub mod server;
pub mod state;

use std::time::Duration;

/// The longest start period of a container health check at ECS. A start that takes longer fails with the container's check:
/// [`HealthCheck`](https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_HealthCheck.html).
pub(crate) const LONGEST_START_PERIOD: Duration = Duration::from_mins(5);

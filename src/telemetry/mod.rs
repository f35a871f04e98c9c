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

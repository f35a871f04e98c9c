//! The judgement of `/startupz`: whether this copy has started.

use std::time::Duration;

use tracing::{info, warn};

use ecs_mesh_controller::ActiveWarnings;

use crate::telemetry::LONGEST_START_PERIOD;

/// How many conditions are named. A copy that starts may lack hundreds of clusters; `/readyz` has all of them.
const MAX_NAMED: usize = 3;

/// Judges each startup probe, and logs a start that takes too long, since ECS keeps no output of a health check.
#[derive(Debug, Default)]
pub(super) struct StartupCheck {
    warnings: ActiveWarnings<(), ()>,
}

impl StartupCheck {
    /// Why this copy has not started after `uptime`; `None` if it has.
    pub(super) fn judge(&self, pending: &[String], uptime: Duration) -> Option<String> {
        if pending.is_empty() {
            if self.warnings.clear(&()) {
                info!(seconds = uptime.as_secs(), "copy has started");
            }
            return None;
        }
        let reason = summary(pending);
        if uptime > LONGEST_START_PERIOD && self.warnings.raise((), ()) {
            warn!(pending = %reason, seconds = uptime.as_secs(), "copy has not started; its startup check fails");
        }
        Some(reason)
    }
}

/// The first conditions, and the number of the others.
fn summary(conditions: &[String]) -> String {
    let named = conditions.iter().take(MAX_NAMED).map(String::as_str).collect::<Vec<_>>().join("; ");
    match conditions.len().saturating_sub(MAX_NAMED) {
        0 => named,
        more => format!("{named}; and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::log::testing::LogBuffer;
    use crate::telemetry::log::{LogFormat, subscriber};

    fn conditions(count: usize) -> Vec<String> {
        (1..=count).map(|n| format!("condition {n}")).collect()
    }

    #[test]
    fn reason_names_few_of_many_conditions() {
        let check = StartupCheck::default();
        let reason = |count| check.judge(&conditions(count), Duration::ZERO);
        assert_eq!(reason(0), None);
        assert_eq!(reason(2).unwrap(), "condition 1; condition 2");
        assert_eq!(reason(400).unwrap(), "condition 1; condition 2; condition 3; and 397 more");
    }

    #[test]
    fn slow_start_is_logged_once_and_when_it_ends() {
        let (check, log) = (StartupCheck::default(), LogBuffer::default());
        let writer = log.clone();
        let subscriber = subscriber(LogFormat::Json, "info", false, move || writer.clone()).unwrap();
        let _logging = tracing::subscriber::set_default(subscriber);
        let levels = || {
            let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
            let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
            lines.map(|line| line["level"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        for (count, seconds, expected) in [
            (2, 300, &[][..]),
            (2, 315, &["WARN"]),
            (2, 330, &["WARN"]),
            (1, 345, &["WARN"]),
            (0, 360, &["WARN", "INFO"]),
            (0, 375, &["WARN", "INFO"]),
        ] {
            check.judge(&conditions(count), Duration::from_secs(seconds));
            assert_eq!(levels(), expected, "{count} conditions after {seconds} s");
        }
    }
}

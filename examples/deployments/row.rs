//! The rows and columns of the table, and the times that decide them.

use std::time::Duration;

use ecs_mesh_api::HumanDuration;

/// How the tasks of the service are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Row {
    /// A deployment that stops old tasks long after new ones run; the app exits soon after SIGTERM.
    Late,
    /// A deployment that stops old tasks before new ones are ready in the mesh; the app serves on.
    Early,
    /// Deployments that stop old tasks as soon as new ones run; the app serves on.
    AtOnce,
    /// Tasks are killed hard, one after the other.
    HardKill,
}

/// Whether the operator takes tasks out of the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Reaction {
    /// It drains and removes, by its defaults.
    Operator,
    /// It registers tasks (`policy: create-only`), and nothing drains or removes them.
    Without,
}

/// The times that decide the rows. The defaults are those of the published table.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RowTimes {
    /// Row `late`: from RUNNING of new tasks until old ones are stopped
    #[arg(long, default_value = "40s", value_parser = duration)]
    pub stop_late: Duration,

    /// Row `early`: from RUNNING of new tasks until old ones are stopped
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub stop_early: Duration,

    /// Row `late`: how long the app serves after SIGTERM
    #[arg(long, default_value = "200ms", value_parser = duration)]
    pub serve_short: Duration,

    /// Rows `early` and `at-once`: how long the app serves after SIGTERM
    #[arg(long, default_value = "15s", value_parser = duration)]
    pub serve_long: Duration,

    /// Row `at-once`: number of deployments
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub deployments: u32,

    /// Row `hard-kill`: number of kills
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub kills: u32,

    /// Row `hard-kill`: time between two kills
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub kill_interval: Duration,

    /// Row `hard-kill`: from a kill until ECS detects it
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub detected_after: Duration,

    /// `--drain-time` of kuma-dp: how long a sidecar serves after SIGTERM
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub drain_time: Duration,

    /// From the end of a task's containers until ECS has removed its network interface, and shows it STOPPED
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub deprovisioning: Duration,

    /// How long requests are counted after the last task is replaced
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub settle: Duration,
}

/// The replacement of the tasks in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replacement {
    /// Rolling deployments, one after the other.
    Deployments {
        number: u32,
        /// From RUNNING of new tasks until old ones are stopped.
        stop_after: Duration,
    },
    /// Hard kills.
    Kills { number: u32, interval: Duration, detected_after: Duration },
}

/// Parses a duration of the command line.
///
/// # Errors
/// Shows the form.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    HumanDuration::parse(text).map(|duration| duration.0)
}

impl Row {
    /// All rows, in the table's order.
    pub(crate) const ALL: [Self; 4] = [Self::Late, Self::Early, Self::AtOnce, Self::HardKill];

    /// The row's name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Early => "early",
            Self::AtOnce => "at-once",
            Self::HardKill => "hard-kill",
        }
    }

    /// The replacement of the tasks.
    pub(crate) fn replacement(self, times: &RowTimes) -> Replacement {
        match self {
            Self::Late => Replacement::Deployments { number: 1, stop_after: times.stop_late },
            Self::Early => Replacement::Deployments { number: 1, stop_after: times.stop_early },
            Self::AtOnce => {
                Replacement::Deployments { number: times.deployments, stop_after: Duration::ZERO }
            }
            Self::HardKill => Replacement::Kills {
                number: times.kills,
                interval: times.kill_interval,
                detected_after: times.detected_after,
            },
        }
    }

    /// How long the app serves after SIGTERM.
    pub(crate) fn serving(self, times: &RowTimes) -> Duration {
        match self {
            Self::Late => times.serve_short,
            Self::Early | Self::AtOnce => times.serve_long,
            Self::HardKill => Duration::ZERO,
        }
    }

    /// When old tasks are stopped, for people.
    pub(crate) fn label(self, times: &RowTimes) -> String {
        match self.replacement(times) {
            Replacement::Deployments { number, stop_after } if stop_after.is_zero() => {
                let counted = if number == 1 { String::new() } else { format!(", {number} deployments") };
                format!("at once{counted}")
            }
            Replacement::Deployments { stop_after, .. } => {
                format!("{} after the new are RUNNING", HumanDuration(stop_after))
            }
            Replacement::Kills { number, interval, detected_after } => {
                let (interval, detected) = (HumanDuration(interval), HumanDuration(detected_after));
                format!("hard kill, {number} times, every {interval}, detected after {detected}")
            }
        }
    }

    /// How long the app serves, for people.
    pub(crate) fn serving_label(self, times: &RowTimes) -> String {
        match self {
            Self::HardKill => "–".to_owned(),
            _ => HumanDuration(self.serving(times)).to_string(),
        }
    }
}

impl Reaction {
    /// The column's name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Without => "without",
        }
    }

    /// The column's name for people.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Operator => "with the operator",
            Self::Without => "without",
        }
    }

    /// `policy` of the binding.
    pub(crate) fn policy(self) -> &'static str {
        match self {
            Self::Operator => "sync",
            Self::Without => "create-only",
        }
    }
}

//! Start order, health checks and stop time-outs of container definitions.
//!
//! Source of the rules and ranges:
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_definition_parameters.html>.

use std::time::Duration;

use serde_json::Value;

use super::containers::{ContainerState, ContainerStatus, HealthStatus};
use super::definitions::text;
use crate::aws::error::client;
use crate::aws::{AwsApiResult, LifeTimes};
use ecs_mesh_model::GoDuration;

/// Docker label of a container definition: from RUNNING until it answers, instead of [`LifeTimes::ready`]; a duration
/// such as `1.5s`.
pub const READY_LABEL: &str = "sandbox/ready";
/// Docker label of a container definition: how long it answers after SIGTERM, instead of [`LifeTimes::serving`].
pub const SERVING_LABEL: &str = "sandbox/serving";
/// Docker label of a container definition: from RUNNING until the container exits by itself.
pub const EXITS_LABEL: &str = "sandbox/exits";
/// Docker label of a container definition: the exit code of a container that exits by itself; default 0.
pub const EXIT_CODE_LABEL: &str = "sandbox/exit-code";

/// `stopTimeout` of a container that has none.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// The parts of a container definition that the life of its container depends on.
#[derive(Clone, Debug)]
pub(super) struct ContainerSpec {
    pub(super) name: String,
    pub(super) essential: bool,
    /// The containers that must reach a condition first, by their index.
    pub(super) depends_on: Vec<(usize, StartCondition)>,
    pub(super) health_check: Option<HealthCheckSpec>,
    stop_timeout: Option<Duration>,
    ready: Option<Duration>,
    serving: Option<Duration>,
    /// When the container exits by itself, and its exit code.
    pub(super) exits: Option<(Duration, i32)>,
}

/// `condition` of a container's dependency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StartCondition {
    Start,
    Complete,
    Success,
    Healthy,
}

/// `healthCheck` of a container definition.
#[derive(Clone, Copy, Debug)]
pub(super) struct HealthCheckSpec {
    pub(super) interval: Duration,
    pub(super) retries: u32,
    pub(super) start_period: Duration,
}

impl StartCondition {
    /// Whether a container in this state meets the condition; `None` if it never will.
    pub(super) fn is_met(self, container: &ContainerState) -> Option<bool> {
        let stopped = container.status == ContainerStatus::Stopped;
        match self {
            Self::Start => Some(container.status != ContainerStatus::Pending),
            Self::Complete => Some(stopped),
            Self::Success if stopped => (container.exit_code == Some(0)).then_some(true),
            Self::Healthy if stopped => None,
            Self::Success => Some(false),
            Self::Healthy => Some(container.health == HealthStatus::Healthy),
        }
    }
}

impl ContainerSpec {
    /// Reads the container definitions of a revision.
    ///
    /// # Errors
    /// ECS's error for an unknown or cyclic dependency, a condition that its container cannot meet, or a time out of
    /// range.
    pub(super) fn read_all(containers: &[Value], fargate: bool) -> AwsApiResult<Vec<Self>> {
        let names: Vec<&str> = containers.iter().map(|container| text(container, "name")).collect();
        let specs: Vec<Self> = containers
            .iter()
            .map(|container| Self::read(container, &names, fargate))
            .collect::<Result<_, _>>()?;
        for spec in &specs {
            spec.check_conditions(&specs)?;
        }
        if !specs.iter().any(|spec| spec.essential) {
            return Err(client("at least one container must be essential"));
        }
        if has_cycle(&specs) {
            return Err(client("the dependencies of the containers have a cycle"));
        }
        Ok(specs)
    }

    fn read(container: &Value, names: &[&str], fargate: bool) -> AwsApiResult<Self> {
        let name = text(container, "name").to_owned();
        let depends_on = container["dependsOn"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|dependency| read_dependency(&name, dependency, names))
            .collect::<Result<_, _>>()?;
        let stop_timeout = seconds(container, "stopTimeout", if fargate { 2..=120 } else { 0..=u64::MAX })?;
        let exits = label_duration(container, EXITS_LABEL)?;
        let code = container["dockerLabels"][EXIT_CODE_LABEL].as_str().and_then(|code| code.parse().ok());
        Ok(Self {
            essential: container["essential"] != false,
            depends_on,
            health_check: read_health_check(&container["healthCheck"])?,
            stop_timeout,
            ready: label_duration(container, READY_LABEL)?,
            serving: label_duration(container, SERVING_LABEL)?,
            exits: exits.map(|after| (after, code.unwrap_or(0))),
            name,
        })
    }

    fn check_conditions(&self, specs: &[Self]) -> AwsApiResult<()> {
        for (on, condition) in &self.depends_on {
            let Self { name, essential, health_check, .. } = &specs[*on];
            let completes = matches!(condition, StartCondition::Complete | StartCondition::Success);
            if completes && *essential {
                return Err(client(format!(
                    "{name} is essential, so {} cannot wait for its exit",
                    self.name
                )));
            }
            if *condition == StartCondition::Healthy && health_check.is_none() {
                return Err(client(format!(
                    "{} waits for the health of {name}, which has no check",
                    self.name
                )));
            }
        }
        Ok(())
    }

    /// From RUNNING until the container answers.
    pub(super) fn ready(&self, life: &LifeTimes) -> Duration {
        self.ready.unwrap_or(life.ready)
    }

    /// From SIGTERM: how long the container answers, when it is gone, and its exit code. SIGKILL ends both.
    pub(super) fn stops(&self, life: &LifeTimes) -> (Duration, Duration, i32) {
        let serving = self.serving.unwrap_or(life.serving);
        let exits = serving.max(life.stopping);
        let killed = match self.stop_timeout {
            Some(timeout) => timeout.mul_f64(life.time_scale),
            None => STOP_TIMEOUT.mul_f64(life.time_scale).max(life.stopping),
        };
        if exits <= killed { (serving, exits, 0) } else { (serving.min(killed), killed, 137) }
    }
}

impl HealthCheckSpec {
    /// The check with its times scaled.
    pub(super) fn scaled(&self, scale: f64) -> Self {
        let Self { interval, retries, start_period } = *self;
        let interval = interval.mul_f64(scale).max(Duration::from_millis(1));
        Self { interval, retries, start_period: start_period.mul_f64(scale) }
    }
}

fn read_dependency(name: &str, dependency: &Value, names: &[&str]) -> AwsApiResult<(usize, StartCondition)> {
    let on = text(dependency, "containerName");
    let index = names.iter().position(|known| *known == on);
    let index = index.ok_or_else(|| client(format!("{name} depends on {on:?}, which is not defined")))?;
    let condition = match text(dependency, "condition") {
        "START" => StartCondition::Start,
        "COMPLETE" => StartCondition::Complete,
        "SUCCESS" => StartCondition::Success,
        "HEALTHY" => StartCondition::Healthy,
        other => {
            let allowed = "START, COMPLETE, SUCCESS and HEALTHY are allowed";
            return Err(client(format!("the condition of {name} is {other:?}; {allowed}")));
        }
    };
    Ok((index, condition))
}

fn read_health_check(check: &Value) -> AwsApiResult<Option<HealthCheckSpec>> {
    // A command of NONE disables the check.
    if check.is_null() || check["command"][0] == "NONE" {
        return Ok(None);
    }
    seconds(check, "timeout", 2..=120)?;
    let retries = number(check, "retries", 1..=10)?.unwrap_or(3);
    Ok(Some(HealthCheckSpec {
        interval: seconds(check, "interval", 5..=300)?.unwrap_or(Duration::from_secs(30)),
        retries: u32::try_from(retries).unwrap_or(3),
        start_period: seconds(check, "startPeriod", 0..=300)?.unwrap_or_default(),
    }))
}

fn seconds(
    from: &Value,
    field: &str,
    allowed: std::ops::RangeInclusive<u64>,
) -> AwsApiResult<Option<Duration>> {
    Ok(number(from, field, allowed)?.map(Duration::from_secs))
}

fn number(from: &Value, field: &str, allowed: std::ops::RangeInclusive<u64>) -> AwsApiResult<Option<u64>> {
    match &from[field] {
        Value::Null => Ok(None),
        given => match given.as_u64().filter(|given| allowed.contains(given)) {
            Some(number) => Ok(Some(number)),
            None => {
                let (least, most) = (allowed.start(), allowed.end());
                Err(client(format!("{field} is {given}; {least} to {most} are allowed")))
            }
        },
    }
}

fn label_duration(container: &Value, label: &str) -> AwsApiResult<Option<Duration>> {
    let Some(given) = container["dockerLabels"][label].as_str() else { return Ok(None) };
    let nanoseconds = GoDuration::parse(given).and_then(|duration| u64::try_from(duration.0).ok());
    let duration = nanoseconds.map(Duration::from_nanos);
    duration
        .map(Some)
        .ok_or_else(|| client(format!("{label} is {given:?}, which is not a duration such as 1.5s")))
}

/// Whether removing containers without remaining dependencies, over and over, leaves some.
fn has_cycle(specs: &[ContainerSpec]) -> bool {
    let mut left: Vec<usize> = (0..specs.len()).collect();
    loop {
        let waiting: Vec<usize> = left
            .iter()
            .copied()
            .filter(|index| specs[*index].depends_on.iter().any(|(on, _)| left.contains(on)))
            .collect();
        if waiting.len() == left.len() {
            return !left.is_empty();
        }
        left = waiting;
    }
}

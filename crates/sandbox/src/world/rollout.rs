//! How the tasks of the world's services are defined, replaced and stopped.

use std::time::Duration;

use serde_json::{Value, json};

use crate::aws::{READY_LABEL, SERVING_LABEL};

/// Name of the sidecar's container, where it has one of its own.
pub(super) const SIDECAR: &str = "kuma-dp";

/// How the tasks of one service are defined, replaced and stopped. The default is one container without a health check,
/// which stops serving at SIGTERM, and ECS's default limits.
#[allow(clippy::struct_excessive_bools)] // four independent properties
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// `minimumHealthyPercent` of its deployments.
    pub minimum_healthy_percent: u16,
    /// `maximumPercent` of its deployments.
    pub maximum_percent: u16,
    /// Whether the app has a container health check. Without one, tasks count as healthy after a time.
    pub has_health_check: bool,
    /// Whether the sidecar is a container of its own that the app depends on, so that it stops after the app.
    pub has_sidecar: bool,
    /// How long the app serves after SIGTERM.
    pub serving: Duration,
    /// Whether its tasks run in network mode `host` on a container instance, and share its address.
    pub host_mode: bool,
    /// Whether it has a task on each container instance, instead of a number of them.
    pub is_daemon: bool,
    /// When the app begins to serve, if not after the account's [`LifeTimes::ready`](crate::aws::LifeTimes::ready).
    pub ready: Option<Duration>,
}

impl Rollout {
    /// A rollout with some of these limits, in percent, and any containers.
    fn drawn(limits: &[(u16, u16)], rng: &mut fastrand::Rng) -> Self {
        let (minimum_healthy_percent, maximum_percent) = limits[rng.usize(..limits.len())];
        Self {
            minimum_healthy_percent,
            maximum_percent,
            has_health_check: rng.bool(),
            has_sidecar: rng.u8(..4) > 0,
            ..Self::default()
        }
    }
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            minimum_healthy_percent: 100,
            maximum_percent: 200,
            has_health_check: false,
            has_sidecar: false,
            serving: Duration::ZERO,
            host_mode: false,
            is_daemon: false,
            ready: None,
        }
    }
}

/// How the services of a world are rolled out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rollouts {
    /// [`Rollout::default`] for all.
    #[default]
    Simple,
    /// Apps with sidecars that stop after them, and that serve for a second after SIGTERM; every second service has a
    /// health check. Deployments start all new tasks before they stop old ones.
    Ordered,
    /// Each service by chance: with and without sidecars and health checks, with limits that stop old tasks before new
    /// ones run, and with apps that serve from no time to 15 s after SIGTERM. Services are also scaled to zero.
    Mixed,
    /// Each service by chance: apps that exit at once on SIGTERM, with and without health checks, mostly with limits that
    /// keep old tasks until as many new ones count as healthy. Each deployment comes to its end, also that of one task.
    Abrupt,
}

impl Rollouts {
    /// The rollout of the service with this index.
    pub(super) fn rollout(self, index: usize, rng: &mut fastrand::Rng) -> Rollout {
        match self {
            Self::Simple => Rollout::default(),
            Self::Ordered => Rollout {
                has_health_check: index % 2 == 1,
                has_sidecar: true,
                serving: Duration::from_secs(1),
                ..Rollout::default()
            },
            Self::Mixed => {
                let limits = [(100, 200), (100, 200), (50, 100), (50, 200), (0, 100), (100, 150)];
                let drawn = Rollout::drawn(&limits, rng);
                Rollout { serving: Duration::from_millis([0, 200, 2_000, 15_000][rng.usize(..4)]), ..drawn }
            }
            Self::Abrupt => {
                let limits = [(100, 200), (100, 200), (100, 200), (50, 200), (0, 150), (0, 100)];
                Rollout::drawn(&limits, rng)
            }
        }
    }
}

impl Rollout {
    /// Changes the definition of the app's container.
    pub(super) fn apply_to(&self, app: &mut Value) {
        if self.has_health_check {
            app["healthCheck"] = json!({"command": ["CMD-SHELL", "curl -f localhost"], "interval": 10});
        }
        if self.has_sidecar {
            app["dependsOn"] = json!([{"containerName": SIDECAR, "condition": "START"}]);
        }
        let serving = (!self.serving.is_zero()).then_some(self.serving);
        for (label, value) in [(SERVING_LABEL, serving), (READY_LABEL, self.ready)] {
            if let Some(value) = value {
                app["dockerLabels"][label] = json!(format!("{}ms", value.as_millis()));
            }
        }
    }

    /// The definition of the sidecar's container, if there is one.
    pub(super) fn sidecar(&self) -> Option<Value> {
        // `--auth-type` is Kong Mesh's: the role tags of the world's tasks are what its sidecars authenticate with.
        let command = "kuma-dp run --name \"$TASK_ID\" --mesh default --cp-address https://kuma.internal:5678 --auth-type=aws";
        self.has_sidecar.then(|| {
            json!({
                "name": SIDECAR,
                "image": "docker.io/kong/kuma-dp:2.14.0",
                "essential": true,
                "entryPoint": ["sh", "-c"],
                "command": [command],
            })
        })
    }

    /// The limits of its deployments, if they are not ECS's defaults.
    pub(super) fn deployment_configuration(&self) -> Option<Value> {
        let Self { minimum_healthy_percent, maximum_percent, .. } = *self;
        let limits = json!({
            "minimumHealthyPercent": minimum_healthy_percent,
            "maximumPercent": maximum_percent,
        });
        ((minimum_healthy_percent, maximum_percent) != (100, 200)).then_some(limits)
    }
}

//! The sandbox process: AWS and Kuma of the library on loopback, controlled by orders on standard input.

use std::collections::VecDeque;
use std::io::{BufRead, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ecs_mesh_model::{DesiredStatus, LastStatus, Tags, TaskArn, Timestamp};
use ecs_mesh_sandbox::aws::{Cloud, CloudConfig, CloudTask, LifeTimes, RunTask, Throttling};
use ecs_mesh_sandbox::control_planes::ControlPlanes;
use ecs_mesh_sandbox::endpoints::{EndpointOptions, Endpoints};
use ecs_mesh_sandbox::world::{CLUSTER, QUEUE, ScenarioService, deploy};
use tokio::sync::mpsc;

use crate::consul::BenchConsul;
use crate::control::{AccountSize, Order, SandboxAddresses, SandboxSnapshot};
use crate::watch::Watcher;

/// Lifetime of a task of [`Order::Churn`].
const TASK_LIFETIME: Duration = Duration::from_millis(1_700);
/// Interval of starts and stops.
const TICK_INTERVAL: Duration = Duration::from_millis(10);
/// Maximum tasks of one `RunTask`.
const AT_ONCE: usize = 10;
/// The table of leases.
pub(crate) const LEASES: &str = "leases";

/// The names of the services.
pub(crate) fn services(count: u16) -> Vec<ScenarioService> {
    (0..count).map(|n| ScenarioService::new(&format!("svc-{n:02}"), 20_000 + n, 8_080, 0)).collect()
}

/// Serves until standard input ends.
///
/// # Errors
/// Describes the failure.
pub(crate) async fn serve(size: AccountSize) -> Result<(), String> {
    let mut world = BenchWorld::start(size).await?;
    progress(&world.place())?;
    let mut orders = orders();
    let mut ticks = tokio::time::interval(TICK_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            order = orders.recv() => match order {
                Some(order) => progress(&world.execute(&order?).await?)?,
                None => return Ok(()),
            },
            _ = ticks.tick() => world.tick()?,
        }
    }
}

fn progress(what: &impl serde::Serialize) -> Result<(), String> {
    let line = serde_json::to_string(what).map_err(|error| error.to_string())?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(|error| format!("writing to the benchmark: {error}"))
}

/// A stream of orders, read by a thread since standard input is blocking.
fn orders() -> mpsc::UnboundedReceiver<Result<Order, String>> {
    let (give, take) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let order = line
                .map_err(|error| error.to_string())
                .and_then(|line| serde_json::from_str(&line).map_err(|error| format!("{line:?}: {error}")));
            if give.send(order).is_err() {
                return;
            }
        }
    });
    take
}

struct BenchWorld {
    endpoints: Endpoints,
    watcher: Arc<Watcher>,
    calls_at_mark: std::collections::BTreeMap<String, u64>,
    /// The clusters' ARNs.
    clusters: Vec<String>,
    launches: Launches,
    churn: Option<ChurnRate>,
    stop_rate: Option<StopRate>,
    consul: Option<BenchConsul>,
}

/// Stopping tasks.
struct StopRate {
    per_second: u32,
    since: Instant,
    stopped: u64,
}

/// Starting and stopping tasks.
struct ChurnRate {
    per_second: u32,
    since: Instant,
    started: u64,
    running: VecDeque<(Instant, String)>,
}

impl BenchWorld {
    async fn start(size: AccountSize) -> Result<Self, String> {
        let watcher = Arc::new(Watcher::default());
        let endpoints = Endpoints::start(EndpointOptions {
            cloud: CloudConfig {
                subnet: "10.0.0.0/12".to_owned(),
                throttling: Some(Throttling::published()),
                // No consumer reads this history.
                history: Duration::ZERO,
                ..CloudConfig::default()
            },
            aws_faults: Arc::clone(&watcher) as _,
            kuma_faults: Arc::clone(&watcher) as _,
            ..EndpointOptions::default()
        })
        .await?;
        let services = services(size.services);
        let clusters: Vec<String> = (0..size.clusters.max(1))
            .map(|n| if n == 0 { CLUSTER.to_owned() } else { format!("{CLUSTER}-{n}") })
            .collect();
        endpoints
            .with(|cloud, _, now| {
                clusters.iter().try_for_each(|name| cloud.create_cluster(name, Tags::default()).map(drop))?;
                cloud.create_table(LEASES, "operatorId", now)?;
                services
                    .iter()
                    .try_for_each(|service| deploy(cloud, service, ControlPlanes::Kuma, now))
                    .and_then(|()| {
                        // This part is not measured.
                        cloud.purge_queue(QUEUE)
                    })
            })
            .map_err(|error| error.to_string())?;
        let consul = BenchConsul::start(Arc::clone(&watcher)).await?;
        let definitions = services.into_iter().map(|service| service.name).collect();
        let home = endpoints.cluster.rsplit_once('/').map_or("", |(home, _)| home);
        let arns = clusters.iter().map(|name| format!("{home}/{name}")).collect();
        let launches = Launches { clusters, definitions, started: 0 };
        let calls_at_mark = endpoints.front.calls();
        Ok(Self {
            endpoints,
            watcher,
            calls_at_mark,
            clusters: arns,
            launches,
            churn: None,
            stop_rate: None,
            consul,
        })
    }

    fn place(&self) -> SandboxAddresses {
        let environment = self.endpoints.environment();
        SandboxAddresses {
            environment: environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            queue_url: self.endpoints.queue_url(),
            clusters: self.clusters.clone(),
            kuma_url: self.endpoints.kuma_url.clone().unwrap_or_default(),
            consul_url: self.consul.as_ref().map(|consul| consul.url.clone()),
        }
    }

    async fn execute(&mut self, order: &Order) -> Result<SandboxSnapshot, String> {
        match order {
            Order::CreateTasks(tasks) => self.create_tasks(*tasks, false)?,
            Order::Burst(tasks) => {
                self.create_tasks(*tasks, true)?;
                self.mark();
            }
            Order::Churn(per_second) => self.set_churn(*per_second),
            Order::LogIn => self.log_in().await?,
            Order::Stop(tasks) => {
                self.mark();
                self.stop(*tasks);
            }
            Order::StopRate(per_second) => {
                let rate = StopRate { per_second: *per_second, since: Instant::now(), stopped: 0 };
                self.stop_rate = (*per_second > 0).then_some(rate);
            }
            Order::Mark => self.mark(),
            Order::Snapshot => {}
        }
        Ok(self.snapshot())
    }

    fn mark(&mut self) {
        self.calls_at_mark = self.endpoints.front.calls();
        self.watcher.mark();
    }

    fn snapshot(&self) -> SandboxSnapshot {
        let calls = self.endpoints.front.calls();
        let before = |name: &String| self.calls_at_mark.get(name).copied().unwrap_or_default();
        let queued = self.endpoints.with(|cloud, _, now| cloud.queue_counts(QUEUE, now));
        SandboxSnapshot {
            queued: queued.map_or(0, |counts| counts.visible + counts.in_flight + counts.delayed),
            calls: calls.into_iter().map(|(name, count)| (name.clone(), count - before(&name))).collect(),
            ..self.watcher.snapshot()
        }
    }

    /// Creates running tasks. With `with_events`, all RUNNING events reach the queue at once.
    fn create_tasks(&mut self, tasks: usize, with_events: bool) -> Result<(), String> {
        let (endpoints, launches) = (&self.endpoints, &mut self.launches);
        let last_step = Duration::from_millis(1);
        endpoints.with(|cloud, _, now| {
            let usual = cloud.config().life.clone();
            cloud.set_life(LifeTimes {
                provisioning: Duration::ZERO,
                pending: Duration::ZERO,
                activating: last_step,
                ..usual.clone()
            });
            cloud.lose_events_until(now.plus(Duration::from_hours(1)));
            let mut left = tasks;
            while left > 0 {
                launches.run(cloud, left.min(AT_ONCE), now)?;
                left -= left.min(AT_ONCE);
            }
            cloud.step(now);
            if with_events {
                cloud.lose_events_until(now);
            }
            cloud.step(now.plus(last_step));
            cloud.lose_events_until(now);
            cloud.set_life(usual);
            Ok(())
        })
    }

    fn set_churn(&mut self, per_second: u32) {
        let running = self.churn.take().map(|churn| churn.running).unwrap_or_default();
        self.churn = Some(ChurnRate { per_second, since: Instant::now(), started: 0, running });
    }

    /// Running tasks, up to this many.
    fn running(&self, limit: usize) -> Vec<TaskArn> {
        self.endpoints.with(|cloud, _, _| {
            let runs = |task: &&Arc<CloudTask>| {
                task.last_status == LastStatus::Running && task.desired_status == DesiredStatus::Running
            };
            let tasks = cloud.all_tasks().filter(runs).take(limit);
            tasks.filter_map(|task| TaskArn::parse(&task.arn).ok()).collect()
        })
    }

    async fn log_in(&self) -> Result<(), String> {
        let consul = self.consul.as_ref().ok_or("Consul is not running")?;
        consul.log_in(self.running(usize::MAX)).await
    }

    fn stop(&self, tasks: usize) {
        let tasks = self.running(tasks);
        self.endpoints.with(|cloud, _, now| {
            for task in tasks {
                cloud.kill_hard(&task.to_string(), now);
            }
        });
    }

    /// Starts and stops the tasks that are due.
    fn tick(&mut self) -> Result<(), String> {
        if let Some(rate) = &mut self.stop_rate {
            let due = rate.since.elapsed().as_millis() * u128::from(rate.per_second) / 1_000;
            let now = usize::try_from(due.saturating_sub(u128::from(rate.stopped))).unwrap_or_default();
            rate.stopped += now as u64;
            if now > 0 {
                self.stop(now);
            }
        }
        let (launches, churn) = (&mut self.launches, &mut self.churn);
        let at = Instant::now();
        self.endpoints.with(|cloud, kuma, now| {
            // An unread journal grows without limit.
            kuma.take_journal();
            let Some(churn) = churn else { return Ok(()) };
            let due = at.duration_since(churn.since).as_millis() * u128::from(churn.per_second) / 1_000;
            while u128::from(churn.started) < due {
                let task = launches.run(cloud, 1, now)?;
                churn.running.extend(task.into_iter().map(|arn| (at + TASK_LIFETIME, arn)));
                churn.started += 1;
            }
            while churn.running.front().is_some_and(|(until, _)| *until <= at) {
                let Some((_, arn)) = churn.running.pop_front() else { break };
                let cluster = arn.split('/').nth(1).unwrap_or_default().to_owned();
                cloud.stop_task(&cluster, &arn, "", now).map_err(|error| error.to_string())?;
            }
            Ok(())
        })
    }
}

/// Starts tasks, of one service and cluster after the other.
struct Launches {
    /// The clusters' names.
    clusters: Vec<String>,
    definitions: Vec<String>,
    /// Number of started tasks.
    started: usize,
}

impl Launches {
    /// Starts tasks of the next service, in the next cluster.
    fn run(&mut self, cloud: &mut Cloud, count: usize, now: Timestamp) -> Result<Vec<String>, String> {
        let name = &self.definitions[self.started / AT_ONCE % self.definitions.len()];
        let cluster = &self.clusters[self.started / count % self.clusters.len()];
        self.started += count;
        let request = RunTask {
            count,
            group: Some(format!("service:{name}")),
            tags: [("mesh".to_owned(), "yes".to_owned())].into(),
            ..RunTask::awsvpc(cluster, name)
        };
        let tasks = cloud.run_task(&request, now).map_err(|error| error.to_string())?;
        Ok(tasks.iter().map(|task| task.arn.to_string()).collect())
    }
}

//! The sandbox process: AWS and Kuma of the library on loopback, controlled by orders on standard input.

use std::collections::VecDeque;
use std::io::{BufRead, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ecs_mesh_model::{DesiredStatus, LastStatus, TaskArn, Timestamp};
use ecs_mesh_sandbox::aws::{Cloud, CloudConfig, CloudTask, LifeTimes, RunTask, Throttling};
use ecs_mesh_sandbox::control_planes::ControlPlanes;
use ecs_mesh_sandbox::endpoints::{EndpointOptions, Endpoints};
use ecs_mesh_sandbox::world::{CLUSTER, QUEUE, ScenarioService, deploy};
use tokio::sync::mpsc;

use crate::consul::BenchConsul;
use crate::control::{Order, SandboxAddresses, SandboxSnapshot};
use crate::watch::Watcher;

/// Number of services; tasks are spread evenly over them.
const SERVICES: u16 = 20;
/// Lifetime of a task of [`Order::ChurnRate`].
const RUNS: Duration = Duration::from_millis(1_700);
/// Interval of starts and stops.
const BEAT: Duration = Duration::from_millis(10);
/// Maximum tasks of one `RunTask`.
const AT_ONCE: usize = 10;

/// The names of the services.
pub(crate) fn services() -> Vec<ScenarioService> {
    (0..SERVICES)
        .map(|n| ScenarioService { name: format!("svc-{n:02}"), port: 20_000 + n, app_port: 8_080, count: 0 })
        .collect()
}

/// Serves until standard input ends.
///
/// # Errors
/// Describes the failure.
pub(crate) async fn serve() -> Result<(), String> {
    let mut world = BenchWorld::begin().await?;
    progress(&world.place())?;
    let mut orders = orders();
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            order = orders.recv() => match order {
                Some(order) => progress(&world.obey(&order?).await?)?,
                None => return Ok(()),
            },
            _ = beat.tick() => world.live()?,
        }
    }
}

fn progress(what: &impl serde::Serialize) -> Result<(), String> {
    let line = serde_json::to_string(what).map_err(|error| error.to_string())?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|error| format!("the bench is gone: {error}"))
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
    definitions: Vec<String>,
    /// Number of started tasks.
    started: usize,
    lives: Option<ChurnRate>,
    deaths: Option<DeathRate>,
    consul: Option<BenchConsul>,
}

/// Stopping tasks.
struct DeathRate {
    per_second: u32,
    since: Instant,
    so_far: u64,
}

/// Starting and stopping tasks.
struct ChurnRate {
    per_second: u32,
    since: Instant,
    born: u64,
    running: VecDeque<(Instant, String)>,
}

impl BenchWorld {
    async fn begin() -> Result<Self, String> {
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
        let services = services();
        endpoints
            .with(|cloud, _, now| {
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
        let calls_at_mark = endpoints.front.calls();
        Ok(Self {
            endpoints,
            watcher,
            calls_at_mark,
            definitions,
            started: 0,
            lives: None,
            deaths: None,
            consul,
        })
    }

    fn place(&self) -> SandboxAddresses {
        let environment = self.endpoints.environment();
        SandboxAddresses {
            environment: environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            queue_url: self.endpoints.queue_url(),
            cluster: self.endpoints.cluster.clone(),
            kuma_url: self.endpoints.kuma_url.clone().unwrap_or_default(),
            consul_url: self.consul.as_ref().map(|consul| consul.url.clone()),
        }
    }

    async fn obey(&mut self, order: &Order) -> Result<SandboxSnapshot, String> {
        match order {
            Order::Standing(tasks) => self.standing(*tasks, false)?,
            Order::Burst(tasks) => {
                self.standing(*tasks, true)?;
                self.mark();
            }
            Order::Lives(per_second) => self.change_lives(*per_second),
            Order::LogIn => self.log_in().await?,
            Order::Kill(tasks) => {
                self.mark();
                self.kill(*tasks);
            }
            Order::Deaths(per_second) => {
                let begin = DeathRate { per_second: *per_second, since: Instant::now(), so_far: 0 };
                self.deaths = (*per_second > 0).then_some(begin);
            }
            Order::Mark => self.mark(),
            Order::Look => {}
        }
        Ok(self.picture())
    }

    fn mark(&mut self) {
        self.calls_at_mark = self.endpoints.front.calls();
        self.watcher.mark();
    }

    fn picture(&self) -> SandboxSnapshot {
        let calls = self.endpoints.front.calls();
        let before = |name: &String| self.calls_at_mark.get(name).copied().unwrap_or_default();
        let queued = self.endpoints.with(|cloud, _, now| cloud.queue_counts(QUEUE, now));
        SandboxSnapshot {
            queued: queued.map_or(0, |counts| counts.visible + counts.in_flight + counts.delayed),
            calls: calls.into_iter().map(|(name, count)| (name.clone(), count - before(&name))).collect(),
            ..self.watcher.picture()
        }
    }

    /// Creates running tasks. With `tell`, all RUNNING events reach the queue at once.
    fn standing(&mut self, tasks: usize, tell: bool) -> Result<(), String> {
        let (endpoints, definitions, started) = (&self.endpoints, &self.definitions, &mut self.started);
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
                run(cloud, definitions, started, left.min(AT_ONCE), now)?;
                left -= left.min(AT_ONCE);
            }
            cloud.step(now);
            if tell {
                cloud.lose_events_until(now);
            }
            cloud.step(now.plus(last_step));
            cloud.lose_events_until(now);
            cloud.set_life(usual);
            Ok(())
        })
    }

    fn change_lives(&mut self, per_second: u32) {
        let running = self.lives.take().map(|lives| lives.running).unwrap_or_default();
        self.lives = Some(ChurnRate { per_second, since: Instant::now(), born: 0, running });
    }

    /// Running tasks, up to this many.
    fn running(&self, most: usize) -> Vec<TaskArn> {
        self.endpoints.with(|cloud, _, _| {
            let runs = |task: &&Arc<CloudTask>| {
                task.last_status == LastStatus::Running && task.desired_status == DesiredStatus::Running
            };
            let tasks = cloud.all_tasks().filter(runs).take(most);
            tasks.filter_map(|task| TaskArn::parse(&task.arn).ok()).collect()
        })
    }

    async fn log_in(&self) -> Result<(), String> {
        let consul = self.consul.as_ref().ok_or("no Consul runs")?;
        consul.log_in(self.running(usize::MAX)).await
    }

    fn kill(&self, tasks: usize) {
        let victims = self.running(tasks);
        self.endpoints.with(|cloud, _, now| {
            for task in victims {
                cloud.kill_hard(&task.to_string(), now);
            }
        });
    }

    /// Starts and stops the tasks that are due.
    fn live(&mut self) -> Result<(), String> {
        if let Some(deaths) = &mut self.deaths {
            let due = deaths.since.elapsed().as_millis() * u128::from(deaths.per_second) / 1_000;
            let now = usize::try_from(due.saturating_sub(u128::from(deaths.so_far))).unwrap_or_default();
            deaths.so_far += now as u64;
            if now > 0 {
                self.kill(now);
            }
        }
        let (definitions, started, lives) = (&self.definitions, &mut self.started, &mut self.lives);
        let at = Instant::now();
        self.endpoints.with(|cloud, kuma, now| {
            // An unread journal grows without limit.
            kuma.take_journal();
            let Some(lives) = lives else { return Ok(()) };
            let due = at.duration_since(lives.since).as_millis() * u128::from(lives.per_second) / 1_000;
            while u128::from(lives.born) < due {
                let task = run(cloud, definitions, started, 1, now)?;
                lives.running.extend(task.into_iter().map(|arn| (at + RUNS, arn)));
                lives.born += 1;
            }
            while lives.running.front().is_some_and(|(until, _)| *until <= at) {
                let Some((_, arn)) = lives.running.pop_front() else { break };
                cloud.stop_task(CLUSTER, &arn, "", now).map_err(|error| error.to_string())?;
            }
            Ok(())
        })
    }
}

/// Starts tasks of the next service.
fn run(
    cloud: &mut Cloud,
    definitions: &[String],
    started: &mut usize,
    count: usize,
    now: Timestamp,
) -> Result<Vec<String>, String> {
    let name = &definitions[*started / AT_ONCE % definitions.len()];
    *started += count;
    let request = RunTask {
        count,
        group: Some(format!("service:{name}")),
        tags: [("mesh".to_owned(), "yes".to_owned())].into(),
        ..RunTask::awsvpc(CLUSTER, name)
    };
    let tasks = cloud.run_task(&request, now).map_err(|error| error.to_string())?;
    Ok(tasks.iter().map(|task| task.arn.to_string()).collect())
}

//! Reads role tags again: soon after CloudTrail told of a change, and by the clock in any case (CloudTrail's events are
//! best effort and come in one Region only). A role whose tags differ brings all its tasks back into the queues.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::Operator;
use ecs_mesh_api::RoleTagMode;
use ecs_mesh_controller::Priority;
use ecs_mesh_core::intent::Fact;
use ecs_mesh_model::{RoleArn, TaskArn};

/// How often the clock is looked at for roles that are due.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// How much later than that it may be on a busy machine.
const HEARTBEAT_SLACK: Duration = Duration::from_mins(1);

/// How long a line of the audit log waits for a role that has yet to be asked for.
const ROLE_LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

impl Operator {
    /// The role that a task runs, or ran, as. With `ask` its definition is read for it, where it is known and was never
    /// read.
    pub(super) async fn role_of(&self, task: &TaskArn, ask: bool) -> Option<RoleArn> {
        if let Some(role) = self.store.role_of(task) {
            return Some(role);
        }
        let known = self.store.snapshot(task, Duration::MAX, self.clock.now()).task.filter(|_| ask)?;
        let definition = tokio::time::timeout(ROLE_LOOKUP_TIMEOUT, self.definitions.get(&known.definition)).await;
        definition.ok()?.ok()?.task_role.clone()
    }
}

impl Operator {
    pub(super) async fn watch_roles(self: Arc<Self>, stop: CancellationToken) {
        let role_recheck_rx = self.role_recheck_rx.lock().ok().and_then(|mut slot| slot.take());
        let Some(mut role_recheck_rx) = role_recheck_rx else { return };
        let mut due: BTreeSet<(Instant, RoleArn)> = BTreeSet::new();
        let mut next_look = Instant::now() + CHECK_INTERVAL;
        let mut reads = JoinSet::new();
        let pulse = self.metrics.health().register("role watcher");
        loop {
            pulse.expect_within(CHECK_INTERVAL + HEARTBEAT_SLACK);
            let earliest = due.first().map_or(next_look, |(at, _)| (*at).min(next_look));
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(suspect) = role_recheck_rx.recv() => { due.insert(suspect); }
                Some(_) = reads.join_next(), if !reads.is_empty() => {}
                () = tokio::time::sleep_until(earliest) => {
                    let now = Instant::now();
                    while due.first().is_some_and(|(at, _)| *at <= now) {
                        if let Some((_, role)) = due.pop_first() {
                            reads.spawn(Arc::clone(&self).recheck_role(role));
                        }
                    }
                    if now >= next_look {
                        next_look = now + CHECK_INTERVAL;
                        for role in self.roles.take_changed() {
                            self.requeue_tasks_of_role(&role);
                        }
                        for role in self.roles_due() {
                            reads.spawn(Arc::clone(&self).recheck_role(role));
                        }
                    }
                }
            }
        }
    }

    /// The roles of living tasks that were not read for the shortest `recheck` of all bindings that look at roles.
    fn roles_due(&self) -> Vec<RoleArn> {
        let set = self.manifests();
        let looking = set.bindings.values().filter(|b| b.spec.role_tags.mode != RoleTagMode::Off);
        let Some(recheck) = looking.map(|binding| binding.spec.role_tags.recheck.0).min() else {
            return Vec::new();
        };
        let used = self.store.roles();
        self.roles.retain(&used);
        used.into_iter().filter(|role| self.roles.age(role).is_none_or(|age| age >= recheck)).collect()
    }

    fn requeue_tasks_of_role(&self, role: &RoleArn) {
        self.store.tasks_of_role(role).iter().for_each(|task| self.enqueue(task, Priority::Removal));
    }

    async fn recheck_role(self: Arc<Self>, role: RoleArn) {
        let was_confirmed = self.roles.is_confirmed(&role);
        match self.roles.read(&role).await {
            // What one read forbade waits for the second.
            (Fact::Known(read), false) if read.confirmed && !was_confirmed => self.requeue_tasks_of_role(&role),
            (Fact::Known(_), true) => {
                info!(%role, "the role's tags are not what they were");
                self.requeue_tasks_of_role(&role);
            }
            (Fact::Unknown(why), _) => {
                self.metrics.record_warning("role_read_failed");
                debug!(%role, %why, "the role's tags cannot be read; what is registered stays");
            }
            _ => {}
        }
    }
}

//! Re-reads role tags: soon after CloudTrail reports a change, and periodically, since CloudTrail's events are best effort
//! and arrive in one Region only. The tasks of a role whose tags differ are enqueued.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::context::{Context, RoleRecheck};
use ecs_mesh_api::{HumanDuration, RoleTagMode};
use ecs_mesh_controller::{ActiveWarnings, Priority};
use ecs_mesh_core::intent::Fact;
use ecs_mesh_model::RoleArn;

/// Interval at which roles that are due for a read are looked up.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// How much longer a check may take on a busy machine before the watcher counts as stuck.
const HEARTBEAT_SLACK: Duration = Duration::from_mins(1);

/// Reads role tags and enqueues the tasks of changed roles.
pub(super) struct RoleWatcher {
    pub(super) context: Arc<Context>,
    pub(super) rechecks: mpsc::UnboundedReceiver<RoleRecheck>,
}

impl RoleWatcher {
    /// Watches until `stop`.
    pub(super) async fn run(self, stop: CancellationToken) {
        let Self { context, mut rechecks } = self;
        let warnings = ActiveWarnings::default();
        let mut due: BTreeSet<RoleRecheck> = BTreeSet::new();
        let mut next_check = Instant::now() + CHECK_INTERVAL;
        let mut reads = JoinSet::new();
        // Roles whose last reading is old and that wait for their turn.
        let mut waiting: BTreeSet<RoleArn> = BTreeSet::new();
        let heartbeat = context.metrics().health().register("role watcher");
        loop {
            heartbeat.expect_within(CHECK_INTERVAL + HEARTBEAT_SLACK);
            let earliest = due.first().map_or(next_check, |(at, _)| (*at).min(next_check));
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(recheck) = rechecks.recv() => { due.insert(recheck); }
                Some(read) = reads.join_next(), if !reads.is_empty() => {
                    match read {
                        Ok((role, RecheckCause::Age)) => drop(waiting.remove(&role)),
                        Ok((_, RecheckCause::Change)) => {}
                        // It is not known which read panicked.
                        Err(_) => waiting.clear(),
                    }
                }
                () = tokio::time::sleep_until(earliest) => {
                    let now = Instant::now();
                    while due.first().is_some_and(|(at, _)| *at <= now) {
                        if let Some((_, role)) = due.pop_first() {
                            reads.spawn(recheck_role(Arc::clone(&context), role, RecheckCause::Change));
                        }
                    }
                    if now >= next_check {
                        next_check = now + CHECK_INTERVAL;
                        for role in context.aws.roles.take_changed() {
                            enqueue_tasks_of(&context, &role);
                        }
                        if let Some(recheck) = shortest_recheck(&context) {
                            warn_of_late_rechecks(&context, &warnings, recheck);
                        }
                        for role in roles_due(&context).into_iter().filter(|role| waiting.insert(role.clone())) {
                            reads.spawn(recheck_role(Arc::clone(&context), role, RecheckCause::Age));
                        }
                    }
                }
            }
        }
    }
}

/// The shortest `recheck` of all bindings that check role tags.
fn shortest_recheck(context: &Context) -> Option<Duration> {
    let manifests = context.manifests.load();
    let checking = manifests.bindings.values().filter(|b| b.spec.role_tags.mode != RoleTagMode::Off);
    checking.map(|binding| binding.spec.role_tags.recheck.0).min()
}

/// Whether the rate limit is too low to read this many roles once in `recheck`.
fn exceeds_rate(roles: usize, recheck: Duration, reads_per_second: f64) -> bool {
    #[allow(clippy::cast_precision_loss)] // thousands
    let needed = roles as f64 / recheck.as_secs_f64();
    needed > reads_per_second
}

/// Warns, once for each account, that roles are read again later than the bindings ask for.
fn warn_of_late_rechecks(context: &Context, warnings: &ActiveWarnings<String>, recheck: Duration) {
    let set = context.manifests.load();
    let mut by_account: BTreeMap<String, usize> = BTreeMap::new();
    for role in context.aws.store.roles() {
        *by_account.entry(role.account().to_owned()).or_default() += 1;
    }
    // A standby acts on no role, so that the share of the leader counts for each copy.
    let leaders_share = context.process.replicas.as_ref().map_or(1.0, |replicas| replicas.reads.share(true));
    for (account, roles) in by_account {
        let reads_per_second = leaders_share * context.leadership.limits.role_rate(&set, &account);
        if !exceeds_rate(roles, recheck, reads_per_second) {
            if warnings.clear(&account) {
                info!(account, roles, "roles are read as often as roleTags.recheck again");
            }
        } else if warnings.raise(account.clone(), ()) {
            let help =
                "raise --role-reads-per-second, readsPerSecond.roles of the AwsAccount, or roleTags.recheck";
            let recheck = HumanDuration(recheck);
            warn!(
                account, roles, %recheck, reads_per_second, help,
                "too many roles to read each within roleTags.recheck"
            );
        }
    }
}

/// The roles of live tasks whose last read is older than the shortest `recheck` of all bindings that check role tags.
fn roles_due(context: &Context) -> Vec<RoleArn> {
    let Some(recheck) = shortest_recheck(context) else { return Vec::new() };
    let roles = &context.aws.roles;
    let used = context.aws.store.roles();
    roles.retain(&used);
    used.into_iter().filter(|role| roles.age(role).is_none_or(|age| age >= recheck)).collect()
}

fn enqueue_tasks_of(context: &Context, role: &RoleArn) {
    for task in context.aws.store.tasks_of_role(role) {
        context.workers.enqueue(&task, Priority::Removal);
    }
}

/// Why a role is read again.
#[derive(Clone, Copy)]
enum RecheckCause {
    /// Its tags may have changed.
    Change,
    /// Its last reading is old.
    Age,
}

async fn recheck_role(context: Arc<Context>, role: RoleArn, cause: RecheckCause) -> (RoleArn, RecheckCause) {
    let roles = &context.aws.roles;
    let was_confirmed = roles.is_confirmed(&role);
    let read = match cause {
        RecheckCause::Change => roles.read(&role).await,
        RecheckCause::Age => roles.read_when_spare(&role).await,
    };
    match read {
        // A rejection by one read waits for the second.
        (Fact::Known(read), false) if read.confirmed && !was_confirmed => enqueue_tasks_of(&context, &role),
        (Fact::Known(_), true) => {
            info!(%role, "role tags changed");
            enqueue_tasks_of(&context, &role);
        }
        (Fact::Unknown(error), _) => {
            context.metrics().record_warning("role_read_failed");
            debug!(%role, %error, "cannot read role tags; keeping registrations");
        }
        _ => {}
    }
    (role, cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_is_exceeded_when_a_round_takes_longer_than_recheck() {
        let minute = Duration::from_mins(1);
        assert!(!exceeds_rate(600, minute, 10.0));
        assert!(exceeds_rate(601, minute, 10.0));
        assert!(!exceeds_rate(5_000, Duration::from_mins(10), 10.0));
    }
}

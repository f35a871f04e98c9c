//! Follows whether this process leads. A standby keeps its caches warm and decides nothing; a new leader receives events at
//! once, and sweeps before it removes anything for its absence.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::context::Context;
use super::deps::ReadRates;
use ecs_mesh_api::AccountReadRates;
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_aws::consumer::{QueueConsumer, QueueObserver as _, QueueState};
use ecs_mesh_aws::read_buckets::ReadBuckets;
use ecs_mesh_lease::{ElectionStatus, LeaseHandle};

/// How often the lease is looked at besides each change of the election: a term also ends by itself.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How much later than a check is due the loop counts as stuck.
const HEARTBEAT_SLACK: Duration = Duration::from_secs(30);

/// The other copies of this operator, one of which the lease elects.
#[derive(Clone)]
pub struct Replicas {
    /// This process's part in the election.
    pub election: LeaseHandle,
    /// How the read rates are shared.
    pub reads: StandbyReads,
}

/// How the copies share the read rates, so that all of them together keep to what one may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StandbyReads {
    /// The share of all standbys together, in percent; at most 90.
    pub percent: u8,
    /// Most standbys that run at once.
    pub standbys: u16,
}

impl Default for StandbyReads {
    /// Two copies, and two more while a deployment replaces them.
    fn default() -> Self {
        Self { percent: 20, standbys: 3 }
    }
}

impl StandbyReads {
    /// The share of the read rates of the leader, or of one standby.
    pub(super) fn share(self, leads: bool) -> f64 {
        let of_standbys = f64::from(self.percent.min(90)) / 100.0;
        if leads { 1.0 - of_standbys } else { of_standbys / f64::from(self.standbys.max(1)) }
    }
}

/// The rate limiters of reads.
pub(super) struct ReadLimits {
    rates: ReadRates,
    /// ListTasks, DescribeTasks and DescribeContainerInstances.
    pub(super) tasks: ReadBuckets,
    pub(super) definitions: ReadBuckets,
    /// ECS has a quota of its own for services, and one for task protection.
    pub(super) services: ReadBuckets,
    pub(super) protection: ReadBuckets,
    pub(super) instances: ReadBuckets,
    pub(super) roles: ReadBuckets,
}

impl ReadLimits {
    /// Limiters of these rates in each account and Region.
    pub(super) fn new(rates: ReadRates) -> Self {
        Self {
            rates,
            tasks: ReadBuckets::new(rates.ecs, 5.0),
            definitions: ReadBuckets::new(rates.definitions, 4.0),
            services: ReadBuckets::new(rates.ecs, 2.0),
            protection: ReadBuckets::new(rates.ecs, 2.0),
            instances: ReadBuckets::new(rates.ecs, 5.0),
            roles: ReadBuckets::new(rates.iam, 4.0),
        }
    }

    /// The rate of reads of roles in this account.
    pub(super) fn role_rate(&self, set: &ManifestSet, account: &str) -> f64 {
        let declared = set.aws_account(account).and_then(|(_, spec)| spec.reads_per_second.roles);
        declared.map_or(self.rates.iam, f64::from)
    }

    /// Sets the rates that `AwsAccount`s declare.
    pub(super) fn set_accounts(&self, set: &ManifestSet) {
        let rates = |of: fn(&AccountReadRates) -> Option<u16>| -> BTreeMap<String, f64> {
            let declared = set.aws_accounts.values();
            declared
                .filter_map(|spec| Some((spec.account.clone(), of(&spec.reads_per_second)?.into())))
                .collect()
        };
        let ecs = rates(|rates| rates.ecs);
        for buckets in [&self.tasks, &self.services, &self.protection, &self.instances] {
            buckets.set_account_rates(ecs.clone());
        }
        self.definitions.set_account_rates(rates(|rates| rates.definitions));
        self.roles.set_account_rates(rates(|rates| rates.roles));
    }

    fn set_share(&self, share: f64) {
        let all =
            [&self.tasks, &self.definitions, &self.services, &self.protection, &self.instances, &self.roles];
        all.into_iter().for_each(|buckets| buckets.set_share(share));
    }
}

/// Whether this process leads, as its loops have taken note of.
pub(super) struct Leadership {
    leads: AtomicBool,
    /// Wakes all that wait in the order in which they began, so that simulated lives replay. A watch channel wakes them in any.
    changed: Notify,
    pub(super) limits: ReadLimits,
}

impl Leadership {
    /// The leadership of a process that starts.
    pub(super) fn new(leads: bool, limits: ReadLimits) -> Self {
        Self { leads: AtomicBool::new(leads), changed: Notify::new(), limits }
    }

    fn set(&self, leads: bool) {
        self.leads.store(leads, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Waits until this process leads, or no longer does.
    async fn wait_until(&self, leads: bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // A change between the check and the wait counts.
            changed.as_mut().enable();
            if self.leads.load(Ordering::Acquire) == leads {
                return;
            }
            changed.await;
        }
    }
}

/// Follows the lease until `stop`.
pub(super) async fn run(context: Arc<Context>, stop: CancellationToken) {
    let heartbeat = context.metrics().health().register("leadership");
    let reads = context.process.replicas.as_ref().map(|replicas| replicas.reads);
    let mut election = context.process.replicas.as_ref().map(|replicas| replicas.election.subscribe());
    let set_share = |leads: bool| {
        let share = reads.map_or(1.0, |reads| reads.share(leads));
        context.leadership.limits.set_share(share);
    };
    let mut known = context.leadership.leads.load(Ordering::Acquire);
    set_share(known);
    loop {
        heartbeat.expect_within(CHECK_INTERVAL + HEARTBEAT_SLACK);
        let leads = context.process.lease.holds();
        if leads != known {
            known = leads;
            set_share(leads);
            if leads {
                begin_term(&context);
            }
            context.leadership.set(leads);
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return heartbeat.unregister(),
            () = changed(election.as_mut()) => {}
            () = tokio::time::sleep(CHECK_INTERVAL) => {}
        }
    }
}

/// Waits for a change of the election; without one, it never returns.
async fn changed(election: Option<&mut watch::Receiver<ElectionStatus>>) {
    if let Some(election) = election
        && election.changed().await.is_ok()
    {
        return;
    }
    // The elector has ended, and the term ends by itself.
    std::future::pending::<()>().await;
}

/// Another copy may have written since this one looked, so everything is looked at again.
fn begin_term(context: &Context) {
    context.clusters.begin_term(context.now());
    let workers = context.workers.load();
    // The first manifests request the first sweep, after the control planes are known.
    if !workers.is_empty() {
        context.sweeps.request();
        info!("leading; sweeping before any removal");
    }
    for worker in workers.values() {
        worker.acl.iter().for_each(|acl| acl.soon());
        worker.tokens.iter().for_each(|tokens| tokens.soon());
    }
    context.schedule_all_role_rechecks();
    context.deployments.enqueue_all();
}

/// Receives events while this process leads, until `stop`. Ends earlier only if a receiver does.
pub(super) async fn receive(
    context: Arc<Context>,
    consumer: QueueConsumer,
    receivers: usize,
    stop: CancellationToken,
) {
    let queue = consumer.queue.name().to_owned();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = context.leadership.wait_until(true) => {}
        }
        let term = stop.child_token();
        let receiving = consumer.clone().run(receivers, term.clone());
        tokio::pin!(receiving);
        tokio::select! {
            biased;
            () = &mut receiving => return,
            () = context.leadership.wait_until(false) => {}
        }
        term.cancel();
        receiving.await;
        context.metrics().set_queue_state(&queue, QueueState::Unknown);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_copies_together_read_no_more_than_one_may() {
        for reads in [
            StandbyReads::default(),
            StandbyReads { percent: 0, standbys: 0 },
            StandbyReads { percent: 100, standbys: 1 },
        ] {
            let all = reads.share(true) + f64::from(reads.standbys.max(1)) * reads.share(false);
            assert!((all - 1.0).abs() < 1e-9, "{reads:?}: {all}");
            assert!(reads.share(true) >= 0.099, "{reads:?}");
        }
    }
}

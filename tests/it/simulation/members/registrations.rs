//! The registrations of the second account's tasks at Kuma, and the oracle that judges them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ecs_mesh_model::{ClusterId, Timestamp};
use ecs_mesh_sandbox::control_planes::ControlPlanes;
use ecs_mesh_sandbox::kuma::{KumaCp, KumaJournalEntry, service_of};
use ecs_mesh_sandbox::oracle::{KumaOracle, OracleConfig};
use ecs_mesh_sandbox::world::{Naming, Rollouts, World, WorldConfig};

use super::super::env::{START, SimEnv};
use super::super::faults::SimFault;
use super::{LAG, MemberAccess, config};

/// The second account's part of the control plane.
pub(in super::super) struct MemberRegistrations {
    pub(in super::super) access: Arc<MemberAccess>,
    pub(in super::super) oracle: Mutex<KumaOracle>,
    /// In the label of its registrations.
    pub(in super::super) cluster_id: ClusterId,
}

impl MemberRegistrations {
    /// Starts the second account, with tasks of its own.
    pub(in super::super) fn start(
        seed: u64,
        env: &SimEnv,
        kuma: &mut KumaCp,
        oracle: impl FnOnce(String) -> OracleConfig,
    ) -> (Self, World) {
        env.faults.count(SimFault::MemberAccount);
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x3E3B_E401);
        let own_seed = rng.u64(..);
        let member = SimEnv::of_account(own_seed, &mut rng, false, None, config).with_history_of(env);
        let world = WorldConfig {
            tasks: rng.usize(4..16),
            seed: own_seed,
            interval: (Duration::from_millis(500), Duration::from_secs(8)),
            // As in the first account: one control plane has one template of names.
            naming: Naming::TaskId,
            control_planes: ControlPlanes::Kuma,
            revoked_for: (Duration::from_secs(10), Duration::from_secs(90)),
            rollouts: Rollouts::Simple,
            host_mode: false,
        };
        let world = World::start(world, &mut member.cloud.lock().unwrap(), kuma, START).unwrap();
        let oracle = KumaOracle::new(oracle(member.cluster.to_string()));
        let oracle = Mutex::new(oracle.without_cluster(ClusterId::of(&env.cluster).as_str()));
        let cluster_id = ClusterId::of(&member.cluster);
        (Self { access: Arc::new(MemberAccess::new(seed, Arc::new(member))), oracle, cluster_id }, world)
    }

    /// Whether a write is one of this account's registrations.
    pub(in super::super) fn has(&self, entry: &KumaJournalEntry) -> bool {
        let body = entry.after.as_ref().or(entry.before.as_ref());
        body.is_some_and(|body| body["labels"]["ecs-mesh.dev/cluster-id"] == self.cluster_id.as_str())
    }

    /// Checks writes of its registrations.
    pub(in super::super) fn check_writes(
        &self,
        entries: Vec<KumaJournalEntry>,
        has_ended: bool,
        kuma: &KumaCp,
    ) {
        let mut cloud = self.access.env.cloud.lock().unwrap();
        cloud.step(self.access.env.now());
        let mut oracle = self.oracle.lock().unwrap();
        oracle.record_sender(has_ended);
        oracle.check_writes(entries, &cloud, kuma);
    }

    /// Why a removal breaks a promise: while the account cannot be read, only the manifests may ask for one.
    pub(in super::super) fn objection(&self, entry: &KumaJournalEntry) -> Option<String> {
        let since = self.access.failing_since().filter(|_| entry.after.is_none())?;
        let service = entry.before.as_ref().and_then(service_of).unwrap_or_default();
        let is_due =
            since.age_at(entry.at) < LAG || self.oracle.lock().unwrap().is_undeclared(service, entry.at);
        (!is_due)
            .then(|| format!("I2: {} of {service} is removed while its account cannot be read", entry.name))
    }

    /// Advances the account's tasks.
    pub(in super::super) fn step(&self, world: &mut World, kuma: &mut KumaCp, now: Timestamp) {
        world.step(&mut self.access.env.cloud.lock().unwrap(), kuma, None, now);
    }

    /// Ends all faults and events of the account.
    pub(in super::super) fn end(&self, world: &mut World, now: Timestamp) {
        self.access.end_failure();
        self.access.env.faults.end();
        world.stop_events(&mut self.access.env.cloud.lock().unwrap(), now);
    }

    /// Violations after the settle phase. `held` are the tasks that a guard holds.
    pub(in super::super) fn check_after_quiet(
        &self,
        world: &World,
        kuma: &KumaCp,
        held: &BTreeSet<String>,
        now: Timestamp,
    ) -> Vec<String> {
        let (cloud, mut oracle) = (self.access.env.cloud.lock().unwrap(), self.oracle.lock().unwrap());
        let left = oracle.check_after_quiet(&cloud, kuma, world.services(), &|id| held.contains(id), now);
        left.into_iter().map(|message| format!("member after quiet: {message}")).collect()
    }
}

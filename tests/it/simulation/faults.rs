//! Faults injected by the seed, with a count of each kind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use ecs_mesh_model::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::driver::OPERATOR;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SimFault {
    /// All calls to AWS fail for some time.
    AwsOutage,
    Throttled,
    AwsError,
    AwsHangs,
    Denied,
    /// A complete DescribeTasks call fails, by any of these or the outage.
    FailedDescribe,
    /// DescribeTasks returns a task as a failure with another reason than MISSING.
    FailureInDescribe,
    /// DescribeTasks reports a live task as MISSING.
    FalselyMissing,
    /// DescribeTasks reports a task that has just started as MISSING.
    MissingNewborn,
    /// DescribeTasks returns old state.
    StaleDescribe,
    /// ListTasks returns an empty complete list.
    EmptyList,
    /// ListTasks returns an empty page before others.
    EmptyPage,
    /// ListTasks omits some tasks of a page.
    ShortList,
    /// ListTasks omits some tasks for minutes.
    HiddenTasks,
    /// ListTasks returns old state.
    StaleList,
    /// IAM returns old role tags.
    StaleTags,
    /// A cluster was deleted while no operator ran.
    DeletedCluster,
    /// A list has items that the operator can't read, beside others.
    OddItem,
    /// All roles lose their tags at once.
    MassRevocation,
    /// Another principal of the account sends an event of its own: of a live task with a stop, another version or another
    /// address, or of a task that does not exist.
    ForgedEvent,
    /// A message is not deleted and is redelivered.
    UndeletedMessage,
    /// The machine's clock is set to another time.
    ClockStep,
    /// The audit log takes no lines for some time.
    BlockedLog,
    /// The control plane is unreachable for some time.
    MeshOutage,
    Unreachable,
    /// A response takes longer than the timeout.
    ServerHangs,
    /// A response takes long but arrives.
    SlowServer,
    ServerError,
    RateLimited,
    /// The write takes effect, and the response is lost.
    LostAnswer,
    /// The write takes effect, and the response is an error.
    ErrorAfterEffect,
    /// Another client writes immediately before.
    WriteConflict,
    /// The response to a list breaks off.
    BrokenAnswer,
    /// Services replace their tasks within limits that may stop old tasks before new ones are ready, with apps that serve
    /// for some time after SIGTERM.
    RollingDeployment,
    /// The tasks of a service run in network mode `host`, and have the address of their container instance.
    HostMode,
    /// Deployments of a life are held, with apps that exit at once on SIGTERM.
    HeldDeployment,
    /// UpdateTaskProtection takes effect, and the response is lost.
    LostProtection,
    /// DescribeServices returns old state.
    StaleService,
    /// DescribeServices reports an existing service as MISSING.
    MissingService,
    /// Events of deployments are not routed for some time.
    LostDeploymentEvents,
    /// Someone else protects a task, sets the protection of one anew, or clears it.
    ForeignProtection,
    /// A service deploys a revision whose app never answers.
    NeverReady,
    /// The operator is killed while it protects tasks.
    KilledWhileHeld,
    /// A held service's role loses its tag.
    RejectedWhileHeld,
    /// The control plane gets unreachable while a deployment is held.
    UnreachableWhileHeld,
    /// The control plane shows an unsupported version while a deployment is held.
    UnsupportedWhileHeld,
    /// A second operator registers tasks in the same mesh.
    SecondOperator,
    /// The operator reads a second account and Region, by a role that it assumes.
    MemberAccount,
    /// The role of the second account is not to be assumed for some time.
    MemberRoleDenied,
    /// Its credentials are expired for some time.
    MemberCredentials,
    /// All its calls are throttled for some time.
    MemberThrottled,
    /// All its calls hang for some time.
    MemberHangs,
    /// The leader of two replicas is killed.
    LeaderKilled,
    /// The leader is stopped, and releases the lease.
    LeaderStopped,
    /// The leader's calls hang for longer than the lease.
    LeaderHangs,
    /// All replicas stand still for longer than the lease, while another process takes it, or none.
    LeaderFrozen,
    /// The leader cannot reach the store of the lease.
    LeaderCutOff,
    /// The standby is killed, hangs, or cannot reach the store.
    StandbyDisturbed,
    /// A call to the store of the lease fails, before or after its effect.
    LeaseStoreError,
    /// A write of the lease takes effect, and the response is lost.
    LeaseStoreLostAnswer,
    /// The control plane shows a version that the operator does not support, for some time.
    UnsupportedVersion,
    /// The control plane is upgraded from 2.14 to 3.0.
    DialectUpgrade,
    /// The sidecars of a service register their own Dataplanes.
    TemplateMode,
    /// An edit leaves the Dataplanes of a service of the operator to be observed.
    OwnerSwitch,
    /// A service of sidecars in template mode is deployed with sidecars that start by name, or the other way round.
    SidecarSwitch,
    /// Zone proxies come and go, which are `ZoneIngress`es and `ZoneEgress`es.
    ZoneResources,
    /// The same, which are Dataplanes with listeners.
    ZoneListeners,
    /// A call to the store of tokens is throttled, or denied.
    StoreThrottled,
    StoreDenied,
    /// A write of the store takes effect, and the response is lost.
    StoreLostAnswer,
    /// The operator is killed after a write of the store.
    KilledWhileStoring,
    /// A list of the store lacks names of the last minutes.
    StoreListLag,
    /// Someone else revokes the token that tasks read.
    RevokedByHand,
    /// Another issuer's token is revoked.
    ForeignRevocation,
    /// A workload leaves the manifests, or returns.
    WorkloadEdit,
    /// A list omits items that the operator's token may not read.
    FilteredList,
    /// A list omits all items.
    FilteredEmptyList,
    /// The operator's token is unknown for some time.
    UnknownToken,
    /// A removal gets "not found" because the operator's token is unknown.
    NotFoundForBadToken,
    /// A task starts and logs in between two lists of the operator.
    LoginBetweenLists,
    /// Tokens are listed while a stopping task still needs its token.
    DrainingTask,
    /// Another client changes or removes a declared object.
    Drift,
}

impl SimFault {
    /// Faults of all runs.
    const EVERYWHERE: &[Self] = &[
        Self::AwsOutage,
        Self::Throttled,
        Self::AwsError,
        Self::AwsHangs,
        Self::Denied,
        Self::FailedDescribe,
        Self::FailureInDescribe,
        Self::StaleDescribe,
        Self::EmptyList,
        Self::EmptyPage,
        Self::ShortList,
        Self::StaleList,
        Self::StaleTags,
        Self::FalselyMissing,
        Self::MissingNewborn,
        Self::HiddenTasks,
        Self::MassRevocation,
        Self::DeletedCluster,
        Self::OddItem,
        Self::ForgedEvent,
        Self::UndeletedMessage,
        Self::ClockStep,
        Self::BlockedLog,
        Self::MeshOutage,
        Self::Unreachable,
        Self::ServerHangs,
        Self::SlowServer,
        Self::BrokenAnswer,
        Self::ServerError,
        Self::RateLimited,
        Self::LostAnswer,
        Self::ErrorAfterEffect,
    ];

    /// Faults of Kuma runs that hold deployments.
    pub(super) const WHILE_HELD: &[Self] = &[
        Self::HeldDeployment,
        Self::LostProtection,
        Self::StaleService,
        Self::MissingService,
        Self::LostDeploymentEvents,
        Self::ForeignProtection,
        Self::NeverReady,
        Self::KilledWhileHeld,
        Self::RejectedWhileHeld,
        Self::UnreachableWhileHeld,
        Self::UnsupportedWhileHeld,
    ];

    /// Faults of lives with replicas.
    pub(super) const OF_REPLICAS: &[Self] = &[
        Self::LeaderKilled,
        Self::LeaderStopped,
        Self::LeaderHangs,
        Self::LeaderFrozen,
        Self::LeaderCutOff,
        Self::StandbyDisturbed,
        Self::LeaseStoreError,
        Self::LeaseStoreLostAnswer,
    ];

    /// Faults of lives of tokens.
    pub(super) const OF_TOKENS: &[Self] = &[
        Self::StoreThrottled,
        Self::StoreDenied,
        Self::StoreLostAnswer,
        Self::KilledWhileStoring,
        Self::StoreListLag,
        Self::RevokedByHand,
        Self::ForeignRevocation,
        Self::WorkloadEdit,
        Self::AwsOutage,
        Self::MeshOutage,
        Self::Unreachable,
        Self::ServerHangs,
        Self::ServerError,
        Self::RateLimited,
        Self::LostAnswer,
        Self::ErrorAfterEffect,
        Self::BrokenAnswer,
    ];

    /// Faults of all Kuma runs.
    pub(super) fn at_kuma() -> Vec<Self> {
        let of_kuma = [
            Self::WriteConflict,
            Self::UnsupportedVersion,
            Self::DialectUpgrade,
            Self::RollingDeployment,
            Self::SecondOperator,
            Self::MemberAccount,
            Self::MemberRoleDenied,
            Self::MemberCredentials,
            Self::MemberThrottled,
            Self::MemberHangs,
            Self::HostMode,
            Self::TemplateMode,
            Self::OwnerSwitch,
            Self::SidecarSwitch,
            Self::ZoneResources,
            Self::ZoneListeners,
        ];
        [Self::EVERYWHERE, &of_kuma].concat()
    }

    /// Faults of Consul runs.
    pub(super) fn at_consul() -> Vec<Self> {
        let own = [
            Self::FilteredList,
            Self::FilteredEmptyList,
            Self::UnknownToken,
            Self::NotFoundForBadToken,
            Self::LoginBetweenLists,
            Self::DrainingTask,
            Self::Drift,
        ];
        [Self::EVERYWHERE, &own].concat()
    }
}

/// Fault injection with its source of randomness.
pub(super) struct SimFaults {
    dice: Mutex<FaultDice>,
}

struct FaultDice {
    rng: fastrand::Rng,
    /// For faults that were added later, so that older seeds keep their lives.
    more: fastrand::Rng,
    /// Factor of all probabilities; 0 disables faults.
    level: f64,
    struck: BTreeMap<SimFault, u64>,
    aws_down_until: Timestamp,
    mesh_down_until: Timestamp,
    /// ListTasks omits tasks whose ids end in one of these digits until this time.
    hidden: (Timestamp, u8),
    /// Tasks that a list has omitted and no later list has shown.
    unlisted: BTreeSet<String>,
    /// Tasks of which a forged event reported a stop, with their first MISSING answer since.
    forged_stops: BTreeMap<String, Option<Timestamp>>,
    /// Whether incomplete lists are recognisable.
    lists_are_honest: bool,
}

/// How long a spell of wrong MISSING answers lasts after a forged stop: two that are further apart confirm each other.
const MISSING_SPELL: Duration = Duration::from_secs(8);

/// ListTasks omits one in this many tasks.
const HIDES_ONE_IN: u8 = 4;

/// The place of the list in a response, if it has one.
fn list_in(body: &[u8]) -> Option<&'static str> {
    #[derive(Deserialize)]
    struct ListFields<'a> {
        #[serde(borrow)]
        items: Option<&'a RawValue>,
        #[serde(borrow, rename = "Services")]
        services: Option<&'a RawValue>,
    }
    if body.starts_with(b"[") {
        return Some("");
    }
    let fields: ListFields<'_> = serde_json::from_slice(body).ok()?;
    let is_list = |field: Option<&RawValue>| field.is_some_and(|field| field.get().starts_with('['));
    [("/items", fields.items), ("/Services", fields.services)]
        .into_iter()
        .find_map(|(at, field)| is_list(field).then_some(at))
}

impl SimFaults {
    pub(super) fn new(seed: u64, level: f64) -> Self {
        let none = Timestamp(0);
        let rng = fastrand::Rng::with_seed(seed);
        let dice = FaultDice {
            rng,
            more: fastrand::Rng::with_seed(seed ^ 0x0DD1),
            level,
            struck: BTreeMap::new(),
            aws_down_until: none,
            mesh_down_until: none,
            hidden: (none, 0),
            unlisted: BTreeSet::new(),
            forged_stops: BTreeMap::new(),
            lists_are_honest: false,
        };
        Self { dice: Mutex::new(dice) }
    }

    pub(super) fn end(&self) {
        let mut dice = self.dice.lock().unwrap();
        dice.level = 0.0;
        dice.aws_down_until = Timestamp(0);
        dice.mesh_down_until = Timestamp(0);
        dice.hidden.0 = Timestamp(0);
    }

    /// Whether faults are enabled.
    pub(super) fn are_enabled(&self) -> bool {
        self.dice.lock().unwrap().level > 0.0
    }

    /// Number of faults by kind.
    pub(super) fn struck(&self) -> BTreeMap<SimFault, u64> {
        self.dice.lock().unwrap().struck.clone()
    }

    /// Counts a fault.
    pub(super) fn count(&self, fault: SimFault) {
        *self.dice.lock().unwrap().struck.entry(fault).or_default() += 1;
    }

    /// Draws an event of this probability.
    pub(super) fn happens(&self, chance: f64) -> bool {
        let mut dice = self.dice.lock().unwrap();
        dice.rng.f64() < chance * dice.level
    }

    /// Draws a fault of this probability.
    pub(super) fn fires(&self, fault: SimFault, chance: f64) -> bool {
        let hit = self.happens(chance);
        if hit {
            self.count(fault);
        }
        hit
    }

    /// An unreadable item for a list, at times.
    pub(super) fn odd_item(&self) -> Option<serde_json::Value> {
        let mut dice = self.dice.lock().unwrap();
        let strikes = dice.more.f64() < 0.1 * dice.level;
        // Of this operator, as far as its label says.
        let named =
            json!({"labels": {"ecs-mesh.dev/operator": OPERATOR}, "mesh": 7, "Meta": 7, "Description": []});
        let kinds = [json!(null), json!("text"), json!({}), named];
        let item = strikes.then(|| kinds[dice.more.usize(..kinds.len())].clone());
        drop(dice);
        if item.is_some() {
            self.count(SimFault::OddItem);
        }
        item
    }

    /// Puts an unreadable item into a control plane's list, at times.
    pub(super) fn add_odd_item(&self, body: &mut Vec<u8>) {
        let Some(pointer) = list_in(body) else { return };
        let Some(odd) = self.odd_item() else { return };
        let mut list: Value = serde_json::from_slice(body).unwrap();
        list.pointer_mut(pointer).unwrap().as_array_mut().unwrap().insert(0, odd);
        *body = list.to_string().into_bytes();
    }

    /// The latency of a call.
    pub(super) fn latency(&self) -> Duration {
        let mut dice = self.dice.lock().unwrap();
        let most = if dice.level > 0.0 { 120 } else { 20 };
        Duration::from_millis(dice.rng.u64(1..=most))
    }

    /// The staleness of a read, up to `most`.
    pub(super) fn staleness(&self, fault: SimFault, chance: f64, most: Duration) -> Duration {
        let stale = {
            let mut dice = self.dice.lock().unwrap();
            if dice.rng.f64() < chance * dice.level { most.mul_f64(dice.rng.f64()) } else { Duration::ZERO }
        };
        if !stale.is_zero() {
            self.count(fault);
        }
        stale
    }

    pub(super) fn pick(&self, below: usize) -> usize {
        self.dice.lock().unwrap().rng.usize(..below.max(1))
    }

    /// Takes AWS or the control plane down for some time.
    pub(super) fn outage(&self, mesh: bool, until: Timestamp) {
        if self.are_enabled() {
            self.count(if mesh { SimFault::MeshOutage } else { SimFault::AwsOutage });
            let mut dice = self.dice.lock().unwrap();
            if mesh { dice.mesh_down_until = until } else { dice.aws_down_until = until }
        }
    }

    /// Makes all incomplete lists recognisable, for runs without later sweeps.
    pub(super) fn lists_are_honest(&self) {
        self.dice.lock().unwrap().lists_are_honest = true;
    }

    /// Whether a list omits tasks, by a fault of this probability.
    pub(super) fn lacks_tasks(&self, fault: SimFault, chance: f64) -> bool {
        let honest = self.dice.lock().unwrap().lists_are_honest;
        !honest && self.fires(fault, chance)
    }

    /// ListTasks omits some tasks until this time.
    pub(super) fn hide_tasks(&self, until: Timestamp) {
        if self.are_enabled() {
            let mut dice = self.dice.lock().unwrap();
            dice.hidden = (until, dice.rng.u8(..HIDES_ONE_IN));
        }
    }

    /// Whether ListTasks omits this task.
    pub(super) fn hides(&self, id: &str, now: Timestamp) -> bool {
        let (until, those) = self.dice.lock().unwrap().hidden;
        now < until && id.bytes().last().is_some_and(|digit| digit % HIDES_ONE_IN == those)
    }

    /// Records whether a list has shown the task.
    pub(super) fn record_listed(&self, id: &str, shown: bool) {
        let unlisted = &mut self.dice.lock().unwrap().unlisted;
        if shown {
            unlisted.remove(id);
        } else {
            unlisted.insert(id.to_owned());
        }
    }

    /// Whether a list has omitted the task and no later list has shown it.
    pub(super) fn is_unlisted(&self, id: &str) -> bool {
        self.dice.lock().unwrap().unlisted.contains(id)
    }

    /// Records a forged event of a stop.
    pub(super) fn record_forged_stop(&self, id: &str) {
        self.dice.lock().unwrap().forged_stops.entry(id.to_owned()).or_default();
    }

    /// Whether a MISSING answer for this live task may be wrong now.
    pub(super) fn may_be_missing(&self, id: &str, now: Timestamp) -> bool {
        match self.dice.lock().unwrap().forged_stops.get_mut(id) {
            None => true,
            Some(first) => first.get_or_insert(now).age_at(now) < MISSING_SPELL,
        }
    }

    pub(super) fn aws_is_down(&self, now: Timestamp) -> bool {
        now < self.dice.lock().unwrap().aws_down_until
    }

    pub(super) fn mesh_is_down(&self, now: Timestamp) -> bool {
        now < self.dice.lock().unwrap().mesh_down_until
    }
}

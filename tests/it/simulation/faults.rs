//! What goes wrong, by the seed; and how often each kind of it has struck.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use ecs_mesh_model::Timestamp;

/// A kind of thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SimFault {
    /// Every call to AWS fails for a while.
    AwsOutage,
    Throttled,
    AwsError,
    AwsHangs,
    Denied,
    /// Of any of these, or of the outage: a whole DescribeTasks.
    FailedDescribe,
    /// One task among DescribeTasks's failures, for another reason than MISSING.
    FailureInDescribe,
    /// DescribeTasks does not know a task that lives.
    FalselyMissing,
    /// DescribeTasks does not know a task yet that has just begun.
    MissingNewborn,
    /// DescribeTasks shows what was.
    StaleDescribe,
    /// ListTasks shows nothing, and that is all.
    EmptyList,
    /// A page without anything, and more to come.
    EmptyPage,
    /// Some are left out of a page.
    ShortList,
    /// For minutes ListTasks leaves out some tasks, as if there were none.
    HiddenTasks,
    /// ListTasks shows what was.
    StaleList,
    /// A role's tags as they were.
    StaleTags,
    /// All roles lose their tags at once.
    MassRevocation,
    /// A message cannot be deleted, and comes again.
    UndeletedMessage,
    /// No call to the control plane gets through for a while.
    MeshOutage,
    Unreachable,
    /// An answer takes longer than anybody waits.
    ServerHangs,
    /// An answer takes long, and comes.
    SlowServer,
    ServerError,
    RateLimited,
    /// Done, and nobody hears of it.
    LostAnswer,
    /// Done, and called an error.
    ErrorAfterEffect,
    /// Somebody else wrote a moment before.
    WriteConflict,
    /// A list that breaks off in the middle.
    BrokenAnswer,
    /// A list with something left out, since our own token may not see it.
    FilteredList,
    /// One with everything left out.
    FilteredEmptyList,
    /// Our own token is not known for a while.
    UnknownToken,
    /// A removal gets "not found", since our own token is not known.
    NotFoundForBadToken,
    /// A task begins and logs in while the operator is between two of its lists.
    LoginBetweenLists,
    /// The tokens are listed while a task that is stopping still needs its own.
    DrainingTask,
    /// A declared object is changed or removed by somebody else.
    Drift,
}

impl SimFault {
    /// What may strike in each life.
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
        Self::UndeletedMessage,
        Self::MeshOutage,
        Self::Unreachable,
        Self::ServerError,
        Self::RateLimited,
        Self::LostAnswer,
        Self::ErrorAfterEffect,
    ];

    /// What may strike in a life at Kuma.
    pub(super) fn at_kuma() -> Vec<Self> {
        [Self::EVERYWHERE, &[Self::WriteConflict]].concat()
    }

    /// What may strike in a life at Consul.
    pub(super) fn at_consul() -> Vec<Self> {
        let own = [
            Self::FalselyMissing,
            Self::MissingNewborn,
            Self::HiddenTasks,
            Self::MassRevocation,
            Self::ServerHangs,
            Self::SlowServer,
            Self::BrokenAnswer,
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

/// The chances, and the dice.
pub(super) struct SimFaults {
    dice: Mutex<FaultDice>,
}

struct FaultDice {
    rng: fastrand::Rng,
    /// Multiplies every chance: 0 is a world without faults.
    level: f64,
    struck: BTreeMap<SimFault, u64>,
    aws_down_until: Timestamp,
    mesh_down_until: Timestamp,
    /// Until when ListTasks hides those tasks whose ids end in one of some digits, and in which.
    hidden: (Timestamp, u8),
    /// Tasks that a list has hidden, and that no list has shown since.
    unlisted: BTreeSet<String>,
    /// A list that is not whole shows it.
    lists_are_honest: bool,
}

/// Of so many tasks ListTasks hides one.
const HIDES_ONE_IN: u8 = 4;

impl SimFaults {
    pub(super) fn new(seed: u64, level: f64) -> Self {
        let none = Timestamp(0);
        let rng = fastrand::Rng::with_seed(seed);
        let dice = FaultDice {
            rng,
            level,
            struck: BTreeMap::new(),
            aws_down_until: none,
            mesh_down_until: none,
            hidden: (none, 0),
            unlisted: BTreeSet::new(),
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

    /// Whether anything can go wrong.
    pub(super) fn are_enabled(&self) -> bool {
        self.dice.lock().unwrap().level > 0.0
    }

    /// How often each kind has struck.
    pub(super) fn struck(&self) -> BTreeMap<SimFault, u64> {
        self.dice.lock().unwrap().struck.clone()
    }

    /// One has struck.
    pub(super) fn count(&self, fault: SimFault) {
        *self.dice.lock().unwrap().struck.entry(fault).or_default() += 1;
    }

    /// Whether something of this chance happens now.
    pub(super) fn happens(&self, chance: f64) -> bool {
        let mut dice = self.dice.lock().unwrap();
        dice.rng.f64() < chance * dice.level
    }

    /// Whether a fault of this chance strikes now.
    pub(super) fn fires(&self, fault: SimFault, chance: f64) -> bool {
        let hit = self.happens(chance);
        if hit {
            self.count(fault);
        }
        hit
    }

    /// How long something takes on its way.
    pub(super) fn latency(&self) -> Duration {
        let mut dice = self.dice.lock().unwrap();
        let most = if dice.level > 0.0 { 120 } else { 20 };
        Duration::from_millis(dice.rng.u64(1..=most))
    }

    /// How far behind a read is, up to `most`.
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

    /// Takes a whole service down for a while.
    pub(super) fn outage(&self, mesh: bool, until: Timestamp) {
        if self.are_enabled() {
            self.count(if mesh { SimFault::MeshOutage } else { SimFault::AwsOutage });
            let mut dice = self.dice.lock().unwrap();
            if mesh { dice.mesh_down_until = until } else { dice.aws_down_until = until }
        }
    }

    /// From now on no list lacks tasks without a sign of it, where nobody would ever list again.
    pub(super) fn lists_are_honest(&self) {
        self.dice.lock().unwrap().lists_are_honest = true;
    }

    /// Whether a list lacks tasks, by a fault of this chance.
    pub(super) fn lacks_tasks(&self, fault: SimFault, chance: f64) -> bool {
        let honest = self.dice.lock().unwrap().lists_are_honest;
        !honest && self.fires(fault, chance)
    }

    /// ListTasks hides some tasks until then.
    pub(super) fn hide_tasks(&self, until: Timestamp) {
        if self.are_enabled() {
            let mut dice = self.dice.lock().unwrap();
            dice.hidden = (until, dice.rng.u8(..HIDES_ONE_IN));
        }
    }

    /// Whether ListTasks hides the task of this id.
    pub(super) fn hides(&self, id: &str, now: Timestamp) -> bool {
        let (until, those) = self.dice.lock().unwrap().hidden;
        now < until && id.bytes().last().is_some_and(|digit| digit % HIDES_ONE_IN == those)
    }

    /// Remembers whether a list has just hidden the task or shown it.
    pub(super) fn record_listed(&self, id: &str, hidden: bool) {
        let unlisted = &mut self.dice.lock().unwrap().unlisted;
        if hidden {
            unlisted.insert(id.to_owned());
        } else {
            unlisted.remove(id);
        }
    }

    /// Whether a list has hidden the task, and none has shown it since.
    pub(super) fn is_unlisted(&self, id: &str) -> bool {
        self.dice.lock().unwrap().unlisted.contains(id)
    }

    pub(super) fn aws_is_down(&self, now: Timestamp) -> bool {
        now < self.dice.lock().unwrap().aws_down_until
    }

    pub(super) fn mesh_is_down(&self, now: Timestamp) -> bool {
        now < self.dice.lock().unwrap().mesh_down_until
    }
}

//! What goes wrong, by the seed.

use std::sync::Mutex;
use std::time::Duration;

use ecs_mesh_operator::model::Timestamp;

/// The chances, and the dice.
pub(super) struct Faults {
    dice: Mutex<Dice>,
}

struct Dice {
    rng: fastrand::Rng,
    /// Multiplies every chance: 0 is a world without faults.
    level: f64,
    injected: u64,
    aws_down_until: Timestamp,
    mesh_down_until: Timestamp,
}

impl Faults {
    pub(super) fn new(seed: u64, level: f64) -> Self {
        let none = Timestamp(0);
        let rng = fastrand::Rng::with_seed(seed);
        let dice = Dice { rng, level, injected: 0, aws_down_until: none, mesh_down_until: none };
        Self { dice: Mutex::new(dice) }
    }

    pub(super) fn end(&self) {
        let mut dice = self.dice.lock().unwrap();
        dice.level = 0.0;
        dice.aws_down_until = Timestamp(0);
        dice.mesh_down_until = Timestamp(0);
    }

    pub(super) fn injected(&self) -> u64 {
        self.dice.lock().unwrap().injected
    }

    /// Whether a fault of this chance strikes now.
    pub(super) fn strikes(&self, chance: f64) -> bool {
        let mut dice = self.dice.lock().unwrap();
        let hit = dice.rng.f64() < chance * dice.level;
        dice.injected += u64::from(hit);
        hit
    }

    /// How long something takes on its way.
    pub(super) fn latency(&self) -> Duration {
        let mut dice = self.dice.lock().unwrap();
        let most = if dice.level > 0.0 { 120 } else { 20 };
        Duration::from_millis(dice.rng.u64(1..=most))
    }

    /// How far behind a read is, up to `most`.
    pub(super) fn staleness(&self, chance: f64, most: Duration) -> Duration {
        let mut dice = self.dice.lock().unwrap();
        if dice.rng.f64() < chance * dice.level { most.mul_f64(dice.rng.f64()) } else { Duration::ZERO }
    }

    pub(super) fn pick(&self, below: usize) -> usize {
        self.dice.lock().unwrap().rng.usize(..below.max(1))
    }

    /// Takes a whole service down for a while.
    pub(super) fn outage(&self, mesh: bool, until: Timestamp) {
        let mut dice = self.dice.lock().unwrap();
        if dice.level > 0.0 {
            dice.injected += 1;
            if mesh { dice.mesh_down_until = until } else { dice.aws_down_until = until }
        }
    }

    pub(super) fn aws_is_down(&self, now: Timestamp) -> bool {
        now < self.dice.lock().unwrap().aws_down_until
    }

    pub(super) fn mesh_is_down(&self, now: Timestamp) -> bool {
        now < self.dice.lock().unwrap().mesh_down_until
    }
}

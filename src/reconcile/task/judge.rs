//! What a run knows of its task: the facts that a verdict hangs on, each fetched when it is needed, and the situation
//! that a decision rests on.

use std::time::Duration;

use super::Run;
use ecs_mesh_aws::roles::APART;
use ecs_mesh_aws::store::{Life, Snapshot};
use ecs_mesh_core::intent::{Fact, Facts, HoldReason, Judgement, Need, Scope, Verdict};
use ecs_mesh_core::plan::DrainReason;
use ecs_mesh_core::plan::{Evidence, Known, Situation, Standing};
use ecs_mesh_model::{RoleArn, Task, Why};

impl Run<'_> {
    pub(super) fn situation<'a>(
        &self,
        snapshot: &Snapshot,
        known: &'a [Known],
        judgement: Option<&'a Judgement>,
    ) -> Situation<'a> {
        // A stop cannot be taken back, so what was drained for it never comes back to life by a stale answer.
        let stopping = known.iter().any(|known| matches!(known.drained, Some((DrainReason::Stopping, _))));
        let standing = match &snapshot.life {
            Life::Unknown => Standing::Unknown,
            Life::Live if stopping => Standing::Leaving,
            Life::Live => Standing::Live,
            Life::Leaving => Standing::Leaving,
            Life::SaidStopped => Standing::SaidStopped,
            Life::Stopped => Standing::Gone(Evidence::Stopped),
            Life::Missing { due } => Standing::Missing { due: *due },
            Life::Absent { sweeps, since } => {
                Standing::Gone(Evidence::Absent { sweeps: *sweeps, since: *since, after_stop: false })
            }
        };
        let now = self.operator.clock.now();
        Situation {
            standing,
            judgement,
            known,
            fresh: snapshot.is_fresh(self.operator.swept_since(self.task.cluster()), now),
            manifests_complete: self.set.complete,
            self_registered: self.plane.kind.tasks_register_themselves(),
            now,
        }
    }

    /// Judges the task, fetching each fact that the verdict turns out to hang on.
    pub(super) async fn judge(&self, task: &Task, registered: bool) -> Judgement {
        let scope = Scope {
            manifests: &self.set,
            control_plane: &self.plane.name,
            kind: self.plane.kind,
            operator: &self.operator.id,
        };
        let mut task = task.clone();
        let mut facts = Facts { registered, ..Facts::default() };
        let mut reread = false;
        let mut asked = None;
        loop {
            let judgement = scope.judge(&task, &facts);
            match &judgement.verdict {
                Verdict::Need(Need::Tags) => match self.describe_tags().await {
                    Ok(described) => task = described,
                    Err(why) => facts.tags_unknown = Some(why),
                },
                Verdict::Need(Need::Definition) => {
                    facts.definition = match self.operator.definitions.get(&task.definition).await {
                        Ok(definition) => Fact::Known(definition),
                        Err(why) => Fact::Unknown(why),
                    };
                }
                Verdict::Need(Need::Role(role)) => {
                    self.operator.store.runs_as(self.task, role);
                    asked = Some(role.clone());
                    let max_age = judgement.binding.as_ref().map(|b| b.spec.role_tags.recheck.0);
                    facts.role = self.operator.roles.get(role, max_age.unwrap_or(APART)).await;
                }
                // One read proves nothing bad; a second one does, if it is late enough to be another answer.
                Verdict::Reject { confirmed: false, .. } | Verdict::Hold(HoldReason::Unknown(_))
                    if !reread =>
                {
                    reread = true;
                    let unconfirmed = matches!(&facts.role, Fact::Known(read) if !read.confirmed);
                    let late =
                        |role: &&RoleArn| self.operator.roles.age(role).is_some_and(|age| age >= APART);
                    match asked.as_ref().filter(|_| unconfirmed).filter(late) {
                        Some(role) => facts.role = self.operator.roles.read(role).await.0,
                        None => return judgement,
                    }
                }
                _ => return judgement,
            }
        }
    }

    async fn describe_tags(&self) -> Result<Task, Why> {
        self.operator.describer.describe(self.task, Duration::MAX).await?;
        let snapshot = self.operator.store.snapshot(self.task, Duration::MAX, self.operator.clock.now());
        snapshot
            .task
            .filter(|task| task.tags.is_some())
            .ok_or_else(|| Why::of_all("ECS does not find the task (yet)"))
    }
}

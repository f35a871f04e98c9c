//! What a run knows of its task: the facts that a verdict hangs on, each fetched when it is needed, and the situation
//! that a decision rests on.

use std::time::Duration;

use super::TaskRun;
use ecs_mesh_aws::role_tag_cache::ROLE_CONFIRM_INTERVAL;
use ecs_mesh_aws::store::TaskSnapshot;
use ecs_mesh_core::intent::{Fact, TaskFacts, HoldReason, Evaluation, MissingFact, Evaluator, Verdict};
use ecs_mesh_core::plan::DrainReason;
use ecs_mesh_core::plan::{DecisionInput, KnownRegistration, TaskLiveness};
use ecs_mesh_model::{RoleArn, Task, Reason};

impl TaskRun<'_> {
    pub(super) fn situation<'a>(
        &self,
        snapshot: &TaskSnapshot,
        known: &'a [KnownRegistration],
        evaluation: Option<&'a Evaluation>,
    ) -> DecisionInput<'a> {
        // A stop cannot be taken back, so what was drained for it never comes back to life by a stale answer.
        let stopping = known.iter().any(|known| matches!(known.drained, Some((DrainReason::Stopping, _))));
        let liveness = match snapshot.liveness {
            TaskLiveness::Live if stopping => TaskLiveness::Leaving,
            liveness => liveness,
        };
        let now = self.operator.clock.now();
        DecisionInput {
            liveness,
            evaluation,
            known,
            seen_recently: snapshot.is_fresh(self.operator.first_full_sweep(self.task.cluster()), now),
            manifests_complete: self.manifests.complete,
            self_registered: self.worker.kind.tasks_register_themselves(),
            now,
        }
    }

    /// Judges the task, fetching each fact that the verdict turns out to hang on.
    pub(super) async fn evaluate(&self, task: &Task, registered: bool) -> Evaluation {
        let scope = Evaluator {
            manifests: &self.manifests,
            control_plane: &self.worker.name,
            kind: self.worker.kind,
            operator: &self.operator.id,
        };
        let mut task = task.clone();
        let mut facts = TaskFacts { registered, ..TaskFacts::default() };
        let mut reread = false;
        let mut requested = None;
        loop {
            let evaluation = scope.evaluate(&task, &facts);
            match &evaluation.verdict {
                Verdict::NeedsFact(MissingFact::Tags) => match self.describe_tags().await {
                    Ok(described) => task = described,
                    Err(why) => facts.tags_unknown = Some(why),
                },
                Verdict::NeedsFact(MissingFact::Definition) => {
                    facts.definition = match self.operator.definitions.get(&task.definition).await {
                        Ok(definition) => Fact::Known(definition),
                        Err(why) => Fact::Unknown(why),
                    };
                }
                Verdict::NeedsFact(MissingFact::Role(role)) => {
                    self.operator.store.set_role(self.task, role);
                    requested = Some(role.clone());
                    let max_age = evaluation.binding.as_ref().map(|b| b.spec.role_tags.recheck.0);
                    facts.role = self.operator.roles.get(role, max_age.unwrap_or(ROLE_CONFIRM_INTERVAL)).await;
                }
                // One read proves nothing bad; a second one does, if it is late enough to be another answer.
                Verdict::Reject { confirmed: false, .. } | Verdict::Hold(HoldReason::Unknown(_))
                    if !reread =>
                {
                    reread = true;
                    let unconfirmed = matches!(&facts.role, Fact::Known(read) if !read.confirmed);
                    let late =
                        |role: &&RoleArn| self.operator.roles.age(role).is_some_and(|age| age >= ROLE_CONFIRM_INTERVAL);
                    match requested.as_ref().filter(|_| unconfirmed).filter(late) {
                        Some(role) => facts.role = self.operator.roles.read(role).await.0,
                        None => return evaluation,
                    }
                }
                _ => return evaluation,
            }
        }
    }

    async fn describe_tags(&self) -> Result<Task, Reason> {
        self.operator.describer.describe(self.task, Duration::MAX).await?;
        let snapshot = self.operator.store.snapshot(self.task, Duration::MAX, self.operator.clock.now());
        snapshot
            .task
            .filter(|task| task.tags.is_some())
            .ok_or_else(|| Reason::constant("ECS does not find the task (yet)"))
    }
}

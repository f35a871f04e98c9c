//! One run for one task at one control plane: gather what is known, judge, decide, do.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Operator;
use super::apply::{Apply, Outcome};
use super::plane::{Halt, Plane};
use super::registry::Entry;
use super::report::{Report, Subject, Whose};
use crate::intent::{Fact, Facts, HoldReason, Judgement, Marks, Need, Scope, Verdict, caretaker};
use crate::manifests::ManifestSet;
use crate::mesh::{DrainReason, FailedPart, Owner};
use crate::model::{RoleArn, Task, TaskArn};
use crate::observe::describer::Answer;
use crate::observe::roles::APART;
use crate::observe::store::{Life, Snapshot};
use crate::plan::proposal::Change;
use crate::plan::{Action, Admission, Decision, Evidence, Known, Situation, Standing, Step, decide, foresee};
use crate::runtime::Next;

/// How long to wait for the event that brings a new task's address before asking for it.
const ADDRESS_WAIT: Duration = Duration::from_secs(10);

/// How long to wait before looking again at a name that somebody else holds.
const TAKEN_WAIT: Duration = Duration::from_mins(1);

/// How long to wait for the first list of what is registered, which brings all tasks back by itself.
const UNLISTED_WAIT: Duration = Duration::from_secs(10);

/// A run in progress.
pub(super) struct Run<'a> {
    pub operator: &'a Operator,
    pub plane: &'a Plane,
    pub task: &'a TaskArn,
    pub set: Arc<ManifestSet>,
    pub report: Report<'a>,
    /// Since when an event of the task is unanswered.
    heard: Mutex<Option<Instant>>,
    /// Why a part of what the task may have made could not be looked for.
    unfound: Mutex<Option<Halt>>,
}

impl Run<'_> {
    /// Brings the task's registrations to what they should be, as far as that is possible now.
    pub(super) async fn reconcile(&self) -> Next {
        let _at_work = self.plane.begin();
        if !self.plane.is_listed() {
            return Next::After(UNLISTED_WAIT);
        }
        let heard_at = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = self.attempt().await;
        if let Some(halt) = self.unfound.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // What was found is worked on; the rest is sought again.
            heard_at.into_iter().for_each(|at| self.plane.heard_of(self.task, at));
            if !matches!(next, Next::Backoff | Next::HoldUntil(_)) {
                next = halt.next();
            }
        }
        self.report.end();
        // An event that led to nothing is answered; one that still may is not.
        if matches!(next, Next::Backoff | Next::HoldUntil(_))
            && let Some(heard) = self.take_heard()
        {
            self.plane.heard_of(self.task, heard);
        }
        next
    }

    async fn attempt(&self) -> Next {
        let mut sought = !self.must_be_sought();
        // Each describe may change the picture; two looks are enough, and the third proves that waiting is due.
        for _ in 0..3 {
            self.report.begin();
            let mut known = self.known();
            let snapshot =
                self.operator.store.snapshot(self.task, Self::grace(&known), self.operator.clock.now());
            if !sought && snapshot.life == Life::Stopped {
                if let Err(halt) = self.seek().await {
                    return self.halted(&halt);
                }
                sought = true;
                known = self.known();
            }
            let may_have_more = !sought && snapshot.life == Life::SaidStopped;
            if known.is_empty() && !matches!(snapshot.life, Life::Live) && !may_have_more {
                self.plane.all_said(self.task);
                return Next::Forget;
            }
            let judgement = match (&snapshot.life, &snapshot.task) {
                (Life::Live, Some(task)) => Some(self.judge(task, !known.is_empty()).await),
                _ => None,
            };
            let decision = self.decide(&snapshot, &known, judgement.as_ref());
            let next = match self.carry_out(&decision, &known).await {
                Ok(Done::Settled(next)) => next,
                Ok(Done::LookAgain) => continue,
                Err(halt) => return self.halted(&halt),
            };
            if decision.describe {
                match self.operator.describer.describe(self.task, Self::grace(&known)).await {
                    Ok(Answer::Found | Answer::Missing) => continue,
                    Ok(Answer::Failed(why)) | Err(why) => {
                        self.report.trouble("describe", &why);
                        return Next::Backoff;
                    }
                }
            }
            if self.operator.is_dry() {
                if let Err(halt) = self.look_ahead(&snapshot, &known, judgement.as_ref()).await {
                    return self.halted(&halt);
                }
                let next = self.settle(&snapshot, judgement.as_ref(), &decision, Next::Forget).await;
                self.say_why_quiet(&snapshot, &known);
                return next;
            }
            return self.settle(&snapshot, judgement.as_ref(), &decision, next).await;
        }
        self.report.quiet("ECS contradicts its own event of the task", Change::Unknown);
        // ECS still says otherwise than what an event said: it is eventually consistent.
        Next::Backoff
    }

    /// Whether the task may have registered itself since what is registered was last listed. Only an event says so: what
    /// events do not tell of the sweep lists.
    fn must_be_sought(&self) -> bool {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        self.plane.kind.tasks_register_themselves() && heard.is_some()
    }

    /// Finds what the task has registered itself. It has stopped, so nothing is added any more.
    async fn seek(&self) -> Result<(), Halt> {
        let asked = self.operator.clock.now();
        let found = self.plane.call(self.plane.mesh.find(self.task)).await?;
        self.plane.registry.replace_of(
            self.task,
            &found.seen,
            &found.failed,
            asked,
            self.operator.clock.now(),
        );
        if let Some(FailedPart { error, .. }) = found.failed.first() {
            self.operator.metrics.held(error.kind.label());
            self.plane.tell_of_parts(&found.failed);
            *self.unfound.lock().unwrap_or_else(PoisonError::into_inner) = Some(Halt::Failed(error.clone()));
        }
        for known in self.known() {
            let binding = known.caretaker.as_ref().map(|binding| &binding.name);
            self.plane.registry.assign(self.task, &known.id, binding);
        }
        Ok(())
    }

    fn known(&self) -> Vec<Known> {
        let entries = self.plane.registry.of(self.task);
        let snapshot = self.operator.store.snapshot(self.task, Duration::MAX, self.operator.clock.now());
        let place = |entry: Entry| {
            let (cp, cluster) = (&self.plane.name, self.task.cluster());
            let caretaker = caretaker(&self.set, cp, &entry.id.mesh, cluster, snapshot.task.as_ref());
            Known { id: entry.id, drained: entry.drained, caretaker }
        };
        entries.into_iter().map(place).collect()
    }

    /// The longest grace age of those who take care of the registrations.
    fn grace(known: &[Known]) -> Duration {
        let ages = known.iter().filter_map(|k| Some(k.caretaker.as_ref()?.spec.cleanup.grace_age.0));
        ages.max().unwrap_or(Duration::from_mins(5))
    }

    fn decide(&self, snapshot: &Snapshot, known: &[Known], judgement: Option<&Judgement>) -> Decision {
        decide(&self.situation(snapshot, known, judgement))
    }

    /// Of a dry run: what would follow once that is confirmed which was seen only once.
    async fn look_ahead(
        &self,
        snapshot: &Snapshot,
        known: &[Known],
        judgement: Option<&Judgement>,
    ) -> Result<(), Halt> {
        let situation = self.situation(snapshot, known, judgement);
        let Some((awaited, decision)) = foresee(&situation, Self::grace(known)) else { return Ok(()) };
        let first = self.report.page().map_or(0, |page| page.len());
        self.carry_out(&decision, known).await?;
        if let Some(mut page) = self.report.page() {
            page.all_after(first, &awaited);
        }
        Ok(())
    }

    /// Of a dry run: a registered task that nothing is due for is in the plan, too.
    fn say_why_quiet(&self, snapshot: &Snapshot, known: &[Known]) {
        if known.is_empty() {
            return;
        }
        if known.iter().any(|known| known.caretaker.is_none()) {
            self.report.quiet("no MeshBinding takes care of it any more; it is left alone", Change::Hold);
        }
        if snapshot.life == Life::Unknown {
            let words = "its cluster could not be listed whole, so nothing is known of the task";
            self.report.quiet(words, Change::Unknown);
        }
        self.report.quiet("nothing is due", Change::Unchanged);
    }

    fn situation<'a>(
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
                Standing::Gone(Evidence::Absent { sweeps: *sweeps, since: *since })
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
    async fn judge(&self, task: &Task, registered: bool) -> Judgement {
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

    async fn describe_tags(&self) -> Result<Task, String> {
        self.operator.describer.describe(self.task, Duration::MAX).await?;
        let snapshot = self.operator.store.snapshot(self.task, Duration::MAX, self.operator.clock.now());
        snapshot
            .task
            .filter(|task| task.tags.is_some())
            .ok_or_else(|| "ECS does not find the task (yet)".to_owned())
    }

    async fn carry_out(&self, decision: &Decision, known: &[Known]) -> Result<Done, Halt> {
        let mut next = decision.again.map_or(Next::Forget, Next::After);
        for step in &decision.steps {
            let paused = step.binding.spec.paused;
            // A dry run looks what it would come to: it writes nothing anyway.
            if paused && !self.operator.is_dry() {
                self.report.paused(step);
                continue;
            }
            if step.needs_guard() && !paused && !self.guard_admits(step) {
                next = Next::Forget;
                continue;
            }
            if !decision.withdraws() {
                self.plane.guard(&step.binding.name, |guard| guard.no_longer_needed(self.task));
            }
            if step.needs_guard() && matches!(step.action, Action::Remove(_)) && !self.operator.is_dry() {
                self.plane.guard(&step.binding.name, |guard| guard.sent(self.task));
            }
            let service = self.service_of(step);
            match self.carry_out_step(step, known).await? {
                // The picture has changed under our hands.
                Outcome::Vanished if matches!(step.action, Action::Ensure { .. }) => {
                    return Ok(Done::LookAgain);
                }
                Outcome::Taken(owner) => {
                    self.report.taken(step, &owner);
                    let wait = if matches!(owner, Owner::Marked(_)) { APART } else { TAKEN_WAIT };
                    next = sooner(next, wait);
                }
                Outcome::NoLease => {
                    self.report.trouble("lease", "another copy of this operator holds the lease");
                    next = sooner(next, APART);
                }
                outcome => {
                    self.note(step, &outcome);
                    let asks = outcome == Outcome::Removed && self.plane.kind.tasks_register_themselves();
                    let whose = Whose {
                        service: service.as_deref(),
                        role: self.operator.role_of(self.task, asks && !self.operator.is_dry()).await,
                    };
                    self.report.outcome(step, &whose, &outcome);
                }
            }
        }
        Ok(Done::Settled(next))
    }

    /// Asked before a step, since a removal forgets it.
    fn service_of(&self, step: &Step) -> Option<Arc<str>> {
        self.plane.registry.of(self.task).into_iter().find(|entry| entry.id == step.id)?.service
    }

    async fn carry_out_step(&self, step: &Step, known: &[Known]) -> Result<Outcome, Halt> {
        let marks = Marks::of(&self.operator.id, self.task);
        let now = || self.operator.clock.now();
        let apply = Apply {
            plane: self.plane,
            lease: self.operator.lease.as_ref(),
            dry: self.operator.is_dry(),
            marks: &marks,
            task: self.task,
            now: &now,
        };
        match &step.action {
            Action::Ensure { desired, may_update } => {
                let there = known.iter().any(|known| known.id == step.id);
                apply.ensure(desired, there, *may_update).await
            }
            Action::Drain(reason, _) => apply.drain(&step.id, *reason).await,
            Action::Remove(_) => apply.remove(&step.id).await,
            Action::Skip { .. } => {
                self.report.skipped(step);
                Ok(Outcome::Equal)
            }
        }
    }

    fn guard_admits(&self, step: &Step) -> bool {
        if self.operator.swept_since(self.task.cluster()).is_none() {
            // How many are owned is not known before; the sweep brings the task back.
            let words = "no withdrawal before a sweep has seen the task's cluster whole: without it the guard does not \
                         know how many there are";
            self.report.trouble("not_swept", words);
            return false;
        }
        let now = self.operator.clock.now();
        let policy = &step.binding.spec.cleanup.guard;
        let released = step.binding.guard_released_until.is_some_and(|until| now < until);
        let owned = self.plane.registry.owned_by(&step.binding.name);
        let admission = self
            .plane
            .guard(&step.binding.name, |guard| guard.admit(self.task, owned, policy, released, now));
        match admission {
            Admission::Admitted => true,
            Admission::Stopped { admitted, owned } => {
                self.report.held_back(step, admitted, owned);
                false
            }
        }
    }

    fn note(&self, step: &Step, outcome: &Outcome) {
        if self.operator.is_dry() {
            return;
        }
        // One that was created and whose answer got lost shows only now.
        self.plane.note_owned(&step.binding, self.operator.clock.now());
        let gone = matches!(outcome, Outcome::Removed | Outcome::Vanished);
        if gone && step.needs_guard() && matches!(step.action, Action::Remove(_)) {
            let now = self.operator.clock.now();
            self.plane.guard(&step.binding.name, |guard| guard.carried_out(self.task, now));
        }
        let heard = self.take_heard();
        if let (
            Some(heard),
            Outcome::Created(_) | Outcome::Updated(_) | Outcome::Drained | Outcome::Removed,
        ) = (heard, outcome)
        {
            self.operator.metrics.answered(heard.elapsed());
        }
    }

    fn halted(&self, halt: &Halt) -> Next {
        if let Halt::Failed(error) = halt {
            if error.kind.is_of_one_body() || self.operator.is_dry() {
                self.report.trouble(error.kind.label(), &error.message);
            } else {
                self.operator.metrics.held(error.kind.label());
                self.plane.tell(error);
            }
        } else {
            self.report.quiet("the control plane cannot be reached", Change::Unknown);
        }
        halt.next()
    }

    /// Says what the verdict means for a person, and when to look again.
    async fn settle(
        &self,
        snapshot: &Snapshot,
        judgement: Option<&Judgement>,
        decision: &Decision,
        next: Next,
    ) -> Next {
        let Some(judgement) = judgement else { return next };
        if !judgement.warnings.is_empty() {
            self.report.warnings(&judgement.warnings);
        }
        match &judgement.verdict {
            Verdict::Register(_) | Verdict::Admit => {
                if judgement.warnings.is_empty() && next == Next::Forget {
                    self.plane.all_said(self.task);
                }
                next
            }
            Verdict::Reject { violations, .. } => {
                self.report.rejected(violations);
                if decision.reread_role { sooner(next, APART) } else { next }
            }
            Verdict::Hold(reason @ HoldReason::AddressPending) => {
                let next = self.wait_for_address(snapshot).await;
                self.report.quiet(&format!("{reason}; registered when it is"), Change::Hold);
                next
            }
            Verdict::Hold(reason @ HoldReason::Unknown(_)) => {
                self.report.held(reason);
                Next::Backoff
            }
            Verdict::Hold(reason) => {
                self.report.held(reason);
                next
            }
            Verdict::Ignore(reason) => {
                self.report.ignored(reason);
                next
            }
            Verdict::Need(_) => next,
        }
    }

    /// The address comes with the next event; should that get lost, it is asked for.
    async fn wait_for_address(&self, snapshot: &Snapshot) -> Next {
        let now = self.operator.clock.now();
        let said = snapshot.task.as_ref().and_then(|task| task.updated_at.or(task.created_at));
        if said.is_none_or(|at| at.age_at(now) >= ADDRESS_WAIT) {
            if let Err(why) = self.operator.describer.describe(self.task, Duration::MAX).await {
                self.report.trouble("describe", &why);
                return Next::Backoff;
            }
            let found = self.operator.store.snapshot(self.task, Duration::MAX, now).task;
            if found.is_some_and(|task| task.address.is_some()) {
                return Next::After(Duration::ZERO);
            }
        }
        Next::After(ADDRESS_WAIT)
    }
}

/// How a run's steps went.
enum Done {
    Settled(Next),
    LookAgain,
}

fn sooner(next: Next, wait: Duration) -> Next {
    match next {
        Next::After(earlier) => Next::After(earlier.min(wait)),
        Next::Forget => Next::After(wait),
        other => other,
    }
}

impl<'a> Run<'a> {
    fn take_heard(&self) -> Option<Instant> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// A run for this task.
    pub(super) fn new(operator: &'a Operator, plane: &'a Plane, task: &'a TaskArn) -> Self {
        let subject = Subject { operator, plane, task };
        let heard = Mutex::new(plane.answered(task));
        Self {
            operator,
            plane,
            task,
            set: operator.manifests(),
            report: Report::new(subject),
            heard,
            unfound: Mutex::default(),
        }
    }
}

//! One run for one task at one control plane: gather what is known, judge, decide, do.

mod dry;
mod heard;
mod judge;
mod settle;
mod steps;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use self::heard::Heard;
use super::Operator;
use super::plane::Plane;
use super::registry::Entry;
use super::report::{Report, Subject};
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_aws::describer::Answer;
use ecs_mesh_aws::store::{Life, Snapshot};
use ecs_mesh_control_plane::FailedPart;
use ecs_mesh_control_plane::Halt;
use ecs_mesh_controller::Next;
use ecs_mesh_core::intent::{Judgement, caretaker};
use ecs_mesh_core::plan::proposal::Change;
use ecs_mesh_core::plan::{Decision, Known, decide};
use ecs_mesh_model::{TaskArn, Why};

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
    heard: Heard<'a>,
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
        let heard_at = self.heard.since();
        let mut next = self.attempt().await;
        let unfound = self.unfound.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(halt) = &unfound {
            // What was found is worked on, which answers the event; the rest is sought again.
            heard_at.into_iter().for_each(|at| self.plane.heard_of(self.task, at));
            if !matches!(next, Next::Backoff | Next::HoldUntil(_)) {
                next = halt.next();
            }
        }
        self.report.end();
        // An event that led to nothing is answered; one that still may is not.
        if unfound.is_none() && !matches!(next, Next::Backoff | Next::HoldUntil(_)) {
            self.heard.answer();
        }
        next
    }

    async fn attempt(&self) -> Next {
        let mut searched = false;
        // Each describe may change the picture; two looks are enough, and the third proves that waiting is due.
        for _ in 0..3 {
            self.report.begin();
            let mut known = self.known();
            let snapshot =
                self.operator.store.snapshot(self.task, Self::grace(&known), self.operator.clock.now());
            let unsearched = !searched && self.plane.is_unsearched(self.task);
            if unsearched && snapshot.life == Life::Stopped {
                if let Err(halt) = self.search().await {
                    return self.halted(&halt);
                }
                searched = true;
                known = self.known();
            }
            let may_have_more = unsearched && snapshot.life == Life::SaidStopped;
            let may_run = snapshot.life == Life::Live && !snapshot.is_lost();
            if known.is_empty() && !may_run && !may_have_more {
                self.plane.all_said(self.task);
                return Next::Forget;
            }
            let judgement = match (&snapshot.life, &snapshot.task) {
                (Life::Live, Some(task)) => Some(self.judge(task, !known.is_empty()).await),
                _ => None,
            };
            // Judging may have waited for AWS, and another describe may have shown meanwhile that the task has stopped:
            // the event of that is stale then, and nothing else would bring the task back.
            if judgement.is_some() && self.life(&known) != snapshot.life {
                continue;
            }
            // The tags that this may have learned tell which binding takes care of what is there.
            let known = if judgement.is_some() { self.known() } else { known };
            let decision = self.decide(&snapshot, &known, judgement.as_ref());
            let next = match self.carry_out(&decision, &known).await {
                Ok(Done::Settled(next)) => next,
                Ok(Done::LookAgain) => continue,
                Err(halt) => return self.halted(&halt),
            };
            if decision.describe {
                match self.operator.describer.describe(self.task, Self::grace(&known)).await {
                    Ok(Answer::Found | Answer::Missing) => continue,
                    Ok(Answer::Failed(why)) => {
                        self.report.trouble("describe", &Why::of_all(why));
                        return Next::Backoff;
                    }
                    Err(why) => {
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

    fn life(&self, known: &[Known]) -> Life {
        let now = self.operator.clock.now();
        self.operator.store.snapshot(self.task, Self::grace(known), now).life
    }

    /// Finds what the task has registered itself. It has stopped, so nothing is added any more.
    async fn search(&self) -> Result<(), Halt> {
        let asked = self.operator.clock.now();
        let found = self.plane.call(self.plane.mesh.find(self.task)).await?;
        let now = self.operator.clock.now();
        self.plane.registry.replace_of(self.task, &found.seen, &found.failed, asked, now);
        if found.failed.is_empty() {
            self.plane.record_search(self.task);
        }
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
    /// A run for this task.
    pub(super) fn new(operator: &'a Operator, plane: &'a Plane, task: &'a TaskArn) -> Self {
        let subject = Subject { operator, plane, task };
        let (set, report) = (operator.manifests(), Report::new(subject));
        let heard = Heard::of(plane, task);
        Self { operator, plane, task, set, report, heard, unfound: Mutex::default() }
    }
}

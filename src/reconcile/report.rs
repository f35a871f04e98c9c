//! What a run says: one `info` line per outcome on a registration, target `audit` where an identity comes or goes, and
//! a warning once, not at each retry.

use tracing::{debug, info, warn};

use super::Operator;
use super::apply::Outcome;
use super::plane::Plane;
use crate::intent::{HoldReason, IgnoreReason, Violation};
use crate::mesh::Owner;
use crate::model::TaskArn;
use crate::plan::{Action, Step};

/// Whom a report is about.
pub(super) struct Subject<'a> {
    pub operator: &'a Operator,
    pub plane: &'a Plane,
    pub task: &'a TaskArn,
}

/// Says what happens to one task at one control plane.
pub(super) struct Report<'a>(pub Subject<'a>);

/// The words of a step for a person and for metrics: change, and why.
fn words(step: &Step) -> (&'static str, String) {
    match &step.action {
        Action::Ensure { .. } => ("ensure", "the task runs".to_owned()),
        Action::Drain(reason, evidence) => match reason {
            crate::mesh::DrainReason::Stopping => ("drain", "ECS is stopping the task".to_owned()),
            _ => ("drain", evidence.to_string()),
        },
        Action::Remove(evidence) => ("remove", evidence.to_string()),
        Action::Skip { would, evidence } => (would, evidence.to_string()),
    }
}

impl Report<'_> {
    /// `service`: that of the registration, as far as it was known before the step.
    pub(super) fn outcome(&self, step: &Step, service: Option<&str>, outcome: &Outcome) {
        let (_, why) = words(step);
        let Subject { operator, plane, task } = &self.0;
        let metrics = &operator.metrics;
        let service = match &step.action {
            Action::Ensure { desired, .. } => desired.service.as_str(),
            _ => service.unwrap_or_default(),
        };
        let (mesh, name, binding) = (&step.id.mesh, &step.id.name, &step.binding.name);
        let version = env!("CARGO_PKG_VERSION");
        macro_rules! say {
            ($target:literal, $change:literal, $reason:expr) => {
                info!(
                    target: $target, operator = %operator.id, version, control_plane = %plane.name, %mesh, %name,
                    %binding, %task, service, change = $change, reason = %$reason, "{}", $change
                )
            };
        }
        match outcome {
            Outcome::Created => {
                metrics.wrote("create");
                say!("audit", "created", why);
            }
            Outcome::Updated(changes) => {
                metrics.wrote("update");
                let fields: Vec<&str> = changes.iter().map(|change| change.path.as_str()).collect();
                say!("ecs_mesh_operator", "updated", format!("differs in {}", fields.join(", ")));
            }
            Outcome::Drained => {
                metrics.wrote("drain");
                if step.needs_guard() {
                    say!("audit", "drained", why);
                } else {
                    say!("ecs_mesh_operator", "drained", why);
                }
            }
            Outcome::Removed => {
                metrics.wrote("remove");
                if let Action::Remove(evidence) = &step.action {
                    metrics.removed(evidence.label());
                }
                say!("audit", "removed", why);
            }
            Outcome::MayNotUpdate(changes) => {
                let fields: Vec<&str> = changes.iter().map(|change| change.path.as_str()).collect();
                self.once("skipped_by_policy", &format!("update of {} skipped by policy", fields.join(", ")));
            }
            Outcome::Equal | Outcome::Vanished | Outcome::Taken(_) | Outcome::NoLease => {
                debug!(%task, %mesh, %name, ?outcome, "nothing to do");
            }
        }
    }

    /// A warning, once until it changes; the counter counts each time. Whether it was news.
    fn once(&self, reason: &'static str, message: &str) -> bool {
        self.once_as(reason, message, message)
    }

    /// As [`Self::once`]; `what` tells whether it is the same again.
    fn once_as(&self, reason: &'static str, what: &str, message: &str) -> bool {
        let Subject { operator, plane, task } = &self.0;
        operator.metrics.held(reason);
        let news = plane.is_news(task, reason, what);
        if news {
            warn!(control_plane = %plane.name, %task, reason, "{message}");
        } else {
            debug!(control_plane = %plane.name, %task, reason, "{message}");
        }
        news
    }

    pub(super) fn trouble(&self, reason: &'static str, message: &str) {
        self.once(reason, message);
    }

    pub(super) fn warnings(&self, all: &[String]) {
        self.once("warning", &all.join("; "));
    }

    pub(super) fn held(&self, reason: &HoldReason) {
        self.once(reason.label(), &format!("held, nothing changes: {reason}"));
    }

    pub(super) fn ignored(&self, reason: &IgnoreReason) {
        let Subject { operator, plane, task } = &self.0;
        operator.metrics.ignored(reason.label());
        if matches!(reason, IgnoreReason::NetworkMode(_)) {
            self.once(reason.label(), &reason.to_string());
        } else {
            debug!(control_plane = %plane.name, %task, reason = reason.label(), "{reason}");
        }
    }

    pub(super) fn rejected(&self, violations: &[Violation]) {
        for violation in violations {
            self.0.operator.metrics.violation(violation.rule.label());
        }
        let words: Vec<String> = violations.iter().map(ToString::to_string).collect();
        if self.once("rejected", &format!("not allowed in the mesh: {}", words.join("; "))) {
            self.0.operator.metrics.rejected();
        }
    }

    pub(super) fn taken(&self, step: &Step, owner: &Owner) {
        let whose = match owner {
            Owner::Foreign => "somebody else's (it has no mark of this operator)".to_owned(),
            Owner::Marked(marks) => {
                format!("of operator {}, cluster {}, task {}", marks.operator, marks.cluster, marks.task)
            }
        };
        let message = format!(
            "{} is {whose} and is left alone; remove it, or choose another spec.dataplaneName in MeshBinding {}",
            step.id, step.binding.name
        );
        self.once("name_taken", &message);
    }

    pub(super) fn held_back(&self, step: &Step, admitted: usize, owned: usize) {
        let (change, why) = words(step);
        let message = format!(
            "the guard of MeshBinding {} holds back this {change} ({why}): {admitted} of {owned} registrations were \
             already withdrawn within the hour without a STOPPED of their own; if that is right, set \
             spec.cleanup.guard.releaseUntil to a time in the near future",
            step.binding.name
        );
        // The counts in the words grow; what happens is the same.
        self.once_as("guard", &format!("{change} {}", step.id), &message);
    }

    pub(super) fn skipped(&self, step: &Step) {
        let (change, why) = words(step);
        let policy = step.binding.spec.policy;
        self.once(
            "skipped_by_policy",
            &format!("{change} of {} ({why}) skipped: policy {policy:?}", step.id),
        );
    }

    pub(super) fn paused(&self, step: &Step) {
        let (change, why) = words(step);
        let message = format!("MeshBinding {} is paused: {change} of {} ({why})", step.binding.name, step.id);
        self.once("paused", &message);
    }
}

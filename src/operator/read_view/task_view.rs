//! Views of tasks and of what stands for them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::readers_journal::ActiveTaskWarnings;
use super::{OperatorReads, identity_of};
use crate::operator::context::WorkerMap;
use crate::operator::control_plane_worker::ControlPlaneWorker;
use crate::operator::evaluated_tasks::{EvaluatedTask, RecordedVerdict};
use crate::operator::recorder::settled_change;
use crate::operator::registry::RegistryEntry;
use crate::read_api::ReadTaskFacts;
use ecs_mesh_aws::store::TaskSnapshot;
use ecs_mesh_core::intent::{Fact, RoleViolation};
use ecs_mesh_core::plan::report::{Change, PlanEntry, PlannedChange, TaskVerdict};
use ecs_mesh_core::plan::{DrainReason, TaskLiveness};
use ecs_mesh_model::{RoleArn, Task, TaskArn, intern};
use ecs_mesh_read_api::{
    DrainedView, EvidenceView, IdentityStateView, IdentityView, ReasonView, RegistrationFacts,
    RegistrationView, RoleTagView, SeenByView, TaskStateFacts, TaskStateView, TaskView, TaskWarningView,
    VerdictFacts, VerdictView,
};

/// Warnings which say that a change is withheld until a person or another owner acts.
const BLOCKING: [&str; 5] =
    ["held_by_guard", "name_conflict", "paused", "skipped_by_policy", "unsupported_control_plane"];

/// The prefixes of tags that decide about identities.
const IDENTITY_TAGS: [&str; 2] = ["kuma.io/", "consul.hashicorp.com."];

/// The inputs of the views of tasks.
pub(super) struct TaskViews<'a> {
    pub(super) reads: &'a OperatorReads,
    pub(super) workers: &'a WorkerMap,
    pub(super) warnings: &'a ActiveTaskWarnings,
}

/// The evaluation that a task's view shows, and its control plane.
type ShownEvaluation<'a> = (&'a Arc<ControlPlaneWorker>, Arc<EvaluatedTask>);

impl TaskViews<'_> {
    /// All tasks that ECS or a registration shows, and their identities.
    pub(super) fn collect(&self) -> (Vec<TaskView>, Vec<IdentityView>) {
        let store = &self.reads.context.aws.store;
        let registered = self.workers.values().flat_map(|worker| worker.registry.tasks());
        let all: BTreeSet<TaskArn> = store.all().into_iter().chain(registered).collect();
        self.reads.journal.retain(|task| all.contains(task));
        let evaluated: Vec<_> =
            self.workers.values().map(|worker| (worker, worker.evaluated.all())).collect();
        let (mut tasks, mut identities) = (Vec::with_capacity(all.len()), Vec::new());
        for task in &all {
            let of_task =
                evaluated.iter().filter_map(|(worker, all)| Some((*worker, Arc::clone(all.get(task)?))));
            tasks.push(self.view(task, of_task.collect(), &mut identities));
        }
        (tasks, identities)
    }

    fn view(
        &self,
        task: &TaskArn,
        evaluated: Vec<ShownEvaluation<'_>>,
        identities: &mut Vec<IdentityView>,
    ) -> TaskView {
        let store = &self.reads.context.aws.store;
        let snapshot = store.snapshot(task, Duration::MAX, self.reads.context.now());
        let shown = snapshot.task.as_ref();
        let role = store.role_of(task).as_ref().map(RoleArn::as_str).map(intern);
        let (registrations, counts) = self.registrations(task, &snapshot, role.as_ref(), identities);
        let names: Vec<Arc<str>> = self.workers.keys().cloned().collect();
        let warnings = self.warnings.of_task(task, &names);
        let evaluation = primary(evaluated);
        let state = TaskStateView::of(&TaskStateFacts {
            is_gone: is_gone(&snapshot),
            is_leaving: is_leaving(&snapshot),
            verdict: evaluation.as_ref().map_or(VerdictFacts::None, |(_, evaluated)| evaluated.verdict),
            registrations: counts,
            is_blocked: warnings.iter().any(|(reason, _)| BLOCKING.contains(reason)),
        });
        let reason = reason(state, evaluation.as_ref().map(|(_, evaluated)| &**evaluated), &warnings);
        let (control_plane, evaluated) = match evaluation {
            Some((worker, evaluated)) => (Some(Arc::clone(&worker.name)), Some(evaluated)),
            None => (None, None),
        };
        let binding = evaluated.as_ref().and_then(|evaluated| evaluated.binding.clone());
        let service = evaluated.as_ref().and_then(|evaluated| evaluated.service.clone());
        TaskView {
            name: task.id().as_str().into(),
            arn: task.to_string().into(),
            cluster: intern(task.cluster().as_str()),
            account: intern(task.cluster().account()),
            region: intern(task.cluster().region()),
            ecs_service: shown.and_then(|shown| shown.group.service()).map(intern),
            definition: shown.map(|shown| intern(&shown.definition.to_string())),
            last_status: shown.map(|shown| intern(shown.last_status.as_str())),
            desired_status: shown.map(|shown| intern(shown.desired_status.as_str())),
            address: shown.and_then(|shown| shown.addresses.all().next()).map(|address| address.to_string()),
            role,
            created_at: shown.and_then(|shown| shown.created_at).map(Into::into),
            state,
            reason,
            workloads: evaluated.iter().filter_map(|evaluated| evaluated.workload.clone()).collect(),
            control_plane: control_plane.filter(|_| binding.is_some()),
            binding,
            service: service.or_else(|| registrations.iter().find_map(|known| known.service.clone())),
            registrations,
            warnings: warnings.into_iter().map(|(_, warning)| warning).collect(),
        }
    }

    fn registrations(
        &self,
        task: &TaskArn,
        snapshot: &TaskSnapshot,
        role: Option<&Arc<str>>,
        identities: &mut Vec<IdentityView>,
    ) -> (Vec<RegistrationView>, RegistrationFacts) {
        let (mut views, mut counts) = (Vec::new(), RegistrationFacts::default());
        for worker in self.workers.values() {
            for entry in worker.registry.entries(task) {
                let view = registration(self.reads, worker, &entry);
                counts.total += 1;
                counts.drained += usize::from(view.drained.is_some());
                counts.unconfirmed += usize::from(entry.content_hash.is_none());
                identities.push(IdentityView {
                    name: Arc::clone(&view.name),
                    kind: view.kind,
                    control_plane: Arc::clone(&view.control_plane),
                    mesh: view.mesh.clone(),
                    service: view.service.clone(),
                    task: task.to_string().into(),
                    cluster: intern(task.cluster().as_str()),
                    role: role.cloned(),
                    state: match view.drained {
                        _ if is_gone(snapshot) => IdentityStateView::Orphan,
                        Some(_) => IdentityStateView::Drained,
                        None => IdentityStateView::Active,
                    },
                    since: entry.drained.map(|(_, at)| self.reads.wall_of(at).into()),
                });
                views.push(view);
            }
        }
        (views, counts)
    }
}

/// The evaluation to show: that of the control plane that the task's binding names.
fn primary(evaluated: Vec<ShownEvaluation<'_>>) -> Option<ShownEvaluation<'_>> {
    let rank = |(_, evaluated): &ShownEvaluation<'_>| match evaluated.verdict {
        _ if evaluated.is_elsewhere => 2,
        VerdictFacts::Ignore => 1,
        _ => 0,
    };
    evaluated.into_iter().min_by_key(rank)
}

fn is_gone(snapshot: &TaskSnapshot) -> bool {
    matches!(
        snapshot.liveness,
        TaskLiveness::Stopped | TaskLiveness::StoppedMissing { .. } | TaskLiveness::Absent { .. }
    )
}

fn is_leaving(snapshot: &TaskSnapshot) -> bool {
    matches!(snapshot.liveness, TaskLiveness::Leaving | TaskLiveness::StopUnconfirmed)
}

fn registration(
    reads: &OperatorReads,
    worker: &ControlPlaneWorker,
    entry: &RegistryEntry,
) -> RegistrationView {
    let (name, kind) = identity_of(worker, &entry.id);
    let readiness = entry.readiness.filter(|_| entry.drained.is_none());
    RegistrationView {
        control_plane: Arc::clone(&worker.name),
        mesh: worker.mesh_label(&entry.id).map(intern),
        name,
        service: entry.service.clone(),
        kind,
        ready: if entry.drained.is_some() { Some(false) } else { readiness.map(|(ready, _)| ready) },
        readiness_observed_at: readiness.map(|(_, at)| reads.wall_of(at).into()),
        drained: entry.drained.map(|(reason, _)| drained_view(reason)),
    }
}

fn drained_view(reason: DrainReason) -> DrainedView {
    match reason {
        DrainReason::Stopping => DrainedView::Stopping,
        DrainReason::Unconfirmed => DrainedView::Unconfirmed,
        DrainReason::Revoked => DrainedView::Revoked,
        DrainReason::NotDesired => DrainedView::NotDesired,
    }
}

/// Why the task is in its state, where that is not as declared.
fn reason(
    state: TaskStateView,
    evaluated: Option<&EvaluatedTask>,
    warnings: &[(&'static str, TaskWarningView)],
) -> Option<ReasonView> {
    let of_verdict = || {
        let (key, message) = evaluated?.reason.as_ref()?;
        Some(ReasonView { key: intern(key), message: message.clone() })
    };
    let of_warning = || {
        let blocking = warnings.iter().find(|(reason, _)| BLOCKING.contains(reason));
        let (_, warning) = blocking.or_else(|| warnings.first())?;
        Some(ReasonView { key: Arc::clone(&warning.reason), message: warning.message.to_string() })
    };
    match state {
        TaskStateView::Registered | TaskStateView::SelfRegistered | TaskStateView::Stopped => None,
        TaskStateView::Rejected | TaskStateView::Ignored => of_verdict(),
        TaskStateView::Held | TaskStateView::Pending | TaskStateView::Drained => {
            of_warning().or_else(of_verdict)
        }
    }
}

impl OperatorReads {
    /// The facts behind a task's view.
    pub(super) fn facts_of(&self, task: &TaskArn) -> ReadTaskFacts {
        let snapshot = self.context.aws.store.snapshot(task, Duration::MAX, self.context.now());
        let workers = self.context.workers.load();
        let evaluated: Vec<ShownEvaluation<'_>> =
            workers.values().filter_map(|worker| Some((worker, worker.evaluated.get(task)?))).collect();
        let violations: Vec<RoleViolation> =
            evaluated.iter().flat_map(|(_, evaluated)| evaluated.violations.clone()).collect();
        let manifests = self.context.manifests.load();
        let verdict =
            |worker: &Arc<ControlPlaneWorker>| verdict_view(worker, task, worker.may_hold(&manifests, task));
        ReadTaskFacts {
            verdict: workers.values().filter_map(verdict).collect(),
            evidence: snapshot.task.as_ref().map(|shown| self.evidence(shown, &snapshot)),
            role_tags: self.role_tags(task, &violations),
        }
    }

    fn evidence(&self, shown: &Task, snapshot: &TaskSnapshot) -> EvidenceView {
        let seen = [(snapshot.described_at, SeenByView::Describe), (snapshot.alive_at, SeenByView::List)];
        let last = seen.into_iter().filter_map(|(at, by)| Some((at?, by))).max_by_key(|(at, _)| *at);
        EvidenceView {
            last_status: shown.last_status.as_str().into(),
            desired_status: shown.desired_status.as_str().into(),
            version: i64::try_from(shown.version).unwrap_or(i64::MAX),
            seen_at: last.map(|(at, _)| self.wall_of(at).into()),
            seen_by: last.map(|(_, by)| by),
        }
    }

    /// The role's tags that identities rest on, with the rules that they break.
    fn role_tags(&self, task: &TaskArn, violations: &[RoleViolation]) -> Vec<RoleTagView> {
        let aws = &self.context.aws;
        let role = aws.store.role_of(task);
        let read = role.as_ref().and_then(|role| aws.roles.cached(role, Duration::MAX));
        let tags = match read {
            Some(Fact::Known(read)) => read.tags,
            _ => None,
        };
        let broken = |key: &str| violations.iter().find(|violation| violation.rule.label() == key);
        let mut views: BTreeMap<Arc<str>, RoleTagView> = BTreeMap::new();
        for (key, value) in tags.iter().flat_map(|tags| tags.iter()) {
            if IDENTITY_TAGS.iter().any(|prefix| key.starts_with(prefix)) {
                let violation = broken(key);
                let view = RoleTagView {
                    key: intern(key),
                    value: Some(value.as_str().into()),
                    expected: violation.map(|violation| violation.needed.as_str().into()),
                    ok: violation.is_none(),
                };
                views.insert(intern(key), view);
            }
        }
        for violation in violations.iter().filter(|violation| is_tag(violation.rule.label())) {
            let key = intern(violation.rule.label());
            views.entry(Arc::clone(&key)).or_insert_with(|| RoleTagView {
                key,
                value: violation.found.as_deref().map(Into::into),
                expected: Some(violation.needed.as_str().into()),
                ok: false,
            });
        }
        views.into_values().collect()
    }
}

fn is_tag(rule: &str) -> bool {
    IDENTITY_TAGS.iter().any(|prefix| rule.starts_with(prefix))
}

/// The verdict at a control plane, as `explain` renders it of a plan; `None` where the task is none of its.
fn verdict_view(worker: &ControlPlaneWorker, task: &TaskArn, may_hold: bool) -> Option<VerdictView> {
    let evaluated = worker.evaluated.get(task);
    let recorded = worker.evaluated.verdict(task);
    let entries = worker.registry.entries(task);
    if entries.is_empty() && evaluated.as_ref().is_some_and(|evaluated| evaluated.is_elsewhere) {
        return None;
    }
    let (changes, warnings) = match recorded {
        Some(RecordedVerdict::Settled) => {
            (entries.iter().map(|entry| settled_change(worker, entry)).collect(), Vec::new())
        }
        Some(RecordedVerdict::Changes(plan)) => {
            let warnings = plan.warnings().iter().map(ToString::to_string).collect();
            (plan.changes().to_vec(), warnings)
        }
        None if may_hold => (vec![PlannedChange::new(Change::Unknown, "not evaluated yet")], Vec::new()),
        None => return None,
    };
    let control_plane = Arc::clone(&worker.name);
    let entry =
        |change| PlanEntry { control_plane: Arc::clone(&control_plane), task: Some(task.clone()), change };
    let changes = changes.into_iter().map(entry).collect();
    let verdict = TaskVerdict { control_plane: Arc::clone(&control_plane), changes, warnings };
    Some(VerdictView {
        change: verdict.due().map(|due| intern(due.change.as_str())),
        blocked_by: verdict.due().and_then(|due| due.blocked_by).map(|by| intern(by.as_str())),
        text: anstream::adapter::strip_str(&verdict.render()).to_string(),
        control_plane,
    })
}

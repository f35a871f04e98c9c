//! Evaluates the desired state of one task at one control plane. The verdict names the next missing fact until all are
//! known.

use std::sync::Arc;

use super::claim::{ClaimingTask, service_claim_violation};
use super::consul::{ConsulClaim, ConsulLocation};
use super::dataplane_owner::{DataplaneTask, check_sidecar, dataplane_owner, waiting_sidecar};
use super::discovered::{self, DiscoveredWorkload};
use super::registration_name::registration_name;
use super::roles::{RoleClaim, RoleRules};
use super::select::{self, Selection};
use super::sidecar_reach::KumaSidecar;
use super::task_address::TaskAddress;
use super::violation::{RoleRule, RoleViolation, ViolationBasis};
use super::{
    BoundPrincipals, CalledWorkloads, DesiredProxy, DesiredReach, DesiredRegistration, ManifestHistory,
    OwnershipLabels, RegistrationId,
};
use ecs_mesh_api::manifests::{Binding, ManifestSet, is_dns_label};
use ecs_mesh_api::{ControlPlaneType, Discovery, Presence, Reach, RoleTagMode, WorkloadSpec, ZoneProxyForm};
use ecs_mesh_model::{
    ContainerInstanceArn, DataplaneOwner, InterfaceAddresses, OperatorId, Reason, RoleArn, ServiceName,
    SidecarOutbounds, Tags, Task, TaskDefinition, Timestamp,
};

/// A fact that may not have been read yet, or could not be read.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact<T> {
    /// Not read yet.
    NotAsked,
    /// The read failed, for this reason. Unknown is never treated as absent.
    Unknown(Reason),
    /// Known.
    Known(T),
}

/// The tags of a role, as read.
#[derive(Clone, Debug, PartialEq)]
pub struct RoleTags {
    /// The tags; `None` where IAM reports that the role does not exist.
    pub tags: Option<Arc<Tags>>,
    /// Two reads, at least 10 s apart, agree. IAM is eventually consistent, so one read confirms no violation.
    pub confirmed: bool,
}

/// Facts about a task beyond its events.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskFacts {
    /// Why the task's ECS tags could not be read; otherwise they are on the task, or not read yet.
    pub tags_unknown: Option<Reason>,
    /// The task definition.
    pub definition: Fact<Arc<TaskDefinition>>,
    /// The tags of the task role.
    pub role: Fact<RoleTags>,
    /// The addresses of the container instance that the task runs on.
    pub host: Fact<InterfaceAddresses>,
    /// The task has registrations at this control plane.
    pub registered: bool,
    /// This process has seen the task's registrations with exactly the outbounds that the manifests declared then, so
    /// that others are the result of an edit.
    pub outbounds_seen: bool,
    /// How the task's sidecar gets its outbounds, if it has reported that to the control plane. It outranks the task
    /// definition.
    pub reported_outbounds: Option<SidecarOutbounds>,
}

impl Default for TaskFacts {
    fn default() -> Self {
        Self {
            tags_unknown: None,
            definition: Fact::NotAsked,
            role: Fact::NotAsked,
            host: Fact::NotAsked,
            registered: false,
            outbounds_seen: false,
            reported_outbounds: None,
        }
    }
}

/// A fact that the verdict requires.
#[derive(Clone, Debug, PartialEq)]
pub enum MissingFact {
    /// The task's ECS tags.
    Tags,
    /// The task definition.
    Definition,
    /// The tags of this role.
    Role(RoleArn),
    /// The addresses of this container instance.
    Host(ContainerInstanceArn),
}

/// Why existing registrations are held.
#[derive(Clone, Debug, PartialEq)]
pub enum HoldReason {
    /// Several bindings of one control-plane type select the task.
    Bindings(Vec<Arc<str>>),
    /// Several workloads select the task.
    Workloads(Vec<Arc<str>>),
    /// A fact could not be read.
    Unknown(Reason),
    /// The task's network interface, or its placement on a container instance, is pending.
    AddressPending,
    /// The task's tags or labels, or the resulting name, are invalid.
    Unusable(Reason),
    /// The task's sidecar writes its Dataplane itself, and the manifests ask the operator to.
    TemplateMode(Reason),
}

/// Why the operator does not register a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IgnoreReason {
    /// No binding selects the task.
    NoBinding,
    /// The task's binding names another control plane.
    OtherControlPlane,
    /// No workload selects the task, and its tags describe none.
    NoWorkload,
    /// The task would register itself and has not, and no workload selects it.
    NotRegistered,
    /// The sidecar's ports are not reached as they are, or not at all (network mode bridge or none).
    NetworkMode(String),
    /// The task runs on an external instance, whose address AWS does not know.
    ExternalInstance,
}

/// The verdict on a task.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The task should be registered as this, by its Dataplane's owner.
    Register(Box<DesiredRegistration>),
    /// The task is allowed in the mesh, and registers itself.
    Admit,
    /// Not allowed by the role's tags, or by the manifests for the role.
    Reject {
        /// All broken rules.
        violations: Vec<RoleViolation>,
        /// Whether the underlying tags were read twice. Only then may registrations be withdrawn.
        confirmed: bool,
        /// The registration that the task would have, where that is known: its sidecar may have made it.
        id: Option<RegistrationId>,
    },
    /// Existing registrations are kept unchanged.
    Hold(HoldReason),
    /// The operator does not register the task.
    Ignore(IgnoreReason),
    /// Evaluate again with this fact.
    NeedsFact(MissingFact),
}

/// The verdict, with warnings for people.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// The binding that selects the task, if exactly one does.
    pub binding: Option<Arc<Binding>>,
    /// The owner of the task's Dataplane. Only the operator's own are created, updated and drained.
    pub owner: DataplaneOwner,
    /// The workload of the task in the mesh, once known.
    pub workload: Option<SelectedWorkload>,
    /// The verdict.
    pub verdict: Verdict,
    /// Violations under `mode: warn`, and contradictions between manifests.
    pub warnings: Vec<Reason>,
}

/// The workload that a task is, as far as reports name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectedWorkload {
    /// The name of the `Workload` manifest; the service's where the task's tags describe the workload.
    pub name: Arc<str>,
    /// The service in the mesh.
    pub service: ServiceName,
}

impl SelectedWorkload {
    fn of(name: &Arc<str>, workload: &WorkloadSpec) -> Self {
        Self { name: Arc::clone(name), service: workload.service.clone() }
    }
}

/// The context of an evaluation: one control plane of one operator.
#[derive(Clone, Copy, Debug)]
pub struct Evaluator<'a> {
    /// The manifests in force.
    pub manifests: &'a ManifestSet,
    /// The `ControlPlane`'s name.
    pub control_plane: &'a str,
    /// The control plane's type.
    pub kind: ControlPlaneType,
    /// How the control plane registers zone proxies; `None` if that is not known yet.
    pub zone_proxies: Option<ZoneProxyForm>,
    /// This operator's id.
    pub operator: &'a OperatorId,
    /// Documents that have left the manifests.
    pub history: &'a ManifestHistory,
    /// The current time.
    pub now: Timestamp,
}

impl Evaluator<'_> {
    /// Evaluates a task that ECS wants to run. (A leaving task is not evaluated: it is drained under any verdict.)
    pub fn evaluate(&self, task: &Task, facts: &TaskFacts) -> Evaluation {
        let (mut workload, mut warnings) = (None, Vec::new());
        let (binding, owner, verdict) = match self.binding(task, facts) {
            Err(verdict) => (None, DataplaneOwner::Operator, verdict),
            Ok(binding) => {
                let owner = dataplane_owner(self.manifests, &binding, DataplaneTask::Shown(task));
                let verdict = self
                    .evaluate_in_binding(&binding, owner, task, facts, (&mut workload, &mut warnings))
                    .unwrap_or_else(|verdict| verdict);
                (Some(binding), owner, verdict)
            }
        };
        Evaluation { binding, owner, workload, verdict, warnings }
    }

    fn binding(&self, task: &Task, facts: &TaskFacts) -> Result<Arc<Binding>, Verdict> {
        match select::binding(self.manifests, self.kind, task) {
            Selection::None => Err(Verdict::Ignore(IgnoreReason::NoBinding)),
            Selection::Several(names) => Err(Verdict::Hold(HoldReason::Bindings(names))),
            Selection::NeedsTags => Err(need_tags(facts)),
            Selection::One(_, binding) if binding.spec.control_plane != self.control_plane => {
                Err(Verdict::Ignore(IgnoreReason::OtherControlPlane))
            }
            Selection::One(_, binding) => Ok(binding),
        }
    }

    /// The verdict in the selected binding. `Err` is a verdict that was reached before all checks.
    fn evaluate_in_binding(
        &self,
        binding: &Binding,
        owner: DataplaneOwner,
        task: &Task,
        facts: &TaskFacts,
        (selected, warnings): (&mut Option<SelectedWorkload>, &mut Vec<Reason>),
    ) -> Result<Verdict, Verdict> {
        if self.kind.tasks_register_themselves() {
            return self.check_admission(binding, task, facts, (selected, warnings));
        }
        let (name, workload) = self.workload(binding, task, facts, selected)?;
        *selected = Some(SelectedWorkload::of(&name, &workload));
        let label = workload_label(&workload);
        let proxy = DesiredProxy::known(&workload, self.zone_proxies).ok_or_else(|| {
            let reason =
                Reason::constant("the control plane's version, which decides the form of zone proxies");
            Verdict::Hold(HoldReason::Unknown(reason))
        })?;
        let claim = RoleClaim::of_proxy(&proxy, &binding.spec.mesh, &workload.service, label);
        let place = TaskAddress::of(task, facts, binding.spec.address_family);
        // A role that no longer allows a registration ends it wherever the task runs, also while its address is unknown.
        if place.is_ok() || facts.registered {
            check_role(binding, claim, task, facts, warnings).map_err(|mut verdict| {
                if let (Verdict::Reject { id, .. }, Ok(place)) = (&mut verdict, &place) {
                    let name = registration_name(&binding.spec.dataplane_name, &workload, task, *place);
                    *id = name.ok().map(|name| proxy.registration_id(&binding.spec.mesh, name));
                }
                verdict
            })?;
        }
        let place = place?;
        place.check_ports(&workload, facts)?;
        warnings.extend(place.shared_listeners(&name, workload.reach));
        // Of a registered task, it shows who has written the Dataplane. A new task does not wait for a definition that cannot be
        // read.
        let definition = match &facts.definition {
            Fact::Unknown(_) if !facts.registered => None,
            _ => Some(known_definition(facts)?),
        };
        if let Some(definition) = definition {
            check_sidecar(owner, definition)?;
            let waiting = waiting_sidecar(owner, &name, definition);
            warnings.extend(waiting.filter(|_| !facts.registered));
        }
        let settle = binding.spec.cleanup.settle.0;
        let is_unknown = !facts.outbounds_seen && self.history.is_starting(settle, self.now);
        let may_lack_lists = is_unknown || self.history.lacks_list_of(&name, settle, self.now);
        let (set, sidecar) = (self.manifests, sidecar(&workload, facts)?);
        let mismatch = sidecar.as_ref().and_then(|sidecar| sidecar.mismatch(&name, workload.reach));
        warnings.extend(mismatch);
        let reach = if sidecar.is_some_and(|sidecar| sidecar.cannot_bind(workload.reach)) {
            DesiredReach::as_listeners(set, &name, &workload, may_lack_lists, warnings)
        } else {
            DesiredReach::of(set, &name, &workload, may_lack_lists, warnings)
        };
        let called = reach.called_services();
        let called_workloads =
            CalledWorkloads::of(self.manifests, self.control_plane, &binding.spec.mesh, called);
        Ok(Verdict::Register(Box::new(DesiredRegistration {
            id: proxy.registration_id(
                &binding.spec.mesh,
                registration_name(&binding.spec.dataplane_name, &workload, task, place)?,
            ),
            marks: OwnershipLabels::of(self.operator, &task.arn),
            cluster_name: task.arn.cluster().name().into(),
            binding: Arc::clone(&binding.name),
            address: place.address,
            service: workload.service.clone(),
            workload: label.map(Into::into),
            proxy,
            inbounds: workload.inbounds.clone(),
            probe: workload.probe,
            reach,
            called_workloads,
        })))
    }

    /// The verdict on a task that registers itself: whether its role allows it. A task without registration and workload is
    /// ignored.
    fn check_admission(
        &self,
        binding: &Binding,
        task: &Task,
        facts: &TaskFacts,
        (selected, warnings): (&mut Option<SelectedWorkload>, &mut Vec<Reason>),
    ) -> Result<Verdict, Verdict> {
        let service = match select::workload(self.manifests, &binding.name, task) {
            Selection::One(name, workload) => {
                *selected = Some(SelectedWorkload::of(&name, &workload));
                Some(workload)
            }
            Selection::Several(names) => return Err(Verdict::Hold(HoldReason::Workloads(names))),
            Selection::NeedsTags => return Err(need_tags(facts)),
            Selection::None => None,
        };
        if service.is_none() && !facts.registered {
            return Err(Verdict::Ignore(IgnoreReason::NotRegistered));
        }
        let service = service.as_ref().map(|workload| &workload.service);
        let claim = ConsulClaim { service, bound: self.bound_principals(), location: self.location() };
        let claim = RoleClaim::Consul(claim);
        check_role(binding, claim, task, facts, warnings)?;
        Ok(Verdict::Admit)
    }

    /// The partition and namespaces of the control plane, in Consul Enterprise.
    fn location(&self) -> Option<ConsulLocation<'_>> {
        ConsulLocation::of(self.manifests.control_planes.get(self.control_plane)?.consul.as_ref()?)
    }

    /// The principals that may log in as a service, where the manifests declare them for this control plane.
    fn bound_principals(&self) -> Option<BoundPrincipals<'_>> {
        let mut declared = self.manifests.consul_auths.values();
        let auth = declared.find(|auth| auth.control_plane == self.control_plane)?;
        let tokens = auth.service_tokens.as_ref()?;
        let is_present = auth.state == Presence::Present && tokens.state == Presence::Present;
        is_present.then(|| {
            let login = tokens.login();
            BoundPrincipals { arns: login.bound_principals, entity_details: login.entity_details }
        })
    }

    fn workload(
        &self,
        binding: &Binding,
        task: &Task,
        facts: &TaskFacts,
        selected: &mut Option<SelectedWorkload>,
    ) -> Result<(Arc<str>, Arc<WorkloadSpec>), Verdict> {
        match select::workload(self.manifests, &binding.name, task) {
            Selection::One(name, workload) => Ok((name, workload)),
            Selection::Several(names) => Err(Verdict::Hold(HoldReason::Workloads(names))),
            Selection::NeedsTags => Err(need_tags(facts)),
            Selection::None if binding.spec.discovery == Discovery::Tags => {
                let definition = known_definition(facts)?;
                let Some(tags) = &task.tags else { return Err(need_tags(facts)) };
                match discovered::describe(&definition.containers, tags) {
                    DiscoveredWorkload::Nothing => Err(Verdict::Ignore(IgnoreReason::NoWorkload)),
                    DiscoveredWorkload::Unusable(reason) => Err(Verdict::Hold(HoldReason::Unusable(reason))),
                    DiscoveredWorkload::Workload(workload) => {
                        let role = task.role_override.as_ref().or(definition.task_role.as_ref());
                        let place = ClaimingTask::of(task, role);
                        *selected = Some(SelectedWorkload::of(&workload.service.as_str().into(), &workload));
                        match service_claim_violation(&binding.spec.claims, &workload, place) {
                            None => Ok((workload.service.as_str().into(), Arc::new(*workload))),
                            // Neither the definition nor the manifests need a second read.
                            Some(violation) => Err(Verdict::Reject {
                                violations: vec![violation],
                                confirmed: true,
                                id: None,
                            }),
                        }
                    }
                }
            }
            Selection::None => Err(Verdict::Ignore(IgnoreReason::NoWorkload)),
        }
    }
}

fn need_tags(facts: &TaskFacts) -> Verdict {
    match &facts.tags_unknown {
        None => Verdict::NeedsFact(MissingFact::Tags),
        Some(reason) => Verdict::Hold(HoldReason::Unknown(reason.clone().with_prefix("the task's ECS tags"))),
    }
}

pub(super) fn known_definition(facts: &TaskFacts) -> Result<&TaskDefinition, Verdict> {
    match &facts.definition {
        Fact::Known(definition) => Ok(definition),
        Fact::NotAsked => Err(Verdict::NeedsFact(MissingFact::Definition)),
        Fact::Unknown(reason) => {
            Err(Verdict::Hold(HoldReason::Unknown(reason.clone().with_prefix("the task definition"))))
        }
    }
}

/// The sidecar of a Kuma task, as far as it is known. Where it decides about outbounds and has not connected yet, its
/// definition is read, and a registration is held while that fails.
fn sidecar<'a>(workload: &WorkloadSpec, facts: &'a TaskFacts) -> Result<Option<KumaSidecar<'a>>, Verdict> {
    if !workload.proxy_role().may_have_outbounds() {
        return Ok(None);
    }
    if let Some(outbounds) = facts.reported_outbounds {
        return Ok(Some(KumaSidecar::connected(outbounds)));
    }
    let definition = match (&facts.definition, workload.reach) {
        (Fact::NotAsked, Reach::BindOutbounds) => known_definition(facts)?,
        (Fact::Unknown(_), Reach::BindOutbounds) if facts.registered => known_definition(facts)?,
        (Fact::NotAsked | Fact::Unknown(_), _) => return Ok(None),
        (Fact::Known(definition), _) => definition,
    };
    Ok(KumaSidecar::of(definition))
}

/// Checks the claim against the task's role, as far as the binding requires; `Err` is a verdict.
fn check_role(
    binding: &Binding,
    claim: RoleClaim<'_>,
    task: &Task,
    facts: &TaskFacts,
    warnings: &mut Vec<Reason>,
) -> Result<(), Verdict> {
    let warns = binding.spec.role_tags.mode == RoleTagMode::Warn;
    match violations(binding, claim, task, facts) {
        Ok(None) => Ok(()),
        Ok(Some((violations, _))) if warns => {
            warnings.extend(violations.iter().map(RoleViolation::reason));
            Ok(())
        }
        // Under `warn`, facts that cannot be read prevent no registration either.
        Err(Verdict::Hold(hold)) if warns => {
            warnings.push(hold.reason());
            Ok(())
        }
        Ok(Some((violations, confirmed))) => Err(Verdict::Reject { violations, confirmed, id: None }),
        Err(verdict) => Err(verdict),
    }
}

/// The rules that the task's role breaks, and whether that is confirmed; `None` where it breaks none.
fn violations(
    binding: &Binding,
    claim: RoleClaim<'_>,
    task: &Task,
    facts: &TaskFacts,
) -> Result<Option<(Vec<RoleViolation>, bool)>, Verdict> {
    let policy = &binding.spec.role_tags;
    if policy.mode == RoleTagMode::Off {
        return Ok(None);
    }
    let rules = RoleRules { claim, policy, task_account: task.arn.cluster().account() };
    let own = match &task.role_override {
        Some(role) => Some(role),
        None => known_definition(facts)?.task_role.as_ref(),
    };
    let Some(role) = own else {
        let needed = rules.needed_tags();
        let violation = RoleViolation { rule: RoleRule::NoTaskRole, role: None, found: None, needed };
        // A task definition never changes, so no second read is needed.
        return Ok(Some((vec![violation], true)));
    };
    let read = match &facts.role {
        Fact::Known(read) => read,
        Fact::NotAsked => return Err(Verdict::NeedsFact(MissingFact::Role(role.clone()))),
        Fact::Unknown(reason) => {
            return Err(Verdict::Hold(HoldReason::Unknown(reason.clone().with_prefix("the role's tags"))));
        }
    };
    let violations = match &read.tags {
        Some(tags) => rules.violations(role, tags, task.tags.as_deref()),
        None if !read.confirmed => {
            let message = format!("the role's tags: IAM does not find role {role}, read once so far");
            let reason = Reason::new("IAM does not find the role, read once so far", message);
            return Err(Verdict::Hold(HoldReason::Unknown(reason)));
        }
        None => vec![RoleViolation {
            rule: RoleRule::RoleNotFound,
            role: Some(role.clone()),
            found: None,
            needed: rules.needed_tags(),
        }],
    };
    // Violations without tags need no second read either.
    let confirmed = read.confirmed
        || violations
            .iter()
            .all(|violation| matches!(violation.basis(), None | Some(ViolationBasis::Manifests)));
    Ok((!violations.is_empty()).then_some((violations, confirmed)))
}

/// The label `kuma.io/workload`: the manifest's, or else the service's name where it is a DNS-1035 label.
pub fn workload_label(workload: &WorkloadSpec) -> Option<&str> {
    let service = Some(workload.service.as_str()).filter(|name| is_dns_label(name));
    workload.workload.as_deref().or(service)
}

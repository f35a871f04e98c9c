//! The verdict on one task for one control plane. Says which further facts it needs, and decides when it has them.

use std::net::IpAddr;
use std::sync::Arc;

use super::consul::{ConsulClaim, ConsulLocation};
use super::discovered::{self, DiscoveredWorkload};
use super::roles::{RoleClaim, RoleRules};
use super::select::{self, Selection};
use super::violation::{ViolationBasis, RoleRule, RoleViolation};
use super::{BoundPrincipals, DesiredRegistration, OwnershipLabels, Outbounds, RegistrationId};
use ecs_mesh_api::manifests::{Binding, ManifestSet, is_dns_label};
use ecs_mesh_api::{ControlPlaneType, Discovery, Presence, RoleTagMode, WorkloadSpec};
use ecs_mesh_model::{OperatorId, RoleArn, Tags, Task, TaskDefinition, Reason};

/// A fact that may not have been asked for, or could not be had.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact<T> {
    /// Nobody asked yet.
    NotAsked,
    /// It could not be had, in words for a person. Unknown is never taken for absent.
    Unknown(Reason),
    /// Known.
    Known(T),
}

/// A role's tags as read.
#[derive(Clone, Debug, PartialEq)]
pub struct RoleTags {
    /// The tags; `None`: IAM says that there is no such role.
    pub tags: Option<Arc<Tags>>,
    /// The same was read twice, at least 10 s apart: IAM is eventually consistent, so one read proves nothing bad.
    pub confirmed: bool,
}

/// What is known of a task beside what events say.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskFacts {
    /// ECS tags could not be had, in words; otherwise they are on the task or not asked for.
    pub tags_unknown: Option<Reason>,
    /// Its definition.
    pub definition: Fact<Arc<TaskDefinition>>,
    /// The tags of its role.
    pub role: Fact<RoleTags>,
    /// It has registered itself at this control plane.
    pub registered: bool,
}

impl Default for TaskFacts {
    fn default() -> Self {
        Self { tags_unknown: None, definition: Fact::NotAsked, role: Fact::NotAsked, registered: false }
    }
}

/// A fact that the verdict hangs on.
#[derive(Clone, Debug, PartialEq)]
pub enum MissingFact {
    /// The task's ECS tags.
    Tags,
    /// Its task definition.
    Definition,
    /// This role's tags.
    Role(RoleArn),
}

/// Why nothing may change now.
#[derive(Clone, Debug, PartialEq)]
pub enum HoldReason {
    /// Several bindings of one type take the task.
    Bindings(Vec<Arc<str>>),
    /// Several workloads take it.
    Workloads(Vec<Arc<str>>),
    /// A fact could not be had.
    Unknown(Reason),
    /// Its network interface is not there yet.
    AddressPending,
    /// What describes the task cannot be used.
    Unusable(Reason),
}

/// Why the task is not ours to register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IgnoreReason {
    /// No binding takes it.
    NoBinding,
    /// Its binding is of another control plane.
    OtherControlPlane,
    /// No workload takes it, and it does not describe itself.
    NoWorkload,
    /// It would register itself and has not, and no workload says that it should.
    NotRegistered,
    /// It has no address of its own (bridge or host network mode).
    NetworkMode(String),
}

/// What a task should be.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Registered as this.
    Register(Box<DesiredRegistration>),
    /// It may be in the mesh, and registers itself there.
    Admit,
    /// Not registered: its role's tags, or the manifests that speak of its role, do not allow it.
    Reject {
        /// Every rule that is broken.
        violations: Vec<RoleViolation>,
        /// Whether the tags that it rests on were read twice: only then may something existing go.
        confirmed: bool,
    },
    /// Whatever is registered stays as it is.
    Hold(HoldReason),
    /// Not ours.
    Ignore(IgnoreReason),
    /// Ask again with this fact.
    NeedsFact(MissingFact),
}

/// The verdict, with what a person should hear besides.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// The binding that takes the task, if just one does.
    pub binding: Option<Arc<Binding>>,
    /// What it should be.
    pub verdict: Verdict,
    /// Violations under `mode: warn`, and contradictions between manifests.
    pub warnings: Vec<Reason>,
}

/// Who asks: one control plane of one operator.
#[derive(Clone, Copy, Debug)]
pub struct Evaluator<'a> {
    /// The manifests in force.
    pub manifests: &'a ManifestSet,
    /// The `ControlPlane`'s name.
    pub control_plane: &'a str,
    /// Its type.
    pub kind: ControlPlaneType,
    /// This operator.
    pub operator: &'a OperatorId,
}

impl Evaluator<'_> {
    /// Judges a task that ECS wants to run. (A task that is leaving is not judged: it drains, whatever it was.)
    pub fn evaluate(&self, task: &Task, facts: &TaskFacts) -> Evaluation {
        let mut warnings = Vec::new();
        let (binding, verdict) = match self.binding(task, facts) {
            Err(verdict) => (None, verdict),
            Ok(binding) => {
                let verdict = self.evaluate_in_binding(&binding, task, facts, &mut warnings).unwrap_or_else(|early| early);
                (Some(binding), verdict)
            }
        };
        Evaluation { binding, verdict, warnings }
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

    /// `Err` is a verdict reached early.
    fn evaluate_in_binding(
        &self,
        binding: &Binding,
        task: &Task,
        facts: &TaskFacts,
        warnings: &mut Vec<Reason>,
    ) -> Result<Verdict, Verdict> {
        if self.kind.tasks_register_themselves() {
            return self.check_admission(binding, task, facts, warnings);
        }
        let (name, workload) = self.workload(binding, task, facts)?;
        let Some(address) = task.address else { return Err(no_address(facts)) };
        let label = workload_label(&workload);
        let claim = RoleClaim::Kuma { mesh: &binding.spec.mesh, service: &workload.service, workload: label };
        check_role(binding, claim, task, facts, warnings)?;
        let outbounds = Outbounds::of(self.manifests, &name, &workload, warnings);
        Ok(Verdict::Register(Box::new(DesiredRegistration {
            id: RegistrationId {
                mesh: binding.spec.mesh.clone(),
                name: registration_name(&binding.spec.dataplane_name, &workload, task, address)?,
            },
            marks: OwnershipLabels::of(self.operator, &task.arn),
            binding: Arc::clone(&binding.name),
            address,
            service: workload.service.clone(),
            workload: label.map(Into::into),
            inbounds: workload.inbounds.clone(),
            probe: workload.probe,
            outbounds,
        })))
    }

    /// Of a task that registers itself: whether its role lets it. Who has nothing to do with the mesh is not judged.
    fn check_admission(
        &self,
        binding: &Binding,
        task: &Task,
        facts: &TaskFacts,
        warnings: &mut Vec<Reason>,
    ) -> Result<Verdict, Verdict> {
        let service = match select::workload(self.manifests, &binding.name, task) {
            Selection::One(_, workload) => Some(workload),
            Selection::Several(names) => return Err(Verdict::Hold(HoldReason::Workloads(names))),
            Selection::NeedsTags => return Err(need_tags(facts)),
            Selection::None => None,
        };
        if service.is_none() && !facts.registered {
            return Err(Verdict::Ignore(IgnoreReason::NotRegistered));
        }
        let service = service.as_ref().map(|workload| &workload.service);
        let claim = ConsulClaim { service, bound: self.bound_principals(), place: self.place() };
        let claim = RoleClaim::Consul(claim);
        check_role(binding, claim, task, facts, warnings)?;
        Ok(Verdict::Admit)
    }

    /// Where in Consul Enterprise.
    fn place(&self) -> Option<ConsulLocation<'_>> {
        ConsulLocation::of(self.manifests.control_planes.get(self.control_plane)?.consul.as_ref()?)
    }

    /// Who may log in as a service, where the manifests declare it for this control plane.
    fn bound_principals(&self) -> Option<BoundPrincipals<'_>> {
        let mut declared = self.manifests.consul_auths.values();
        let auth = declared.find(|auth| auth.control_plane == self.control_plane)?;
        let tokens = auth.service_tokens.as_ref()?;
        let is_kept = auth.state == Presence::Present && tokens.state == Presence::Present;
        is_kept.then(|| {
            let login = tokens.login();
            BoundPrincipals { arns: login.bound_principals, entity_details: login.entity_details }
        })
    }

    fn workload(
        &self,
        binding: &Binding,
        task: &Task,
        facts: &TaskFacts,
    ) -> Result<(Arc<str>, Arc<WorkloadSpec>), Verdict> {
        match select::workload(self.manifests, &binding.name, task) {
            Selection::One(name, workload) => Ok((name, workload)),
            Selection::Several(names) => Err(Verdict::Hold(HoldReason::Workloads(names))),
            Selection::NeedsTags => Err(need_tags(facts)),
            Selection::None if binding.spec.discovery == Discovery::Tags => {
                let definition = known_definition(facts)?;
                let Some(tags) = &task.tags else { return Err(need_tags(facts)) };
                match discovered::describe(definition, tags) {
                    DiscoveredWorkload::Nothing => Err(Verdict::Ignore(IgnoreReason::NoWorkload)),
                    DiscoveredWorkload::Unusable(why) => Err(Verdict::Hold(HoldReason::Unusable(why))),
                    DiscoveredWorkload::Workload(workload) => {
                        Ok((workload.service.as_str().into(), Arc::new(*workload)))
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
        Some(why) => Verdict::Hold(HoldReason::Unknown(why.clone().with_prefix("the task's ECS tags"))),
    }
}

fn known_definition(facts: &TaskFacts) -> Result<&TaskDefinition, Verdict> {
    match &facts.definition {
        Fact::Known(definition) => Ok(definition),
        Fact::NotAsked => Err(Verdict::NeedsFact(MissingFact::Definition)),
        Fact::Unknown(why) => {
            Err(Verdict::Hold(HoldReason::Unknown(why.clone().with_prefix("the task definition"))))
        }
    }
}

/// A task without an address is either young, or has none of its own by its network mode.
fn no_address(facts: &TaskFacts) -> Verdict {
    match known_definition(facts) {
        Err(early) => early,
        Ok(definition) => match definition.network_mode.as_deref() {
            Some("awsvpc") => Verdict::Hold(HoldReason::AddressPending),
            // ECS's default for Linux tasks is bridge.
            mode => Verdict::Ignore(IgnoreReason::NetworkMode(mode.unwrap_or("bridge").to_owned())),
        },
    }
}

/// Whether the task's role allows what is claimed, as far as the binding asks; `Err` is a verdict.
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
        // Under `warn` facts that cannot be had stop nothing either.
        Err(Verdict::Hold(why)) if warns => {
            warnings.push(why.reason());
            Ok(())
        }
        Ok(Some((violations, confirmed))) => Err(Verdict::Reject { violations, confirmed }),
        Err(early) => Err(early),
    }
}

/// The rules that the task's role breaks, with whether that is confirmed; `None` where it breaks none.
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
        // A task definition never changes, so this needs no second look.
        return Ok(Some((vec![violation], true)));
    };
    let read = match &facts.role {
        Fact::Known(read) => read,
        Fact::NotAsked => return Err(Verdict::NeedsFact(MissingFact::Role(role.clone()))),
        Fact::Unknown(why) => {
            return Err(Verdict::Hold(HoldReason::Unknown(why.clone().with_prefix("the role's tags"))));
        }
    };
    let violations = match &read.tags {
        Some(tags) => rules.violations(role, tags, task.tags.as_deref()),
        None if !read.confirmed => {
            let words = format!("the role's tags: IAM knows no role {role}, read once so far");
            let why = Reason::new("IAM knows no such role, read once so far", words);
            return Err(Verdict::Hold(HoldReason::Unknown(why)));
        }
        None => vec![RoleViolation {
            rule: RoleRule::RoleNotFound,
            role: Some(role.clone()),
            found: None,
            needed: rules.needed_tags(),
        }],
    };
    // What no tag is asked for needs no second look either.
    let confirmed = read.confirmed
        || violations.iter().all(|broken| matches!(broken.basis(), None | Some(ViolationBasis::Manifests)));
    Ok((!violations.is_empty()).then_some((violations, confirmed)))
}

/// The label `kuma.io/workload`: as the manifest says, or else the service's name where that is a DNS-1035 label.
fn workload_label(workload: &WorkloadSpec) -> Option<&str> {
    let service = Some(workload.service.as_str()).filter(|name| is_dns_label(name));
    workload.workload.as_deref().or(service)
}

/// Fills the name's template. Kuma: a DNS-1123 subdomain of at most 253 characters, without `_`.
fn registration_name(
    template: &str,
    workload: &WorkloadSpec,
    task: &Task,
    address: IpAddr,
) -> Result<Arc<str>, Verdict> {
    let mut name = template
        .replace("{taskId}", task.arn.id().as_str())
        .replace("{service}", &workload.service.as_str().to_ascii_lowercase().replace([':', '_'], "-"));
    if name.contains("{hostname}") {
        let IpAddr::V4(v4) = address else {
            let words = "dataplaneName has {hostname}, and the task has only an IPv6 address; use {taskId}";
            return Err(Verdict::Hold(HoldReason::Unusable(Reason::constant(words))));
        };
        let [a, b, c, d] = v4.octets();
        name = name.replace("{hostname}", &format!("ip-{a}-{b}-{c}-{d}"));
    }
    let fits = name.len() <= 253
        && name.split('.').all(|part| {
            !part.is_empty()
                && !part.starts_with('-')
                && !part.ends_with('-')
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        });
    if fits {
        Ok(name.into())
    } else {
        let words = format!(
            "dataplaneName {template:?} gives {name:?}; allowed are lower-case letters, digits, '-' and '.', each part \
             between dots starting and ending with a letter or digit, at most 253 characters; use {{taskId}}"
        );
        let why = Reason::new(format!("dataplaneName {template:?}"), words);
        Err(Verdict::Hold(HoldReason::Unusable(why)))
    }
}

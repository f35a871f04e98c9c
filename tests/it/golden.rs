//! Golden files of the evaluation: each file of `tests/golden/intent/` has a task with the known facts, and below the
//! line `---` the result: the Dataplane, the admission at Consul, or the reason for neither.
//! `UPDATE_GOLDEN=1 cargo test --test it golden` renews the results.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use async_trait::async_trait;
use ecs_mesh_api::manifests::ManifestFinding;
use ecs_mesh_api::{ControlPlaneType, ZoneProxyForm};
use ecs_mesh_control_plane::{ControlPlane, Registration, RegistrationOwner};
use ecs_mesh_core::intent::{
    DesiredRegistration, Evaluation, Evaluator, Fact, ManifestHistory, MissingFact, RoleTags, TaskFacts,
    Verdict,
};
use ecs_mesh_kuma::{HttpMethod, HttpResponse, KumaControlPlane, NoObserver, Transport, TransportError};
use ecs_mesh_manifests::{Loaded, ManifestSources};
use ecs_mesh_model::Reason;
use ecs_mesh_model::{
    ContainerInstanceArn, ContainerStart, DataplaneOwner, DesiredStatus, InterfaceAddresses, LastStatus,
    OperatorId, RoleArn, Tags, Task, TaskArn, TaskContainer, TaskDefinition, TaskDefinitionArn, TaskGroup,
    TaskHost, Timestamp,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::golden_cases::{assert_comments, assert_outcomes};

/// The input, above the line.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct IntentCase {
    task: TaskInput,
    /// `None`: unreadable.
    definition: Option<DefinitionInput>,
    /// By ARN; any other role is unreadable.
    #[serde(default)]
    roles: BTreeMap<String, RoleInput>,
    /// By container instance; any other is unreadable.
    #[serde(default)]
    hosts: BTreeMap<String, HostInput>,
    /// Spec by `KIND/NAME`. A `ControlPlane/kuma` always exists and is evaluated, unless there is a
    /// `ControlPlane/consul`.
    manifests: BTreeMap<String, Value>,
    /// The task has registered itself, as at Consul.
    #[serde(default)]
    registered: bool,
    #[serde(default)]
    server: ServerSettings,
    /// `networking.outbound` of the existing registration.
    registered_outbounds: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TaskInput {
    arn: TaskArn,
    group: String,
    definition: TaskDefinitionArn,
    role_override: Option<RoleArn>,
    address: Option<Ipv4Addr>,
    ipv6_address: Option<Ipv6Addr>,
    launch_type: Option<String>,
    container_instance: Option<ContainerInstanceArn>,
    /// The described tags; `None`: the describe fails.
    tags: Option<Tags>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DefinitionInput {
    task_role: Option<RoleArn>,
    network_mode: Option<String>,
    #[serde(default)]
    containers: Vec<ContainerInput>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ContainerInput {
    name: String,
    #[serde(default)]
    docker_labels: Tags,
    #[serde(default)]
    ports: Vec<u16>,
    #[serde(default)]
    image: String,
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
}

impl ContainerInput {
    fn start(&self) -> ContainerStart<'_> {
        ContainerStart {
            image: &self.image,
            arguments: self.command.iter().map(String::as_str).collect(),
            environment: self.environment.iter().map(|(name, value)| (&**name, Some(&**value))).collect(),
            has_environment_files: false,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RoleInput {
    /// `None`: the role does not exist.
    tags: Option<Tags>,
    /// Number of equal reads, 10 s apart.
    reads: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct HostInput {
    address: Option<Ipv4Addr>,
    ipv6_address: Option<Ipv6Addr>,
}

/// Capabilities of the control plane.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct ServerSettings {
    version: String,
    health_discovery: bool,
    mesh_services: String,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self { version: "2.14.0".to_owned(), health_discovery: true, mesh_services: "Disabled".to_owned() }
    }
}

#[async_trait]
impl Transport for ServerSettings {
    async fn send(
        &self,
        _: HttpMethod,
        path: &str,
        _: Option<Vec<u8>>,
    ) -> Result<HttpResponse, TransportError> {
        let describe_finding = match path {
            "/" => json!({"product": "Kuma", "version": self.version}),
            "/config" => json!({"mode": "zone", "dpServer": {"hds": {"enabled": self.health_discovery}}}),
            _ if path.contains("services?") => json!({"total": 0, "items": []}),
            _ => json!({"meshServices": {"mode": self.mesh_services}}),
        };
        Ok(HttpResponse { status: 200, retry_after: None, body: describe_finding.to_string().into_bytes() })
    }
}

impl TaskInput {
    fn task(&self) -> Task {
        Task {
            arn: self.arn.clone(),
            version: 1,
            last_status: LastStatus::Running,
            desired_status: DesiredStatus::Running,
            group: TaskGroup::parse(&self.group),
            definition: self.definition.clone(),
            role_override: self.role_override.clone(),
            addresses: InterfaceAddresses::new(self.address, self.ipv6_address).unwrap(),
            host: TaskHost::of(
                self.launch_type.as_deref().unwrap_or_default(),
                self.container_instance.clone(),
            ),
            deployment: None,
            created_at: None,
            tags: None,
            stopped_containers: Box::default(),
        }
    }
}

impl DefinitionInput {
    fn definition(&self, arn: &TaskDefinitionArn) -> TaskDefinition {
        let container = |c: &ContainerInput| TaskContainer {
            name: c.name.clone(),
            docker_labels: c.docker_labels.clone(),
            ports: c.ports.clone(),
            essential: true,
            stop_timeout: None,
            sidecar_outbounds: c.start().kuma_sidecar().map(|sidecar| sidecar.outbounds()),
            sidecar_dataplane: c.start().kuma_sidecar().and_then(|sidecar| sidecar.dataplane()),
        };
        TaskDefinition {
            arn: arn.clone(),
            task_role: self.task_role.clone(),
            network_mode: self.network_mode.clone(),
            containers: self.containers.iter().map(container).collect(),
        }
    }
}

fn operator() -> OperatorId {
    OperatorId::parse("golden").unwrap()
}

fn load(manifests: &BTreeMap<String, Value>) -> Loaded {
    let directory = tempfile::tempdir().unwrap();
    let control_plane = json!({"type": "kuma", "kuma": {"address": "https://cp.internal:5682"}});
    let mut all = BTreeMap::from([("ControlPlane/kuma".to_owned(), control_plane)]);
    all.extend(manifests.clone());
    for (id, spec) in all {
        let (kind, name) = id.split_once('/').unwrap();
        let document = json!({
            "apiVersion": "ecs-mesh.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec,
        });
        fs::write(directory.path().join(format!("{kind}-{name}.json")), document.to_string()).unwrap();
    }
    ManifestSources::new([directory.path().to_owned()]).load(None).into_loaded().unwrap()
}

/// The verdict, and the facts that the evaluation asked for.
fn evaluate(
    case: &IntentCase,
    loaded: &Loaded,
    zone_proxies: Option<ZoneProxyForm>,
) -> (Evaluation, Vec<String>) {
    let operator = operator();
    let is_of_consul = loaded.set.control_planes.contains_key("consul");
    let kind = if is_of_consul { ControlPlaneType::Consul } else { ControlPlaneType::Kuma };
    let mut history = ManifestHistory::default();
    history.record(&loaded.set, true, Timestamp(0));
    let scope = Evaluator {
        manifests: &loaded.set,
        control_plane: kind.as_str(),
        kind,
        zone_proxies,
        operator: &operator,
        history: &history,
        // Long after the start, so that nothing settles.
        now: Timestamp(86_400_000),
    };
    let refused = || Reason::constant("access denied");
    let mut facts = TaskFacts { registered: case.registered, ..TaskFacts::default() };
    let (mut task, mut facts_read) = (case.task.task(), Vec::new());
    loop {
        let evaluation = scope.evaluate(&task, &facts);
        match &evaluation.verdict {
            Verdict::NeedsFact(MissingFact::Tags) => {
                facts_read.push("the task's tags".to_owned());
                match &case.task.tags {
                    Some(tags) => task.tags = Some(tags.clone().into()),
                    None => facts.tags_unknown = Some(refused()),
                }
            }
            Verdict::NeedsFact(MissingFact::Definition) => {
                facts_read.push("the task definition".to_owned());
                facts.definition = match &case.definition {
                    Some(input) => Fact::Known(Arc::new(input.definition(&task.definition))),
                    None => Fact::Unknown(refused()),
                };
            }
            Verdict::NeedsFact(MissingFact::Role(role)) => {
                facts_read.push(format!("the tags of {role}"));
                facts.role = match case.roles.get(role.as_str()) {
                    Some(RoleInput { tags, reads }) => {
                        Fact::Known(RoleTags { tags: tags.clone().map(Arc::new), confirmed: *reads > 1 })
                    }
                    None => Fact::Unknown(refused()),
                };
            }
            Verdict::NeedsFact(MissingFact::Host(instance)) => {
                facts_read.push(format!("the addresses of {instance}"));
                facts.host = match case.hosts.get(instance.as_str()) {
                    Some(HostInput { address, ipv6_address }) => {
                        Fact::Known(InterfaceAddresses::new(*address, *ipv6_address).unwrap())
                    }
                    None => Fact::Unknown(refused()),
                };
            }
            _ => return (evaluation, facts_read),
        }
        assert!(facts_read.len() <= 4, "the same facts are requested repeatedly: {facts_read:?}");
    }
}

/// The name and the value of the result: the body that is sent, or the refusal.
async fn rendered(
    case: &IntentCase,
    kuma: &KumaControlPlane<ServerSettings>,
    desired: &DesiredRegistration,
) -> (&'static str, Value) {
    kuma.refresh_capabilities(&[desired.id.mesh.clone()].into()).await.unwrap();
    if let Err(error) = kuma.check_desired(desired) {
        return ("refused", format!("{}: {}", error.kind.label(), error.message).into());
    }
    let create = kuma.render(desired, None);
    let name = match create.body["type"].as_str() {
        Some("ZoneIngress") => "zoneIngress",
        Some("ZoneEgress") => "zoneEgress",
        _ => "dataplane",
    };
    let Some(outbounds) = &case.registered_outbounds else { return (name, create.body) };
    let mut stored = create.body;
    stored["networking"]["outbound"] = outbounds.clone();
    let there = Registration {
        id: desired.id.clone(),
        cluster_name: None,
        owner: RegistrationOwner::Owned(desired.marks.clone()),
        service: None,
        created_at: None,
        drained: None,
        ready: None,
        has_writer_mark: true,
        normal: create.normal,
        stored,
    };
    (name, kuma.render(desired, Some(&there)).body)
}

async fn outcome(case: &IntentCase) -> Value {
    let loaded = load(&case.manifests);
    let kuma = KumaControlPlane::new(case.server.clone(), operator(), Arc::new(NoObserver));
    kuma.refresh_capabilities(&[].into()).await.unwrap();
    let (evaluation, facts_read) = evaluate(case, &loaded, kuma.zone_proxy_form());
    let mut out = Map::new();
    let findings = |findings: &[ManifestFinding]| {
        findings.iter().map(|f| describe_finding(f).into()).collect::<Vec<Value>>()
    };
    let mut add = |name: &str, value: Value| {
        if value.as_array().is_none_or(|list| !list.is_empty()) {
            out.insert(name.to_owned(), value);
        }
    };
    add("asked", facts_read.into());
    add("manifestErrors", findings(&loaded.errors).into());
    add("manifestWarnings", findings(&loaded.warnings).into());
    add(
        "warnings",
        evaluation.warnings.iter().map(|reason| reason.message.clone()).collect::<Vec<_>>().into(),
    );
    if evaluation.owner != DataplaneOwner::Operator {
        add("dataplaneOwner", evaluation.owner.as_str().into());
    }
    match &evaluation.verdict {
        Verdict::Register(desired) => {
            add("binding", (*desired.binding).into());
            let (name, value) = rendered(case, &kuma, desired).await;
            add(name, value);
        }
        Verdict::Admit => add("admitted", true.into()),
        Verdict::Reject { violations, confirmed, .. } => {
            let message: Vec<String> = violations.iter().map(ToString::to_string).collect();
            add("rejected", message.into());
            add("confirmed", (*confirmed).into());
        }
        Verdict::Hold(reason) => add("held", format!("{}: {reason}", reason.label()).into()),
        Verdict::Ignore(reason) => add("ignored", format!("{}: {reason}", reason.label()).into()),
        Verdict::NeedsFact(need) => panic!("{need:?} was given"),
    }
    out.into()
}

/// A finding without the path of the temporary file.
fn describe_finding(finding: &ManifestFinding) -> String {
    let subject = finding.subject.as_deref().unwrap_or_default();
    format!("{subject}: {}: {}", finding.path, finding.message)
}

/// Splits a file into input and result.
#[test]
fn each_intent_matches_its_golden_file() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_outcomes("intent", |case: &IntentCase| {
        serde_saphyr::to_string(&runtime.block_on(outcome(case))).unwrap()
    });
}

#[test]
fn every_golden_file_has_a_case_and_a_comment() {
    assert_comments("intent", 25);
}

//! Golden files of the dialects: each file of `tests/golden/dialects/` has a task's manifests and the versions of some
//! servers, and below the line `---` what each server is sent, or why it is sent nothing.
//! `UPDATE_GOLDEN=1 cargo test -p ecs-mesh-kuma --lib dialects` renews the results.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{TASK, operator};
use crate::{DRAIN_LABEL, HttpMethod, HttpResponse, KumaControlPlane, NoObserver, Transport, TransportError};
use ecs_mesh_api::manifests::{ManifestScope, ManifestSet, assemble, read_file};
use ecs_mesh_api::{ControlPlaneType, ZoneProxyForm};
use ecs_mesh_control_plane::{ControlPlane, Registration};
use ecs_mesh_core::intent::{
    DesiredRegistration, Evaluation, Evaluator, Fact, HoldReason, ManifestHistory, MissingFact, TaskFacts,
    Verdict,
};
use ecs_mesh_core::plan::DrainReason;
use ecs_mesh_model::{
    ContainerStart, DesiredStatus, InterfaceAddresses, LastStatus, MeshName, Reason, Task, TaskArn,
    TaskContainer, TaskDefinition, TaskDefinitionArn, TaskGroup, TaskHost, Timestamp,
};

const DEFINITION: &str = "arn:aws:ecs:eu-west-1:111122223333:task-definition/app:7";

/// The input, above the line.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DialectCase {
    /// The ECS service of the task.
    service: String,
    /// Versions, each with the `meshServices.mode` of the mesh if that is not `Disabled`, and `InboundTagsDisabled` after
    /// that where `KUMA_EXPERIMENTAL_INBOUND_TAGS_DISABLED` is set.
    servers: Vec<String>,
    /// Spec by `KIND/NAME`, beside those of the control plane and the binding.
    manifests: BTreeMap<String, Value>,
    /// `networking.outbound` of the task's registration, as the server returns it.
    registered_outbounds: Option<Value>,
    /// `reachableBackends` of the task's registration, as the server returns it.
    registered_backends: Option<Value>,
    /// The sidecar in the task definition.
    sidecar: Option<SidecarInput>,
    /// The task is registered, and its registration is drained.
    #[serde(default)]
    drained: bool,
}

/// The container definition of a sidecar.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct SidecarInput {
    image: String,
    entry_point: Vec<String>,
    command: Vec<String>,
    environment: BTreeMap<String, String>,
}

impl SidecarInput {
    fn container(&self) -> TaskContainer {
        let start = ContainerStart {
            image: &self.image,
            arguments: self.entry_point.iter().chain(&self.command).map(String::as_str).collect(),
            environment: self.environment.iter().map(|(name, value)| (&**name, Some(&**value))).collect(),
            has_environment_files: false,
        };
        let sidecar_outbounds = start.kuma_sidecar().map(|sidecar| sidecar.outbounds());
        TaskContainer { name: "sidecar".to_owned(), sidecar_outbounds, ..TaskContainer::default() }
    }
}

/// A server of one version, and the `meshServices.mode` of its mesh.
struct VersionedServer {
    version: String,
    mode: String,
    has_inbound_tags: bool,
}

impl VersionedServer {
    fn parse(text: &str) -> Self {
        let mut words = text.split(' ').map(str::to_owned);
        let version = words.next().unwrap();
        let mode = words.next().unwrap_or_else(|| "Disabled".to_owned());
        Self {
            version,
            mode,
            has_inbound_tags: words.next().is_none_or(|word| word != "InboundTagsDisabled"),
        }
    }
}

#[async_trait]
impl Transport for VersionedServer {
    async fn send(
        &self,
        _: HttpMethod,
        path: &str,
        _: Option<Vec<u8>>,
    ) -> Result<HttpResponse, TransportError> {
        let response = match path {
            "/" => json!({"product": "Kuma", "version": self.version}),
            "/config" => json!({
                "mode": "zone", "dpServer": {"hds": {"enabled": true}},
                "experimental": {"inboundTagsDisabled": !self.has_inbound_tags},
            }),
            _ if path.contains("/meshservices") => mesh_services(),
            // 3.0 has no such field.
            _ if self.version.starts_with('3') => json!({}),
            _ => json!({"meshServices": {"mode": self.mode}}),
        };
        Ok(HttpResponse { status: 200, retry_after: None, body: response.to_string().into_bytes() })
    }
}

fn mesh_services() -> Value {
    let service = |name: &str, port: u16| json!({"name": name, "spec": {"ports": [{"port": port}]}});
    json!({"items": [service("kv", 15_050), service("redis", 15_060)]})
}

fn manifests(case: &DialectCase) -> Arc<ManifestSet> {
    let mut all = BTreeMap::from([
        ("ControlPlane/kuma".to_owned(), json!({"type": "kuma", "kuma": {"address": "https://cp:5682"}})),
        (
            "MeshBinding/prod".to_owned(),
            json!({"controlPlane": "kuma", "selector": {"clusters": ["*"]}, "roleTags": {"mode": "off"}}),
        ),
    ]);
    all.extend(case.manifests.clone());
    let document = |(id, spec): (&String, &Value)| {
        let (kind, name) = id.split_once('/').unwrap();
        json!({"apiVersion": "ecs-mesh.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
            .to_string()
    };
    let text = all.iter().map(document).collect::<Vec<_>>().join("\n---\n");
    let (read, errors) = read_file(&Path::new("case.yaml").into(), &text);
    assert!(errors.is_empty(), "{errors:?}");
    let assembled = assemble(read, ManifestScope::Complete);
    Arc::new(ManifestSet { complete: true, ..assembled.set })
}

fn evaluate(case: &DialectCase, facts: &TaskFacts, zone_proxies: Option<ZoneProxyForm>) -> Evaluation {
    let task = format!("arn:aws:ecs:eu-west-1:111122223333:task/demo/{TASK}");
    let task = Task {
        arn: TaskArn::parse(&task).unwrap(),
        version: 1,
        last_status: LastStatus::Running,
        desired_status: DesiredStatus::Running,
        group: TaskGroup::parse(&format!("service:{}", case.service)),
        definition: TaskDefinitionArn::parse(DEFINITION).unwrap(),
        role_override: None,
        addresses: InterfaceAddresses::new(Some("10.0.1.7".parse().unwrap()), None).unwrap(),
        host: TaskHost::None,
        deployment: None,
        created_at: None,
        tags: None,
        stopped_containers: Box::default(),
    };
    let (manifests, operator) = (manifests(case), operator());
    let mut history = ManifestHistory::default();
    history.record(&manifests, true, Timestamp(0));
    let evaluator = Evaluator {
        manifests: &manifests,
        control_plane: "kuma",
        kind: ControlPlaneType::Kuma,
        zone_proxies,
        operator: &operator,
        history: &history,
        // Long after the start, so that nothing settles.
        now: Timestamp(86_400_000),
    };
    evaluator.evaluate(&task, facts)
}

/// The desired registration, with the warnings of its evaluation.
fn desired(case: &DialectCase, zone_proxies: Option<ZoneProxyForm>) -> (DesiredRegistration, Vec<String>) {
    let definition = TaskDefinition {
        arn: TaskDefinitionArn::parse(DEFINITION).unwrap(),
        task_role: None,
        network_mode: None,
        containers: case.sidecar.iter().map(SidecarInput::container).collect(),
    };
    let facts = TaskFacts { definition: Fact::Known(Arc::new(definition)), ..TaskFacts::default() };
    let evaluation = evaluate(case, &facts, zone_proxies);
    let warnings = evaluation.warnings.iter().map(ToString::to_string).collect();
    match evaluation.verdict {
        Verdict::Register(desired) => (*desired, warnings),
        other => panic!("the task is not to be registered: {other:?}"),
    }
}

/// Labels and networking of the body that the server is sent, or the refusal.
async fn outcome(case: &DialectCase, server: &str) -> Value {
    let kuma = KumaControlPlane::new(VersionedServer::parse(server), operator(), Arc::new(NoObserver));
    kuma.refresh_capabilities(&[MeshName::default()].into()).await.unwrap();
    let (desired, warnings) = desired(case, kuma.zone_proxy_form());
    if let Err(error) = kuma.check_desired(&desired) {
        return json!({"refused": format!("{}: {}", error.kind.label(), error.message)});
    }
    let created = kuma.render(&desired, None);
    let mut stored = created.body.clone();
    if let Some(outbounds) = &case.registered_outbounds {
        stored["networking"]["outbound"] = outbounds.clone();
    }
    if let Some(backends) = &case.registered_backends {
        stored["networking"]["transparentProxying"] = json!({"reachableBackends": backends});
    }
    let is_registered = case.registered_outbounds.is_some() || case.registered_backends.is_some();
    let current: Registration = match desired.id.zone_proxy() {
        Some((kind, _)) => crate::zone_proxy::registration(kind, stored).unwrap(),
        None => super::registration(stored),
    };
    let rendered = if case.drained {
        kuma.render_drained(&current, DrainReason::Stopping)
    } else if is_registered {
        kuma.render(&desired, Some(&current))
    } else {
        created
    };
    // Those of ownership are equal everywhere.
    let is_shown = |name: &str| !name.starts_with("ecs-mesh.dev/") || name == DRAIN_LABEL;
    let labels = rendered.body["labels"].as_object().unwrap().iter().filter(|(name, _)| is_shown(name));
    let labels: Map<String, Value> = labels.map(|(name, value)| (name.clone(), value.clone())).collect();
    let mut outcome = json!({"labels": labels, "networking": rendered.body["networking"]});
    if rendered.body["type"] != "Dataplane" {
        outcome["type"] = rendered.body["type"].clone();
    }
    if !warnings.is_empty() {
        outcome["warnings"] = warnings.into();
    }
    outcome
}

/// The outcomes, each with the servers that share it.
async fn outcomes(case: &DialectCase) -> Value {
    let mut found: Vec<(Vec<&str>, Value)> = Vec::new();
    for server in &case.servers {
        let outcome = outcome(case, server).await;
        match found.iter_mut().find(|(_, known)| *known == outcome) {
            Some((servers, _)) => servers.push(server),
            None => found.push((vec![server], outcome)),
        }
    }
    let shown = found.into_iter().map(|(servers, mut outcome)| {
        outcome["servers"] = servers.into();
        outcome
    });
    shown.collect::<Vec<_>>().into()
}

fn read_case(path: &Path) -> (String, DialectCase, Option<String>) {
    let text = std::fs::read_to_string(path).unwrap();
    let (above, below) =
        text.split_once("\n---\n").map_or((&*text, None), |(above, below)| (above, Some(below.to_owned())));
    let case = serde_saphyr::from_str(above).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    (above.trim_end().to_owned(), case, below)
}

fn paths() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/dialects");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[tokio::test]
async fn each_version_is_sent_what_its_golden_file_shows() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = String::new();
    for path in paths() {
        let (above, case, expected) = read_case(&path);
        let found = serde_saphyr::to_string(&outcomes(&case).await).unwrap();
        if update {
            std::fs::write(&path, format!("{above}\n---\n{found}")).unwrap();
        } else if expected.as_deref() != Some(&found) {
            let name = path.file_name().unwrap().display();
            writeln!(wrong, "{name}: expected\n{}\nfound\n{found}", expected.unwrap_or_default()).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}\nUPDATE_GOLDEN=1 renews the files; read the difference first");
}

#[test]
fn golden_files_pair_both_dialects_and_explain_themselves() {
    let (mut pairs, mut in_3_0) = (0, 0);
    for path in paths() {
        let (above, case, _) = read_case(&path);
        assert!(above.starts_with("# "), "{} has no comment", path.display());
        let majors: BTreeSet<&str> = case.servers.iter().filter_map(|server| server.get(..1)).collect();
        assert!(majors.contains("3"), "{} has no server of 3.x", path.display());
        pairs += case.servers.len();
        in_3_0 += case.servers.iter().filter(|server| server.starts_with('3')).count();
    }
    assert!(pairs >= 40 && in_3_0 >= 15, "only {pairs} pairs are left, {in_3_0} of them with 3.x");
}

#[test]
fn zone_proxy_is_held_until_the_version_is_known() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/dialects");
    let verdict = |file: &str| {
        let (_, case, _) = read_case(&folder.join(file));
        // Else the definition is asked for first.
        let definition = Fact::Unknown(Reason::constant("access denied"));
        evaluate(&case, &TaskFacts { definition, ..TaskFacts::default() }, None).verdict
    };
    assert!(matches!(verdict("zone-ingress.yaml"), Verdict::Hold(HoldReason::Unknown(_))));
    assert!(matches!(verdict("zone-ingress-of-a-mesh.yaml"), Verdict::Register(_)), "the scope decides");
    assert!(matches!(verdict("gateway.yaml"), Verdict::Register(_)));
}

/// The registration may be that of a sidecar with a template, or may lose its listeners.
#[test]
fn unreadable_definition_holds_a_registration() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/dialects");
    let verdict = |file: &str, definition, registered| {
        let (_, case, _) = read_case(&folder.join(file));
        let facts = TaskFacts { definition, registered, ..TaskFacts::default() };
        evaluate(&case, &facts, Some(ZoneProxyForm::default())).verdict
    };
    let unknown = || Fact::Unknown(Reason::constant("access denied"));
    let binding = "bind-without-the-flag.yaml";
    assert_eq!(verdict(binding, Fact::NotAsked, false), Verdict::NeedsFact(MissingFact::Definition));
    let held = Reason::constant("access denied").with_prefix("the task definition");
    for file in [binding, "listeners-with-the-flag.yaml"] {
        assert_eq!(
            verdict(file, unknown(), true),
            Verdict::Hold(HoldReason::Unknown(held.clone())),
            "{file}"
        );
        assert!(
            matches!(verdict(file, unknown(), false), Verdict::Register(_)),
            "{file}: it has none to lose"
        );
    }
}

//! Audits of running tasks: task definitions and roles from the sandbox's AWS, and a fake Consul on loopback.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use ecs_mesh_model::{Tags, Timestamp};
use ecs_mesh_operator::sandbox::manifest_options;
use ecs_mesh_sandbox::aws::{AwsFault, AwsFaults, Cloud, CreateRole, CreateService, RegisterTaskDefinition};
use ecs_mesh_sandbox::control_planes::ControlPlanes;
use ecs_mesh_sandbox::endpoints::{EndpointOptions, Endpoints};
use ecs_mesh_sandbox::world::{Naming, Rollouts, World, WorldConfig, consul_auth, manifests};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::{AuditRun, audit, root};

const TOKEN: &str = "planted-in-consuls-token";
const ANONYMOUS_POLICY: &str = "/v1/acl/policy/name/anonymous-token-policy";

fn policy(rules: &str) -> Value {
    json!({"ID": "p", "Name": "anonymous-token-policy", "Rules": rules})
}

/// Denies one operation.
#[derive(Default)]
struct RefuseAuditCall(Mutex<Option<&'static str>>);

impl AwsFaults for RefuseAuditCall {
    fn decide(&self, service: &str, operation: &str) -> AwsFault {
        let refused = *self.0.lock().unwrap();
        let is_it = refused == Some(&*format!("{service}:{operation}"));
        if is_it { AwsFault::AccessDenied } else { AwsFault::None }
    }
}

/// The fake Consul's responses by path.
type FakeConsulResponses = Arc<Mutex<BTreeMap<String, Value>>>;

struct AuditSetup {
    endpoints: Endpoints,
    refusing: Arc<RefuseAuditCall>,
    consul: FakeConsulResponses,
    role: String,
    directory: TempDir,
    environment: BTreeMap<String, String>,
}

impl AuditSetup {
    /// A correctly configured running service with a matching Consul.
    async fn new() -> Self {
        let refusing = Arc::new(RefuseAuditCall::default());
        let endpoints = Endpoints::start(EndpointOptions {
            aws_faults: Arc::clone(&refusing) as _,
            ..EndpointOptions::default()
        })
        .await
        .unwrap();
        let cluster = endpoints.cluster.clone();
        let role = endpoints.with(|cloud, _, now| deploy(cloud, &cluster, now));
        let account = role.split(':').nth(4).unwrap();
        let consul = Arc::new(Mutex::new(answers(account, &cluster)));
        let address = serve(Arc::clone(&consul)).await;
        let directory = TempDir::new().unwrap();
        let manifests = format!(
            "apiVersion: ecs-mesh.dev/v1alpha1\nkind: ControlPlane\nmetadata: {{name: consul}}\n\
             spec: {{type: consul, consul: {{address: '{address}', tokenEnv: CONSUL_TOKEN}}}}\n---\n\
             apiVersion: ecs-mesh.dev/v1alpha1\nkind: MeshBinding\nmetadata: {{name: here}}\n\
             spec: {{controlPlane: consul, selector: {{clusters: ['{cluster}']}}}}\n"
        );
        std::fs::write(directory.path().join("mesh.yaml"), manifests).unwrap();
        let mut environment: BTreeMap<String, String> =
            endpoints.environment().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        environment.insert("CONSUL_TOKEN".to_owned(), TOKEN.to_owned());
        let setup = Self { endpoints, refusing, consul, role, directory, environment };
        setup.tasks_run().await;
        setup
    }

    async fn tasks_run(&self) {
        let end = std::time::Instant::now() + Duration::from_mins(1);
        while self.endpoints.with(|cloud, _, _| cloud.all_tasks().count()) < 1 {
            assert!(std::time::Instant::now() < end, "the service has no tasks");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn audit(&self, arguments: &[&str]) -> AuditRun {
        let run = audit(&self.environment, self.directory.path(), arguments).await;
        assert!(!run.out.contains(TOKEN) && !run.err.contains(TOKEN), "{}\n{}", run.out, run.err);
        run
    }

    async fn report(&self) -> AuditRun {
        self.audit(&["--manifests", "mesh.yaml", "--output", "json"]).await
    }

    fn role_name(&self) -> &str {
        self.role.rsplit('/').next().unwrap()
    }

    fn set_response(&self, path: &str, answer: Value) {
        self.consul.lock().unwrap().insert(path.to_owned(), answer);
    }
}

fn deploy(cloud: &mut Cloud, cluster: &str, now: Timestamp) -> String {
    let tags = Tags::from([("consul.hashicorp.com.service-name".to_owned(), "kv".to_owned())]);
    let request = CreateRole { path: "/consul-ecs/".to_owned(), ..CreateRole::for_tasks("kv-task", tags) };
    let role = cloud.create_role(request, now).unwrap();
    let itself = json!({"Statement": {"Effect": "Allow", "Action": "iam:GetRole", "Resource": role.arn}});
    cloud.put_role_policy("kv-task", "itself", &itself.to_string()).unwrap();
    let file = std::fs::read_to_string(root().join("tests/fixtures/audit/good.json")).unwrap();
    let mut definition: RegisterTaskDefinition = serde_json::from_str(&file).unwrap();
    definition.task_role_arn = Some(role.arn.clone());
    let arn = cloud.register_task_definition(definition, now).unwrap().arn.clone();
    let tags = Tags::from([("consul.hashicorp.com/mesh".to_owned(), "true".to_owned())]);
    let service = CreateService::awsvpc(cluster, "kv", &arn, 1);
    cloud.create_service(with_tags(service, tags), now).unwrap();
    role.arn
}

/// Propagates the service's tags to its tasks.
fn with_tags(service: CreateService, tags: Tags) -> CreateService {
    CreateService { tags, propagate_tags: Some("SERVICE".to_owned()), ..service }
}

fn answers(account: &str, cluster: &str) -> BTreeMap<String, Value> {
    let tag = "consul.hashicorp.com.service-name";
    let method = json!({
        "Name": "iam-ecs-service-token",
        "Type": "aws-iam",
        "Config": {
            "BoundIAMPrincipalARNs": [format!("arn:aws:iam::{account}:role/consul-ecs/*")],
            "EnableIAMEntityDetails": true,
            "IAMEntityTags": [tag],
        },
    });
    let rule = json!({
        "ID": "80ed510d-827d-934f-cb18-3db0f97ab866",
        "AuthMethod": "iam-ecs-service-token",
        "Selector": "",
        "BindType": "service",
        "BindName": format!("${{entity_tags.{tag}}}"),
    });
    let anonymous = "/v1/acl/token/00000000-0000-0000-0000-000000000002";
    [
        ("/v1/agent/self", json!({"Config": {"Version": "1.21.4"}})),
        ("/v1/acl/auth-methods", json!([{"Name": "iam-ecs-service-token", "Type": "aws-iam"}])),
        ("/v1/acl/auth-method/iam-ecs-service-token", method),
        ("/v1/acl/binding-rules", json!([rule])),
        ("/v1/acl/roles", json!([])),
        (anonymous, json!({"Policies": [{"ID": "p", "Name": "anonymous-token-policy"}]})),
        (ANONYMOUS_POLICY, policy("node_prefix \"\" { policy = \"read\" }")),
        ("/v1/catalog/nodes", json!([{"Node": cluster, "Address": "127.0.0.1"}])),
    ]
    .into_iter()
    .map(|(path, answer)| (path.to_owned(), answer))
    .collect()
}

async fn serve(consul: FakeConsulResponses) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let app = axum::Router::new().fallback(answer).with_state(consul);
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

async fn answer(
    State(consul): State<FakeConsulResponses>,
    headers: axum::http::HeaderMap,
    uri: Uri,
) -> Response {
    if headers.get("x-consul-token").is_none_or(|token| token != TOKEN) {
        return (StatusCode::FORBIDDEN, "ACL not found").into_response();
    }
    match consul.lock().unwrap().get(uri.path()) {
        Some(answer) => ([("content-type", "application/json")], answer.to_string()).into_response(),
        None => (StatusCode::NOT_FOUND, "not there").into_response(),
    }
}

#[tokio::test]
async fn correct_setup_has_no_finding() {
    let setup = AuditSetup::new().await;
    let run = setup.report().await;
    assert_eq!((run.code, run.found()), (Some(0), vec![]), "{}\n{}", run.out, run.err);
    assert_eq!(run.json()["summary"]["definitions"], 1);
}

#[tokio::test]
async fn demo_world_passes_its_own_audit() {
    let endpoints = Endpoints::start(EndpointOptions {
        control_planes: ControlPlanes::Both,
        ..EndpointOptions::default()
    })
    .await
    .unwrap();
    // The world's own events, such as a revoked role, come later.
    let never = (Duration::from_hours(1), Duration::from_hours(1));
    let config = WorldConfig {
        tasks: 12,
        seed: 7,
        interval: never,
        naming: Naming::TaskId,
        control_planes: ControlPlanes::Both,
        revoked_for: never,
        rollouts: Rollouts::Simple,
        host_mode: false,
    };
    let bootstrap = &endpoints.consul.as_ref().unwrap().bootstrap;
    let services = endpoints.with_all(|cloud, kuma, consul, now| {
        let mut world = World::start(config, cloud, kuma, now).unwrap();
        world.join_consul(bootstrap, cloud, consul.unwrap(), now).unwrap();
        world.services().to_vec()
    });
    let options = manifest_options(&endpoints, "tokenEnv: CONSUL_HTTP_TOKEN");
    let text = manifests(&options, &services) + &consul_auth(&endpoints.cluster, &endpoints.aws_url);
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("mesh.yaml"), text).unwrap();
    let end = std::time::Instant::now() + Duration::from_mins(1);
    // The services' tasks, and the batch task.
    while endpoints.with(|cloud, _, _| cloud.all_tasks().count()) < 13 {
        assert!(std::time::Instant::now() < end, "the services have no tasks");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let environment: BTreeMap<String, String> =
        endpoints.environment().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let arguments = ["--manifests", "mesh.yaml", "--cluster", &endpoints.cluster, "--output", "json"];
    let run = audit(&environment, directory.path(), &arguments).await;
    assert_eq!((run.code, run.found()), (Some(0), vec![]), "{}\n{}", run.out, run.err);
    assert!(run.json()["summary"]["definitions"].as_u64() >= Some(services.len() as u64), "{}", run.out);
}

#[tokio::test]
async fn audit_finds_misconfigured_running_tasks() {
    let setup = AuditSetup::new().await;
    setup.endpoints.with(|cloud, _, now| {
        let tag = ["consul.hashicorp.com.service-name".to_owned()];
        cloud.untag_role(setup.role_name(), &tag, now).unwrap();
        cloud.delete_role_policy(setup.role_name(), "itself").unwrap();
    });
    setup.set_response(ANONYMOUS_POLICY, policy("service_prefix \"\" { policy = \"write\" }"));
    setup.set_response("/v1/agent/self", json!({"Config": {"Version": "1.11.2"}}));
    let run = setup.report().await;
    let rules: Vec<String> = run.found().into_iter().map(|(rule, _)| rule).collect();
    let wanted = [
        "CONSUL-ANONYMOUS-POWER",
        "CONSUL-ROLE-GET-ROLE",
        "CONSUL-ROLE-TAG-SERVICE",
        "CONSUL-SERVER-VERSION",
    ];
    assert_eq!((run.code, rules), (Some(1), wanted.map(str::to_owned).to_vec()), "{}", run.out);
    let role = &run.json()["findings"][2];
    assert_eq!(role["location"]["resource"], setup.role);
}

#[tokio::test]
async fn denied_aws_call_is_unknown_and_hides_nothing_else() {
    let setup = AuditSetup::new().await;
    for (refused, rule) in [
        ("iam:SimulatePrincipalPolicy", "CONSUL-ROLE-GET-ROLE"),
        ("iam:GetRole", "ROLE-UNREADABLE"),
        ("ecs:DescribeTaskDefinition", "TASK-DEFINITION-UNREADABLE"),
        ("ecs:ListTasks", "AUDIT-AWS-NO-ANSWER"),
        ("ecs:ListServices", "AUDIT-AWS-NO-ANSWER"),
        ("iam:GetAccountAuthorizationDetails", "MESH-TAGS-UNRESTRICTED"),
    ] {
        *setup.refusing.0.lock().unwrap() = Some(refused);
        let run = setup.report().await;
        assert_eq!((run.code, run.has(rule, "unknown")), (Some(2), true), "{refused}: {}", run.out);
    }
}

#[tokio::test]
async fn file_is_audited_against_live_roles_and_consul() {
    let setup = AuditSetup::new().await;
    let text = std::fs::read_to_string(root().join("tests/fixtures/audit/good.json")).unwrap();
    let mut definition: Value = serde_json::from_str(&text).unwrap();
    definition["taskRoleArn"] = json!(setup.role.replace("kv-task", "none"));
    std::fs::write(setup.directory.path().join("kv.json"), definition.to_string()).unwrap();
    let run =
        setup.audit(&["--manifests", "mesh.yaml", "--task-definition", "kv.json", "--output", "json"]).await;
    assert_eq!(run.found(), [("ROLE-MISSING".to_owned(), "error".to_owned())], "{}", run.out);
    assert_eq!(run.json()["findings"][0]["location"]["file"], "kv.json");
}

#[tokio::test]
async fn consul_rejecting_the_token_is_unknown() {
    let mut setup = AuditSetup::new().await;
    setup.environment.insert("CONSUL_TOKEN".to_owned(), "another".to_owned());
    let run = setup.report().await;
    assert_eq!(run.code, Some(2), "{}", run.out);
    assert!(run.has("AUDIT-CONTROL-PLANE-NO-ANSWER", "unknown"), "{}", run.out);
}

#[tokio::test]
async fn outbounds_are_compared_with_running_upstreams() {
    let setup = AuditSetup::new().await;
    let with = |service: &str, port: u16| {
        let path = setup.directory.path().join("more.yaml");
        let text = format!(
            "apiVersion: ecs-mesh.dev/v1alpha1\nkind: Workload\nmetadata: {{name: kv}}\n\
             spec: {{selector: {{services: [kv]}}, service: kv}}\n---\n\
             apiVersion: ecs-mesh.dev/v1alpha1\nkind: OutboundList\nmetadata: {{name: dbs}}\n\
             spec: {{workloads: [kv], outbounds: [{{service: {service}, targetPort: 5432, listen: {{port: {port}}}}}]}}\n"
        );
        std::fs::write(path, text).unwrap();
    };
    let arguments = ["--manifests", "mesh.yaml", "more.yaml", "--output", "json"];
    with("db", 5432);
    let run = setup.audit(&arguments).await;
    assert_eq!((run.code, run.found()), (Some(0), vec![]), "{}", run.out);
    with("cache", 6379);
    let run = setup.audit(&arguments).await;
    let rules: Vec<String> = run.found().into_iter().map(|(rule, _)| rule).collect();
    assert_eq!(rules, ["CONSUL-OUTBOUND-UNREACHED", "CONSUL-UPSTREAM-UNLISTED"], "{}", run.out);
    assert_eq!(run.code, Some(2));
    let at = run.json()["findings"][0]["location"]["resource"].as_str().unwrap().to_owned();
    assert!(at.contains(":task-definition/kv:"), "{at}");
}

//! The lifecycle of a task at Consul: plan and run of the program, login by the task role, and clean-up after the stop.
//! Runs against the sandbox's Consul and the one that `CONSUL_BIN` names (1.12 or later).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use ecs_mesh_model::Tags;
use ecs_mesh_sandbox::aws::{AssumeRole, AssumedRole, CloudConfig, CreateRole};
use ecs_mesh_sandbox::consul::{EntityDetails, SignedLogin};
use ecs_mesh_sandbox::endpoints::{EndpointOptions, Endpoints};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::fixture::IdentityFixture;
use super::{MANAGEMENT, consul_with_account};
use crate::consul_real::server::{self, Acls, ConsulRelease, RealConsul};
use crate::e2e::harness::{OperatorProcess, eventually};

const METHOD: &str = "iam-ecs-service-token";

async fn aws() -> Endpoints {
    // Another test may have installed the provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Endpoints::start(EndpointOptions::default()).await.unwrap()
}

#[tokio::test]
async fn emulated_consul_task_lifecycle() {
    let aws = aws().await;
    let url = consul_with_account(&aws).await;
    check_lifecycle(&aws, &url, MANAGEMENT).await;
}

#[tokio::test]
async fn real_consul_task_lifecycle() {
    let what = "task lifecycle at a real Consul 1.12 or later";
    let Some(consul) = RealConsul::start(ConsulRelease::Newer, what, Acls::On).await else { return };
    check_lifecycle(&aws().await, consul.url(), server::MANAGEMENT).await;
}

struct ConsulEcsProgram<'a> {
    directory: &'a TempDir,
    environment: BTreeMap<String, String>,
}

impl ConsulEcsProgram<'_> {
    fn start(&self, name: &str, arguments: &[&str]) -> OperatorProcess {
        let manifests = self.directory.path().join("manifests");
        let mut all = vec![arguments[0], "--operator-id", "op", "--manifests", manifests.to_str().unwrap()];
        all.extend(&arguments[1..]);
        OperatorProcess::start(self.directory.path(), name, &self.environment, &all)
    }

    /// Runs `plan` and returns the exit code and the changes of ACL objects.
    async fn plan(&self, name: &str) -> (Option<i32>, BTreeSet<String>) {
        let mut process = self.start(name, &["plan", "--output", "json"]);
        let code = process.code().await;
        let plan: Value = serde_json::from_str(&process.stdout()).unwrap();
        let items = plan["changes"].as_array().unwrap().iter().filter(|item| !item["kind"].is_null());
        (code, items.map(|item| format!("{} {}", text(&item["change"]), text(&item["name"]))).collect())
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

async fn check_lifecycle(aws: &Endpoints, url: &str, management: &str) {
    let (fixture, directory) = (IdentityFixture::at(url, management), TempDir::new().unwrap());
    let account = CloudConfig::default().account;
    std::fs::write(directory.path().join("token"), management).unwrap();
    create_objects(aws, url, &directory, &account, &json!({}));
    let environment = aws.environment().into_iter().map(|(name, value)| (name.to_owned(), value));
    let program = ConsulEcsProgram { directory: &directory, environment: environment.collect() };

    let (code, planned) = program.plan("plan").await;
    assert_eq!((code, planned.len()), (Some(2), 11), "{planned:#?}");
    let queue = aws.queue_url();
    let operator = program.start("run", &["run", "--queue-url", &queue, "--log-format", "json"]);
    let audited = eventually("all that was planned, done", || async {
        let lines = operator.lines(&[("target", "audit"), ("kind", "")]);
        (lines.len() >= 11).then_some(lines)
    })
    .await;
    let done = audited.iter().map(|line| format!("{} {}", text(&line["change"]), text(&line["name"])));
    assert_eq!(done.collect::<BTreeSet<_>>(), planned);
    for line in &audited {
        assert_eq!((text(&line["operator"]), text(&line["result"])), ("op", "success"), "{line}");
        assert!(
            ["version", "control_plane", "reason"].iter().all(|field| !text(&line[*field]).is_empty()),
            "{line}"
        );
    }
    let (code, planned) = program.plan("plan-again").await;
    assert_eq!((code, planned), (Some(0), BTreeSet::new()));
    assert_corrected(&fixture, &operator, &account).await;
    create_objects(aws, url, &directory, &account, &json!({"tokenTtl": "2h"}));
    eventually("a changed manifest, in force", || async {
        let method = fixture.get(&format!("/v1/acl/auth-method/{METHOD}")).await;
        (method["MaxTokenTTL"] == "2h0m0s").then_some(())
    })
    .await;
    operator
        .line(&[
            ("target", "audit"),
            ("change", "update"),
            ("kind", "auth_method"),
            ("fields", "MaxTokenTTL"),
        ])
        .await;

    let task = deploy(aws, &account).await;
    let accessor = log_in(aws, url, &account, &task).await;
    let token = format!("/v1/acl/token/{accessor}");
    let services = format!("/v1/catalog/node-services/{}", aws.cluster.replace('/', "%2F"));
    assert_eq!(fixture.get(&token).await["ServiceIdentities"][0]["ServiceName"], "web");
    assert_eq!(fixture.get(&services).await["Services"].as_array().unwrap().len(), 1);

    let ecs = aws_sdk_ecs::Client::new(&crate::sandbox_aws::sdk(&aws.aws_url));
    ecs.update_service().cluster("sandbox").service("web").desired_count(0).send().await.unwrap();
    eventually("the task's token and service, gone", || async {
        let is_gone = fixture.ask("GET", &token, None).await.is_none();
        let services = fixture.get(&services).await;
        (is_gone && services["Services"].as_array().is_none_or(Vec::is_empty)).then_some(())
    })
    .await;
    // The node and the other objects remain.
    assert_eq!(program.plan("plan-at-last").await, (Some(0), BTreeSet::new()));
    assert!(!operator.stderr().contains(management), "no secret in the log");
}

/// Checks that a running operator corrects foreign changes repeatedly.
async fn assert_corrected(fixture: &IdentityFixture, operator: &OperatorProcess, account: &str) {
    const SERVICE: &str = "${entity_tags.consul.hashicorp.com.service-name}";
    let path = format!("/v1/acl/auth-method/{METHOD}");
    for time in 1..=2 {
        let rule = fixture.rule_for(SERVICE).await;
        fixture.delete(&format!("/v1/acl/binding-rule/{}", text(&rule["ID"]))).await;
        let mut method = fixture.get(&path).await;
        let foreign = json!("arn:aws:iam::999999999999:role/*");
        method["Config"]["BoundIAMPrincipalARNs"].as_array_mut().unwrap().push(foreign);
        fixture.put("/v1/acl/auth-method", &method).await;
        eventually("the rule and the principals, as declared", || async {
            let rules = fixture.get("/v1/acl/binding-rules").await;
            let is_there = rules.as_array()?.iter().any(|rule| rule["BindName"] == SERVICE);
            let bound = fixture.get(&path).await["Config"]["BoundIAMPrincipalARNs"].clone();
            (is_there && bound == json!([principals(account)])).then_some(())
        })
        .await;
        eventually("a line in the audit trail for each", || async {
            let made = operator.lines(&[
                ("target", "audit"),
                ("change", "create"),
                ("name", &format!("{METHOD}/service")),
            ]);
            let changed = operator.lines(&[
                ("target", "audit"),
                ("change", "update"),
                ("fields", "BoundIAMPrincipalARNs"),
            ]);
            // The first line is the rule's creation.
            (made.len() == time + 1 && changed.len() == time).then_some(())
        })
        .await;
    }
}

fn principals(account: &str) -> String {
    format!("arn:aws:iam::{account}:role/consul-ecs/*")
}

/// Writes the manifests; `more` are further fields of `serviceTokens`.
fn create_objects(aws: &Endpoints, url: &str, directory: &TempDir, account: &str, more: &Value) {
    let token = directory.path().join("token");
    let mut logins = json!({
        "boundPrincipals": [principals(account)],
        "gateways": ["mesh-gateway", "terminating-gateway", "api-gateway"],
        "stsEndpoint": aws.aws_url, "iamEndpoint": aws.aws_url,
    });
    logins.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let documents = [
        ("ControlPlane", json!({"type": "consul", "consul": {"address": url, "tokenFile": token}})),
        (
            "MeshBinding",
            json!({
                "controlPlane": "consul", "mesh": "default", "selector": {"clusters": [aws.cluster]},
                "cleanup": {"sweepInterval": "10s"},
            }),
        ),
        ("ConsulAuth", json!({"controlPlane": "consul", "serviceTokens": logins})),
    ];
    let mut text = String::new();
    for (kind, spec) in documents {
        let document = json!({
            "apiVersion": "ecs-mesh.dev/v1alpha1", "kind": kind, "metadata": {"name": "consul"}, "spec": spec,
        });
        let _ = writeln!(text, "---\n{document}");
    }
    std::fs::create_dir_all(directory.path().join("manifests")).unwrap();
    std::fs::write(directory.path().join("manifests/all.yaml"), text).unwrap();
}

/// Starts a task whose role may log in and returns its id.
async fn deploy(aws: &Endpoints, account: &str) -> String {
    let tags: Tags =
        [("consul.hashicorp.com.service-name".to_owned(), "web".to_owned())].into_iter().collect();
    aws.with(|cloud, _, now| {
        let role = CreateRole { path: "/consul-ecs/".to_owned(), ..CreateRole::for_tasks("web", tags) };
        cloud.create_role(role, now).map(drop).unwrap();
    });
    let ecs = aws_sdk_ecs::Client::new(&crate::sandbox_aws::sdk(&aws.aws_url));
    let app =
        aws_sdk_ecs::types::ContainerDefinition::builder().name("app").image("app:1").memory(128).build();
    ecs.register_task_definition()
        .family("web")
        .network_mode(aws_sdk_ecs::types::NetworkMode::Awsvpc)
        .task_role_arn(format!("arn:aws:iam::{account}:role/consul-ecs/web"))
        .container_definitions(app)
        .send()
        .await
        .unwrap();
    let request = ecs.create_service().cluster("sandbox").service_name("web").task_definition("web");
    request
        .desired_count(1)
        .launch_type(aws_sdk_ecs::types::LaunchType::Fargate)
        .network_configuration(crate::e2e::harness::awsvpc())
        .send()
        .await
        .unwrap();
    eventually("a task that runs", || async {
        let listed = ecs.list_tasks().cluster("sandbox").send().await.ok()?;
        let arn = listed.task_arns().first()?.clone();
        let described = ecs.describe_tasks().cluster("sandbox").tasks(&arn).send().await.ok()?;
        let runs = described.tasks().first()?.last_status() == Some("RUNNING");
        runs.then(|| arn.rsplit('/').next().unwrap_or_default().to_owned())
    })
    .await
}

/// Logs in and registers as the task, and returns the token's accessor.
async fn log_in(aws: &Endpoints, url: &str, account: &str, task: &str) -> String {
    let (credentials, now): (AssumedRole, _) = aws.with(|cloud, _, now| {
        let role_arn = format!("arn:aws:iam::{account}:role/consul-ecs/web");
        let request = AssumeRole { role_arn, session_name: "task".into(), ..AssumeRole::default() };
        (cloud.assume_role(&request, now).unwrap(), now)
    });
    let login = SignedLogin {
        auth_method: METHOD,
        credentials: &credentials,
        region: aws.region(),
        sts_endpoint: Some(&aws.aws_url),
        iam_endpoint: Some(&aws.aws_url),
        server_id: None,
        entity: EntityDetails::Own,
        meta: &[("consul.hashicorp.com/cluster", &aws.cluster), ("consul.hashicorp.com/task-id", task)],
    };
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = http.post(format!("{url}/v1/acl/login")).body(login.request(now).unwrap().body);
    let answer = answer.send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    let token: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    let service = json!({
        "Node": aws.cluster, "Address": "127.0.0.1", "SkipNodeUpdate": true,
        "Service": {
            "ID": format!("web-{task}"), "Service": "web", "Port": 9090,
            "Meta": {"source": "consul-ecs", "task-id": task},
        },
    });
    let answer = http.put(format!("{url}/v1/catalog/register")).body(service.to_string());
    let answer = answer.header("X-Consul-Token", text(&token["SecretID"])).send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    text(&token["AccessorID"]).to_owned()
}

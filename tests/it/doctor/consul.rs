//! Consul control planes: each requirement of tasks and operator, broken once; and the printed ACL policy, which is
//! sufficient and minimal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use ecs_mesh_api::ConsulConnection;
use ecs_mesh_consul::{AuthMethod, ClusterNode, ConsulControlPlane};
use ecs_mesh_control_plane::http::HttpTransport;
use ecs_mesh_control_plane::{ControlPlane as _, NoObserver, list_owned};
use ecs_mesh_controller::NoSecrets;
use ecs_mesh_model::{ClusterArn, OperatorId};
use ecs_mesh_sandbox::consul::http::{ConsulFront, NoConsulFaults, serve};
use ecs_mesh_sandbox::consul::{ConsulConfig, ConsulRequest, ConsulServer};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{
    AWS_SECRET, DoctorRun, DoctorSetup, assert_found, catalogue, document, now, run_doctor, silent, website,
};

const MANAGEMENT: &str = "6f7b0c5e-2d11-4c7a-9a55-4f0c8e5a1d20";
const METHOD: &str = "iam-ecs-service-token";
const AUTH: &str = "{controlPlane: consul, serviceTokens: {boundPrincipals: ['arn:aws:iam::111122223333:role/consul-ecs/*']}}";
/// A token of no object.
const UNKNOWN: &str = "00000000-dead-beef-0000-000000000000";

/// A setup with a Consul that accepts tasks' logins, and an operator token with minimal permissions.
struct ConsulSetup {
    setup: DoctorSetup,
    front: ConsulFront,
    url: String,
    rule: String,
}

async fn server(config: ConsulConfig) -> (ConsulFront, String) {
    let config = ConsulConfig { management_token: Some(MANAGEMENT.to_owned()), ..config };
    let server = Arc::new(Mutex::new(ConsulServer::new(config, now())));
    let refused = Arc::new(|_: &_| Err("no account".to_owned()));
    let front = ConsulFront::new(server, refused, Arc::new(NoConsulFaults), Arc::new(now));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(serve(listener, front.clone(), std::future::pending()));
    (front, url)
}

fn put(front: &ConsulFront, path: &str, body: &Value) -> Value {
    call(front, "PUT", path, body)
}

fn call(front: &ConsulFront, method: &str, path: &str, body: &Value) -> Value {
    let request = ConsulRequest::new(method, path, Some(MANAGEMENT), body);
    let response = front.with(|server, now| server.handle(now, &request));
    assert_eq!(response.status, 200, "{method} {path}: {}", String::from_utf8_lossy(&response.body));
    response.json()
}

/// Creates a token with these rules and returns its secret.
fn token(front: &ConsulFront, name: &str, rules: &str) -> String {
    let policy = put(front, "/v1/acl/policy", &json!({"Name": name, "Rules": rules}));
    let token = json!({"Description": name, "Policies": [{"ID": policy["ID"]}]});
    put(front, "/v1/acl/token", &token)["SecretID"].as_str().unwrap().to_owned()
}

impl ConsulSetup {
    async fn new() -> Self {
        let setup = DoctorSetup::new().await;
        let (front, url) = server(ConsulConfig::default()).await;
        let method = json!({"Name": METHOD, "Type": "aws-iam", "Config": {
            "BoundIAMPrincipalARNs": ["arn:aws:iam::111122223333:role/consul-ecs/*"],
            "EnableIAMEntityDetails": true,
            "IAMEntityTags": ["consul.hashicorp.com.service-name"],
        }});
        put(&front, "/v1/acl/auth-method", &method);
        let rule = json!({"AuthMethod": METHOD, "BindType": "service",
            "BindName": "${entity_tags.consul.hashicorp.com.service-name}"});
        let rule = put(&front, "/v1/acl/binding-rule", &rule)["ID"].as_str().unwrap().to_owned();
        let node = json!({"Node": setup.endpoints.cluster, "Address": "127.0.0.1",
            "NodeMeta": {"synthetic-node": "true"}});
        put(&front, "/v1/catalog/register", &node);
        let harness = Self { setup, front, url, rule };
        harness.manifests(&harness.url, "", &document("ConsulAuth", "ecs", AUTH));
        let secret = token(&harness.front, "operator", &harness.printed().await);
        harness.token(&secret);
        harness.manifests(&harness.url, "", "");
        harness
    }

    /// `more` are further fields of `spec.consul`, and `documents` further manifests.
    fn manifests(&self, address: &str, more: &str, documents: &str) {
        let file = self.setup.directory.path().join("token");
        let with_token = format!(", tokenFile: '{}'{more}", file.display());
        self.manifests_without_token(address, &with_token, documents);
    }

    fn manifests_without_token(&self, address: &str, more: &str, documents: &str) {
        let cluster = &self.setup.endpoints.cluster;
        let text = [
            document(
                "ControlPlane",
                "consul",
                &format!("{{type: consul, consul: {{address: '{address}'{more}}}}}"),
            ),
            document(
                "MeshBinding",
                "here",
                &format!(
                    "{{controlPlane: consul, selector: {{clusters: ['{cluster}', '*:cluster/other-*']}}}}"
                ),
            ),
            documents.to_owned(),
        ];
        std::fs::write(self.setup.directory.path().join("all.yaml"), text.concat()).unwrap();
    }

    fn token(&self, secret: &str) {
        std::fs::write(self.setup.directory.path().join("token"), secret).unwrap();
    }

    async fn printed(&self) -> String {
        let run = run_doctor(&BTreeMap::new(), self.setup.directory.path(), &["--print-acl-policy"]).await;
        assert_eq!((run.code, run.err.as_str()), (Some(0), ""));
        run.out
    }

    async fn report(&self) -> DoctorRun {
        let run = self.setup.report().await;
        let token = std::fs::read_to_string(self.setup.directory.path().join("token")).unwrap();
        for secret in [AWS_SECRET, MANAGEMENT, token.as_str()] {
            assert!(!run.out.contains(secret) && !run.err.contains(secret), "{}\n{}", run.out, run.err);
        }
        run
    }

    async fn healthy(&self) -> BTreeSet<String> {
        let run = self.report().await;
        assert_eq!(run.code, Some(0), "{}\n{}", run.out, run.err);
        run.ids()
    }

    fn client(&self) -> ConsulControlPlane<HttpTransport> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let file = self.setup.directory.path().join("token");
        let spec: ConsulConnection =
            serde_json::from_value(json!({"address": self.url, "tokenFile": file})).unwrap();
        let operator = OperatorId::parse("x").unwrap();
        let secrets = Arc::new(NoSecrets);
        ConsulControlPlane::connect(&spec, &crate::allow_all(), operator, Arc::new(NoObserver), secrets)
            .unwrap()
    }
}

#[tokio::test]
async fn printed_acl_policy_passes_every_check() {
    let harness = ConsulSetup::new().await;
    let run = harness.report().await;
    assert_eq!(run.code, Some(0), "{}", run.out);
    assert_eq!(run.json()["summary"]["warning"], json!(0), "{}", run.out);
    // At Consul, no deployment is held.
    let held = [
        "events.deployments",
        "permissions.describe-services",
        "permissions.get-task-protection",
        "permissions.update-task-protection",
    ];
    let unused = |id: &str| held.contains(&id) || super::UNUSED.contains(&id);
    let is_of_consul = |id: &String| !id.starts_with("control-plane.") && !unused(id);
    let of_consul = catalogue().filter(is_of_consul).collect::<BTreeSet<_>>();
    assert_eq!(run.ids(), of_consul);
}

#[tokio::test]
async fn printed_acl_policy_is_minimal() {
    let harness = ConsulSetup::new().await;
    let cluster = ClusterArn::parse(&harness.setup.endpoints.cluster).unwrap();
    let clusters = BTreeSet::from([cluster.clone()]);
    let id = "0123456789abcdef0123456789abcdef";
    let consul = harness.client();
    consul.refresh_capabilities(&BTreeSet::new()).await.unwrap();
    assert!(consul.version().is_some(), "the token may see the version");
    let service = json!({"Node": cluster.as_str(), "SkipNodeUpdate": true, "Service": {
        "ID": format!("web-{id}"), "Service": "web", "Meta": {"source": "consul-ecs", "task-id": id}}});
    put(&harness.front, "/v1/catalog/register", &service);
    let found = list_owned(&consul, &clusters).await.unwrap().seen;
    assert_eq!(found.len(), 1);
    let read = consul.get(&found[0].id).await.unwrap();
    assert!(read.is_some() && consul.delete(&read.unwrap().id).await.unwrap());
    assert!(list_owned(&consul, &clusters).await.unwrap().seen.is_empty());
    let objects = consul.objects();
    let node =
        ClusterNode { node: cluster.to_string(), address: "127.0.0.2".to_owned(), ..ClusterNode::default() };
    objects.register_node(&node).await.unwrap();
    let method: AuthMethod = objects.auth_method(METHOD).await.unwrap().unwrap();
    objects.put_auth_method(&AuthMethod { description: "changed".to_owned(), ..method }).await.unwrap();
    let elsewhere = ClusterNode { node: "server-2".to_owned(), address: "127.0.0.3".to_owned(), ..node };
    assert!(objects.register_node(&elsewhere).await.is_err(), "nodes of others are not its own");
}

#[tokio::test]
async fn missing_acl_rule_fails_the_matching_check() {
    let harness = ConsulSetup::new().await;
    let healthy = harness.healthy().await;
    let policy = harness.printed().await;
    for (rule, id, status, parts) in [
        ("acl = \"write\"", "consul.tokens", "error", &["acl = \\\"write\\\"", "--print-acl-policy"][..]),
        ("acl = \"write\"", "consul.auth-method", "error", &["acl = \\\"read\\\""]),
        ("acl = \"write\"", "consul.binding-rules", "error", &["acl = \\\"read\\\""]),
        ("acl = \"write\"", "consul.policies", "error", &["acl = \\\"read\\\""]),
        ("acl = \"write\"", "consul.roles", "error", &["acl = \\\"read\\\""]),
        ("node_prefix \"\" {\n  policy = \"read\"\n}", "consul.node", "error", &["node_prefix"]),
        ("service_prefix \"\" {\n  policy = \"write\"\n}", "consul.services", "error", &["service_prefix"]),
    ] {
        assert!(policy.contains(rule), "{rule} is not in {policy}");
        let name = format!("without-{}", id.replace('.', "-"));
        // A service that a token without permissions does not see.
        let service = json!({"Node": harness.setup.endpoints.cluster, "SkipNodeUpdate": true,
            "Service": {"ID": "vm", "Service": "vm"}});
        put(&harness.front, "/v1/catalog/register", &service);
        harness.token(&token(&harness.front, &name, &policy.replace(rule, "")));
        let run = harness.report().await;
        assert_found(&run, &healthy, id, status, parts, &[]);
    }
}

#[tokio::test]
async fn read_only_token_fails_with_missing_rules() {
    let harness = ConsulSetup::new().await;
    let healthy = harness.healthy().await;
    harness.manifests(&harness.url, "", &document("ConsulAuth", "ecs", AUTH));
    let reads = harness.printed().await.replace("write", "read");
    harness.token(&token(&harness.front, "reader", &reads));
    let run = harness.report().await;
    assert_eq!(run.code, Some(1), "{}", run.out);
    let cluster = harness.setup.endpoints.cluster.as_str();
    for (id, parts) in [
        ("consul.tokens", "`acl = \\\"write\\\"`"),
        ("consul.services", "`service_prefix \\\"\\\" { policy = \\\"write\\\" }`"),
        ("consul.node", &format!("`node \\\"{cluster}\\\" {{ policy = \\\"write\\\" }}`")),
    ] {
        assert_found(&run, &healthy, id, "error", &[parts, "--print-acl-policy"], &[]);
    }
    assert_eq!(run.json()["summary"]["error"], 3, "{}", run.out);
}

#[tokio::test]
async fn unreachable_consul_does_not_hide_aws_checks() {
    let harness = ConsulSetup::new().await;
    let healthy = harness.healthy().await;
    let refused = format!("http://{}", TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap());
    for (address, parts) in [
        (refused, "spec.consul.address"),
        (silent().await, "5s"),
        (website().await, "HTML"),
        (harness.setup.endpoints.aws_url.clone(), "spec.consul.address"),
    ] {
        harness.manifests(&address, ", timeout: 30s", "");
        let run = harness.report().await;
        assert_found(&run, &healthy, "consul.reached", "error", &[parts, &address], &["consul."]);
        assert_eq!(run.code, Some(1), "{}", run.out);
    }
}

#[tokio::test]
async fn unknown_missing_and_management_tokens_are_reported() {
    let harness = ConsulSetup::new().await;
    let healthy = harness.healthy().await;
    let needs_it = [
        "consul.tokens",
        "consul.auth",
        "consul.bind",
        "consul.pol",
        "consul.roles",
        "consul.node",
        "consul.services",
    ];
    harness.token(UNKNOWN);
    let run = harness.report().await;
    assert_found(&run, &healthy, "consul.token", "error", &["tokenSecret"], &needs_it);
    harness.manifests_without_token(&harness.url, "", "");
    let run = harness.report().await;
    assert_found(&run, &healthy, "consul.token", "error", &["tokenFile", "--print-acl-policy"], &needs_it);
    harness.manifests(&harness.url, "", "");
    harness.token(MANAGEMENT);
    let run = harness.report().await;
    assert_found(&run, &healthy, "consul.token", "warning", &["--print-acl-policy"], &[]);
}

#[tokio::test]
async fn servers_without_acls_are_reported() {
    let harness = ConsulSetup::new().await;
    let healthy = harness.healthy().await;
    let (_, open) = server(ConsulConfig { acls_enabled: false, ..ConsulConfig::default() }).await;
    harness.manifests(&open, "", "");
    let run = harness.report().await;
    let of_acls = ["consul.tokens", "consul.auth", "consul.bind", "consul.pol", "consul.roles"];
    assert_found(&run, &healthy, "consul.acls", "error", &["acl.enabled"], &of_acls);
}

#[tokio::test]
async fn enterprise_fields_fail_on_open_source_consul() {
    let harness = ConsulSetup::new().await;
    let healthy = harness.healthy().await;
    harness.manifests(&harness.url, ", namespaces: [team]", "");
    let run = harness.report().await;
    assert_found(&run, &healthy, "consul.edition", "error", &["namespaces"], &[]);
    harness.manifests(&harness.url, ", partition: ecs", "");
    let run = harness.report().await;
    assert_found(&run, &healthy, "consul.edition", "error", &["partition"], &[]);
}

#[tokio::test]
async fn doctor_accepts_objects_a_run_will_create() {
    let harness = ConsulSetup::new().await;
    let healthy = harness.healthy().await;
    call(&harness.front, "DELETE", &format!("/v1/acl/binding-rule/{}", harness.rule), &Value::Null);
    let run = harness.report().await;
    assert_found(&run, &healthy, "consul.binding-rules", "error", &[METHOD, "ConsulAuth"], &[]);
    call(&harness.front, "DELETE", &format!("/v1/acl/auth-method/{METHOD}"), &Value::Null);
    let run = harness.report().await;
    assert_found(&run, &healthy, "consul.auth-method", "error", &[METHOD, "ConsulAuth"], &[]);
    put(&harness.front, "/v1/catalog/deregister", &json!({"Node": harness.setup.endpoints.cluster}));
    let run = harness.report().await;
    let cluster = harness.setup.endpoints.cluster.as_str();
    assert_found(&run, &healthy, "consul.node", "error", &[cluster], &[]);
    harness.manifests(&harness.url, "", &document("ConsulAuth", "ecs", AUTH));
    let run = harness.report().await;
    assert_eq!(run.code, Some(0), "{}", run.out);
    for id in ["consul.auth-method", "consul.binding-rules"] {
        assert_found(&run, &healthy, id, "info", &[METHOD], &[]);
    }
    let report = run.json();
    let mut nodes = report["checks"].as_array().unwrap().iter().filter(|check| check["id"] == "consul.node");
    assert!(nodes.all(|check| check["status"] == "ok" || check["status"] == "info"), "{report}");
    // The tasks use another auth method.
    let other = AUTH.replace("{boundPrincipals", "{authMethod: other, boundPrincipals");
    harness.manifests(&harness.url, "", &document("ConsulAuth", "ecs", &other));
    assert_found(&harness.report().await, &healthy, "consul.auth-method", "info", &["other"], &[]);
}

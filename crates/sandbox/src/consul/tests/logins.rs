//! Logins with the emulated AWS, and blocking queries.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::super::http::{ConsulFront, NoConsulFaults};
use super::super::{ConsulRequest, ConsulResponse, EntityDetails, SignedLogin, in_process};
use super::{ConsulServerFixture, MANAGEMENT, START};
use crate::aws::{AssumeRole, AssumedRole, Cloud, CloudConfig, CreateRole};
use ecs_mesh_clock::Clock;
use ecs_mesh_model::Tags;

const AWS: &str = "http://127.0.0.1:4566";
const METHOD: &str = "iam-ecs-service-token";
const TAG: &str = "consul.hashicorp.com.service-name";

struct LoginFixture {
    world: ConsulServerFixture,
    cloud: Cloud,
}

impl LoginFixture {
    fn new(more: &Value) -> Self {
        let mut world = ConsulServerFixture::new();
        let mut method = json!({
            "Name": METHOD, "Type": "aws-iam",
            "Config": {
                "BoundIAMPrincipalARNs": ["arn:aws:iam::111122223333:role/consul-ecs/*"],
                "EnableIAMEntityDetails": true, "IAMEntityTags": [TAG],
            },
        });
        for (key, value) in more.as_object().unwrap() {
            if ["MaxTokenTTL", "TokenLocality"].contains(&key.as_str()) {
                method[key] = value.clone();
            } else {
                method["Config"][key] = value.clone();
            }
        }
        world.done("PUT", "/v1/acl/auth-method", &method);
        let rule = json!({
            "AuthMethod": METHOD, "BindType": "service", "BindName": format!("${{entity_tags.{TAG}}}"),
        });
        world.done("PUT", "/v1/acl/binding-rule", &rule);
        Self { world, cloud: Cloud::new(CloudConfig::default(), START) }
    }

    fn role(&mut self, path: &str, service: &str) -> AssumedRole {
        let tags: Tags = [(TAG.to_owned(), service.to_owned())].into();
        let request = CreateRole { path: path.into(), ..CreateRole::for_tasks("task", tags) };
        let role = self.cloud.create_role(request, START).unwrap();
        let request = AssumeRole { role_arn: role.arn, session_name: "task".into(), ..AssumeRole::default() };
        self.cloud.assume_role(&request, START).unwrap()
    }

    fn login(&mut self, login: &SignedLogin<'_>) -> ConsulResponse {
        let (cloud, now) = (&mut self.cloud, self.world.now);
        let request = login.request(now).unwrap();
        self.world
            .server
            .login_with(now, &request, &mut |call| in_process::send_signed(cloud, now, AWS, call))
    }
}

fn login(credentials: &AssumedRole) -> SignedLogin<'_> {
    SignedLogin {
        auth_method: METHOD,
        credentials,
        region: "eu-west-1",
        sts_endpoint: None,
        iam_endpoint: None,
        server_id: None,
        entity: EntityDetails::Own,
        meta: &[("consul.hashicorp.com/task-id", "t1"), ("consul.hashicorp.com/cluster", "c1")],
    }
}

#[test]
fn task_role_logs_in_as_its_service() {
    let mut place = LoginFixture::new(&json!({"MaxTokenTTL": "1h"}));
    let credentials = place.role("/consul-ecs/", "Web");
    let response = place.login(&login(&credentials));
    let token = response.json();
    assert_eq!(response.status, 200, "{}", String::from_utf8_lossy(&response.body));
    assert_eq!(token["ServiceIdentities"], json!([{"ServiceName": "web"}]));
    let meta = r#"{"consul.hashicorp.com/cluster":"c1","consul.hashicorp.com/task-id":"t1"}"#;
    assert_eq!(token["Description"], format!("token created via login: {meta}"));
    assert_eq!((&token["Local"], &token["AuthMethod"]), (&json!(true), &json!(METHOD)));
    let secret = token["SecretID"].as_str();
    place.world.passes(3599);
    assert_eq!(place.world.call(secret, "GET", "/v1/acl/token/self", &Value::Null).status, 200);
    place.world.passes(1);
    assert_eq!(place.world.call(secret, "GET", "/v1/acl/token/self", &Value::Null).status, 403);
}

#[test]
fn logout_deletes_only_login_tokens() {
    let mut place = LoginFixture::new(&json!({"TokenLocality": "global"}));
    let credentials = place.role("/consul-ecs/", "web");
    let token = place.login(&login(&credentials)).json();
    assert_eq!(token["Local"], false);
    let secret = token["SecretID"].as_str();
    let mut logout = |secret| place.world.call(secret, "POST", "/v1/acl/logout", &Value::Null).status;
    let codes = [logout(secret), logout(secret), logout(Some(MANAGEMENT)), logout(None)];
    assert_eq!(codes, [200, 403, 403, 401]);
}

#[test]
fn login_matches_auth_method_ignoring_case() {
    let mut place = LoginFixture::new(&json!({}));
    let credentials = place.role("/consul-ecs/", "web");
    let other = METHOD.to_ascii_uppercase();
    let token = place.login(&SignedLogin { auth_method: &other, ..login(&credentials) }).json();
    assert_eq!(token["AuthMethod"], METHOD);
    let listed = place.world.get(&format!("/v1/acl/tokens?authmethod={other}"));
    assert_eq!(listed[0]["AccessorID"], token["AccessorID"]);
}

#[test]
fn untrusted_role_is_rejected() {
    let mut place = LoginFixture::new(&json!({}));
    let outside = place.role("/other/", "web");
    assert_eq!(place.login(&login(&outside)).status, 500);
    let unknown = AssumedRole { access_key_id: "ASIAUNKNOWN".into(), ..outside.clone() };
    assert_eq!(place.login(&login(&unknown)).status, 500);
    assert_eq!(place.login(&SignedLogin { auth_method: "nosuch", ..login(&outside) }).status, 403);
    assert_eq!(place.login(&SignedLogin { entity: EntityDetails::Left, ..login(&outside) }).status, 500);
    assert_eq!(
        place.login(&SignedLogin { entity: EntityDetails::Of("none"), ..login(&outside) }).status,
        500
    );
    assert_eq!(place.world.get(&format!("/v1/acl/tokens?authmethod={METHOD}")), json!([]));
}

#[test]
fn invalid_service_name_is_rejected() {
    for name in ["", "web app", "web_"] {
        let mut place = LoginFixture::new(&json!({}));
        let credentials = place.role("/consul-ecs/", name);
        assert_eq!(place.login(&login(&credentials)).status, 500, "{name:?}");
    }
}

#[test]
fn login_uses_the_methods_endpoints() {
    let mut here = LoginFixture::new(&json!({"STSEndpoint": AWS, "IAMEndpoint": "http://localhost:4566"}));
    let credentials = here.role("/consul-ecs/", "web");
    assert_eq!(here.login(&login(&credentials)).status, 200);
    let mut elsewhere = LoginFixture::new(&json!({"STSEndpoint": "http://127.0.0.1:1"}));
    let credentials = elsewhere.role("/consul-ecs/", "web");
    assert_eq!(elsewhere.login(&login(&credentials)).status, 500);
    let mut nowhere = LoginFixture::new(&json!({}));
    let credentials = nowhere.role("/consul-ecs/", "web");
    assert_eq!(nowhere.login(&SignedLogin { sts_endpoint: Some(AWS), ..login(&credentials) }).status, 500);
}

#[test]
fn server_id_must_be_signed() {
    let mut place = LoginFixture::new(&json!({"ServerIDHeaderValue": "here"}));
    let credentials = place.role("/consul-ecs/", "web");
    let mut with = |server_id| place.login(&SignedLogin { server_id, ..login(&credentials) }).status;
    assert_eq!([with(Some("here")), with(Some("there")), with(None)], [200, 500, 500]);
}

#[test]
fn binding_rule_applies_to_selected_roles_only() {
    let mut place = LoginFixture::new(&json!({}));
    place.world.done("PUT", "/v1/acl/role", &json!({"Name": "gateway"}));
    for (selector, role) in [
        (format!("entity_tags[\"{TAG}\"] == \"web\""), "gateway"),
        (format!("entity_tags[\"{TAG}\"] != \"web\""), "other"),
        ("entity_name == task".to_owned(), "missing"),
    ] {
        let rule = json!({"AuthMethod": METHOD, "BindType": "role", "BindName": role, "Selector": selector});
        place.world.done("PUT", "/v1/acl/binding-rule", &rule);
    }
    let credentials = place.role("/consul-ecs/", "web");
    let roles = place.login(&login(&credentials)).json()["Roles"].clone();
    assert_eq!(roles.as_array().map(Vec::len), Some(1));
    assert_eq!(roles[0]["Name"], "gateway");
}

/// A front with tokio's clock, which the test pauses.
fn front() -> ConsulFront {
    let (world, clock) = (ConsulServerFixture::new(), Clock::simulated(START));
    let no_aws = Arc::new(|_: &super::super::SignedCall| Err("AWS is not configured".to_owned()));
    let clock = Arc::new(move || clock.now());
    ConsulFront::new(Arc::new(Mutex::new(world.server)), no_aws, Arc::new(NoConsulFaults), clock)
}

fn waiting(front: &ConsulFront, wait: &str) -> tokio::task::JoinHandle<ConsulResponse> {
    let list = ConsulRequest::new("GET", "/v1/acl/tokens", Some(MANAGEMENT), &Value::Null);
    let index =
        front.with(|server, now| server.handle(now, &list)).header("X-Consul-Index").unwrap().to_owned();
    let path = format!("/v1/acl/tokens?index={index}&wait={wait}");
    let request = ConsulRequest::new("GET", &path, Some(MANAGEMENT), &Value::Null);
    let front = front.clone();
    tokio::spawn(async move { front.respond(&request, &CancellationToken::new()).await })
}

#[tokio::test(start_paused = true)]
async fn blocking_query_returns_on_change() {
    let front = front();
    let read = waiting(&front, "10m");
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(!read.is_finished());
    let put = |path: &str, body: &Value| {
        let request = ConsulRequest::new("PUT", path, Some(MANAGEMENT), body);
        assert_eq!(front.with(|server, now| server.handle(now, &request)).status, 200);
    };
    put("/v1/catalog/register", &json!({"Node": "n", "Address": "10.0.0.1"}));
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(!read.is_finished(), "a change of something else is none");
    put("/v1/acl/token", &json!({"Description": "new", "ExpirationTTL": "1h"}));
    assert_eq!(read.await.unwrap().json().as_array().unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn blocking_query_returns_after_its_wait_time() {
    let front = front();
    let began = tokio::time::Instant::now();
    let response = waiting(&front, "30s").await.unwrap();
    assert_eq!((response.status, began.elapsed().as_secs()), (200, 30));
}

#[tokio::test(start_paused = true)]
async fn token_expiry_wakes_blocking_query_on_tokens() {
    let front = front();
    let body = json!({"ExpirationTTL": "2m"});
    let request = ConsulRequest::new("PUT", "/v1/acl/token", Some(MANAGEMENT), &body);
    front.with(|server, now| server.handle(now, &request));
    let began = tokio::time::Instant::now();
    let response = waiting(&front, "10m").await.unwrap();
    assert_eq!(response.json().as_array().unwrap().len(), 2);
    assert_eq!(began.elapsed().as_secs(), 120);
}

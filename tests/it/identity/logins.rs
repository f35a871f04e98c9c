//! Logins by AWS IAM: a real Consul and the sandbox's accept and reject the same ones.

use ecs_mesh_model::Tags;
use ecs_mesh_sandbox::aws::{AssumeRole, AssumedRole, CloudConfig, CreateRole};
use ecs_mesh_sandbox::consul::{EntityDetails, SignedLogin};
use ecs_mesh_sandbox::endpoints::{EndpointOptions, Endpoints};
use serde_json::{Value, json};

use super::fixture::IdentityFixture;
use super::{MANAGEMENT, consul_with_account};
use crate::consul_real::server::{self, Acls, ConsulRelease, RealConsul};

const METHOD: &str = "iam-ecs-service-token";
/// An auth method that requires a signed server id.
const SIGNED: &str = "signed";
/// An auth method whose STS endpoint refuses connections.
const ASTRAY: &str = "astray";
const SERVICE: &str = "consul.hashicorp.com.service-name";
const KIND: &str = "consul.hashicorp.com.gateway-kind";

#[tokio::test]
async fn real_consul_accepts_the_sandbox_logins() {
    let what = "logins by IAM at a real Consul of 1.12 or later";
    let Some(consul) = RealConsul::start(ConsulRelease::Newer, what, Acls::On).await else { return };
    let aws = Endpoints::start(EndpointOptions::default()).await.unwrap();
    let real = outcomes(&aws, &IdentityFixture::at(consul.url(), server::MANAGEMENT)).await;
    let own = outcomes(&aws, &IdentityFixture::at(&consul_with_account(&aws).await, MANAGEMENT)).await;
    assert_eq!(own, real, "the sandbox's, and the real one's");
    assert_eq!(
        real,
        [
            "its own service: 200 [web] []",
            "in capitals: 200 [web-api] []",
            "a gateway: 200 [gw] [consul-ecs-mesh-gateway-role]",
            "a gateway without a service: 500",
            "without tags: 500",
            "a name that is none: 500",
            "of another path: 500",
            "without its details: 500",
            "with another's details: 500",
            "by no method: 403",
            "with the name signed: 200 [web] []",
            "with another name signed: 500",
            "with no name signed: 500",
            "unreachable STS endpoint: 500",
        ]
    );
}

async fn outcomes(aws: &Endpoints, fixture: &IdentityFixture) -> Vec<String> {
    create_objects(aws, fixture).await;
    let web = role(aws, "/consul-ecs/", "web", &[(SERVICE, "web")]);
    let capitals = role(aws, "/consul-ecs/", "capitals", &[(SERVICE, "Web-API")]);
    let gateway = role(aws, "/consul-ecs/", "gateway", &[(SERVICE, "gw"), (KIND, "mesh-gateway")]);
    let nameless = role(aws, "/consul-ecs/", "nameless", &[(KIND, "mesh-gateway")]);
    let untagged = role(aws, "/consul-ecs/", "untagged", &[]);
    let spaced = role(aws, "/consul-ecs/", "spaced", &[(SERVICE, "web app")]);
    let outside = role(aws, "/other/", "outside", &[(SERVICE, "web")]);
    let login = |credentials| SignedLogin {
        auth_method: METHOD,
        credentials,
        region: aws.region(),
        sts_endpoint: Some(&aws.aws_url),
        iam_endpoint: Some(&aws.aws_url),
        server_id: None,
        entity: EntityDetails::Own,
        meta: &[],
    };
    let signed = |server_id| SignedLogin { auth_method: SIGNED, server_id, ..login(&web) };
    let mut outcomes = Vec::new();
    for (what, login) in [
        ("its own service", login(&web)),
        ("in capitals", login(&capitals)),
        ("a gateway", login(&gateway)),
        ("a gateway without a service", login(&nameless)),
        ("without tags", login(&untagged)),
        ("a name that is none", login(&spaced)),
        ("of another path", login(&outside)),
        ("without its details", SignedLogin { entity: EntityDetails::Left, ..login(&web) }),
        ("with another's details", SignedLogin { entity: EntityDetails::Of("gateway"), ..login(&web) }),
        ("by no method", SignedLogin { auth_method: "none", ..login(&web) }),
        ("with the name signed", signed(Some("here"))),
        ("with another name signed", signed(Some("there"))),
        ("with no name signed", signed(None)),
        ("unreachable STS endpoint", SignedLogin { auth_method: ASTRAY, ..login(&web) }),
    ] {
        outcomes.push(format!("{what}: {}", outcome(aws, &fixture.url, &login).await));
    }
    outcomes
}

async fn create_objects(aws: &Endpoints, fixture: &IdentityFixture) {
    let account = CloudConfig::default().account;
    fixture.put("/v1/acl/role", &json!({"Name": "consul-ecs-mesh-gateway-role"})).await;
    for (name, more) in [
        (METHOD, json!({})),
        (SIGNED, json!({"ServerIDHeaderValue": "here"})),
        (ASTRAY, json!({"STSEndpoint": "http://127.0.0.1:1"})),
    ] {
        let mut config = json!({
            "BoundIAMPrincipalARNs": [format!("arn:aws:iam::{account}:role/consul-ecs/*")],
            "EnableIAMEntityDetails": true, "IAMEntityTags": [SERVICE, KIND],
            "STSEndpoint": aws.aws_url, "IAMEndpoint": aws.aws_url,
        });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        fixture.put("/v1/acl/auth-method", &json!({"Name": name, "Type": "aws-iam", "Config": config})).await;
        let service = format!("${{entity_tags.{SERVICE}}}");
        let rule = json!({"AuthMethod": name, "BindType": "service", "BindName": service});
        fixture.put("/v1/acl/binding-rule", &rule).await;
    }
    let rule = json!({
        "AuthMethod": METHOD, "BindType": "role", "BindName": "consul-ecs-mesh-gateway-role",
        "Selector": format!("entity_tags[\"{KIND}\"] == \"mesh-gateway\""),
    });
    fixture.put("/v1/acl/binding-rule", &rule).await;
}

/// Credentials of a role, which is created if missing.
fn role(aws: &Endpoints, path: &str, name: &str, tags: &[(&str, &str)]) -> AssumedRole {
    let tags: Tags = tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let account = CloudConfig::default().account;
    aws.with(|cloud, _, now| {
        // The role exists for the second Consul.
        let _ =
            cloud.create_role(CreateRole { path: path.to_owned(), ..CreateRole::for_tasks(name, tags) }, now);
        let role_arn = format!("arn:aws:iam::{account}:role{path}{name}");
        let request = AssumeRole { role_arn, session_name: "task".into(), ..AssumeRole::default() };
        cloud.assume_role(&request, now).unwrap()
    })
}

/// The status, and the services and roles of an accepted login.
async fn outcome(aws: &Endpoints, url: &str, login: &SignedLogin<'_>) -> String {
    let now = aws.with(|_, _, now| now);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = http.post(format!("{url}/v1/acl/login")).body(login.request(now).unwrap().body);
    let answer = request.send().await.unwrap();
    let status = answer.status();
    if !status.is_success() {
        return status.as_u16().to_string();
    }
    let token: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    let names = |list: &str, field: &str| {
        let all = token[list].as_array().into_iter().flatten();
        all.map(|one| one[field].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(", ")
    };
    let (services, roles) = (names("ServiceIdentities", "ServiceName"), names("Roles", "Name"));
    format!("{} [{services}] [{roles}]", status.as_u16())
}

//! Each source of credentials, as `doctor` finds it and as AWS sees its key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::IntoResponse;
use ecs_mesh_model::Glob;
use ecs_mesh_sandbox::aws::{Cloud, CloudConfig, CreateRole};
use serde_json::json;
use tokio::net::TcpListener;

use super::{AWS_SECRET, DoctorRun, DoctorSetup, run_doctor};

const MEMBER: &str = "444455556666";
const PAGE: &str = include_str!("../../../docs/how-to/credentials-and-networks.md");
/// The secrets that the server below expects.
const CONTAINER_TOKEN: &str = "planted-in-the-container-token";
const WEB_TOKEN: &str = "planted-in-the-web-identity-token";
const PORTAL_TOKEN: &str = "planted-in-the-sso-cache";

/// Writes a file beside the manifests and returns its path.
fn file(setup: &DoctorSetup, name: &str, text: &str) -> String {
    let path = setup.directory.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Runs `doctor` with these variables in the place of the keys.
async fn with_source(setup: &DoctorSetup, variables: &[(&str, &str)]) -> DoctorRun {
    let mut environment: BTreeMap<String, String> = setup.environment.clone();
    environment.retain(|name, _| name != "AWS_ACCESS_KEY_ID" && name != "AWS_SECRET_ACCESS_KEY");
    environment.insert("PATH".to_owned(), "/usr/bin:/bin".to_owned());
    environment.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let arguments = ["--operator-id", "x", "--output", "json"];
    let run = run_doctor(&environment, setup.directory.path(), &arguments).await;
    for secret in [AWS_SECRET, CONTAINER_TOKEN, WEB_TOKEN, PORTAL_TOKEN] {
        assert!(!run.out.contains(secret) && !run.err.contains(secret), "{}\n{}", run.out, run.err);
    }
    run
}

/// Asserts that a healthy report names the source, and that all calls had this key.
fn assert_source(setup: &DoctorSetup, run: &DoctorRun, source: &str, key: &str) {
    let (status, finding) = run.worst("aws.credentials");
    assert!(status == "ok" && finding.contains(source), "{finding}");
    assert_eq!(run.code, Some(0), "{}", run.out);
    let keys = std::mem::take(&mut *setup.refusing.keys.lock().unwrap());
    assert_eq!(keys, BTreeSet::from([key.to_owned()]));
}

/// Asserts that the source has no credentials, with an error of this form, and that AWS was not called.
fn assert_failed(run: &DoctorRun, form: &str) {
    let (status, finding) = run.worst("aws.credentials");
    assert_eq!(status, "error", "{finding}");
    let form = format!("*{}*", form.replace('…', "*").replace('"', "\\\""));
    assert!(Glob::new(form.clone()).matches(&finding), "{form}: {finding}");
    assert_eq!(run.code, Some(1), "{}", run.out);
}

/// The keys in the field names of the container endpoint and of `credential_process`.
fn keys(key: &str) -> String {
    let fields = json!({
        "Version": 1, "AccessKeyId": key, "SecretAccessKey": AWS_SECRET, "Token": "session",
        "SessionToken": "session", "Expiration": "2120-01-01T00:00:00Z",
    });
    fields.to_string()
}

/// The endpoint of a container's credentials, STS for web identities, and the portal of IAM Identity Center.
async fn credential_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    url
}

async fn answer(uri: Uri, headers: HeaderMap, body: Bytes) -> axum::response::Response {
    let has = |name: &str, value: &str| headers.get(name).is_some_and(|found| found == value);
    let form: BTreeMap<String, String> = form_urlencoded::parse(&body).into_owned().collect();
    let field = |name: &str| form.get(name).map_or("", String::as_str);
    let response = match (uri.path(), field("Action")) {
        ("/container", _) if has("authorization", CONTAINER_TOKEN) => keys("AKIDCONTAINER"),
        ("/federation/credentials", _) if has("x-amz-sso_bearer_token", PORTAL_TOKEN) => json!({
            "roleCredentials": {
                "accessKeyId": "AKIDPORTAL", "secretAccessKey": AWS_SECRET, "sessionToken": "session",
                "expiration": 4_733_510_400_000_u64,
            },
        })
        .to_string(),
        ("/", "AssumeRoleWithWebIdentity") if field("WebIdentityToken") == WEB_TOKEN => format!(
            "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult>\
             <AssumedRoleUser><Arn>arn:aws:sts::111122223333:assumed-role/operator/x</Arn>\
             <AssumedRoleId>AROAWEB:x</AssumedRoleId></AssumedRoleUser><Credentials>\
             <AccessKeyId>AKIDWEB</AccessKeyId><SecretAccessKey>{AWS_SECRET}</SecretAccessKey>\
             <SessionToken>session</SessionToken><Expiration>2120-01-01T00:00:00Z</Expiration></Credentials>\
             </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        ),
        ("/", "AssumeRoleWithWebIdentity") => {
            let error = "<ErrorResponse><Error><Type>Sender</Type><Code>InvalidIdentityToken</Code>\
                         <Message>the token is not accepted</Message></Error></ErrorResponse>";
            return (StatusCode::BAD_REQUEST, error).into_response();
        }
        ("/", "GetCallerIdentity") => "<GetCallerIdentityResponse><GetCallerIdentityResult>\
             <Arn>arn:aws:sts::111122223333:assumed-role/operator/x</Arn><UserId>AROAWEB:x</UserId>\
             <Account>111122223333</Account></GetCallerIdentityResult></GetCallerIdentityResponse>"
            .to_owned(),
        _ => return (StatusCode::FORBIDDEN, "{}").into_response(),
    };
    response.into_response()
}

#[tokio::test]
async fn keys_of_a_credential_process_are_used() {
    let setup = DoctorSetup::new().await;
    let printed = file(&setup, "printed", &keys("AKIDPROCESS"));
    let config = file(&setup, "config", &format!("[profile dev]\ncredential_process = cat '{printed}'\n"));
    let run = with_source(&setup, &[("AWS_PROFILE", "dev"), ("AWS_CONFIG_FILE", &*config)]).await;
    assert_source(&setup, &run, "the profile \\\"dev\\\" (AWS_PROFILE)", "AKIDPROCESS");
}

#[tokio::test]
async fn keys_of_the_containers_endpoint_are_used() {
    let setup = DoctorSetup::new().await;
    let url = credential_server().await + "/container";
    let with_token = async |token: &str| {
        let token = ("AWS_CONTAINER_AUTHORIZATION_TOKEN", token);
        with_source(&setup, &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &*url), token]).await
    };
    let run = with_token(CONTAINER_TOKEN).await;
    assert_source(&setup, &run, "the container's credentials", "AKIDCONTAINER");
    assert_failed(&with_token("another").await, "credentials of the container's credentials …");
}

#[tokio::test]
async fn keys_for_a_web_identity_are_used() {
    let setup = DoctorSetup::new().await;
    let url = credential_server().await;
    let with_token = async |token: &str| {
        let token = file(&setup, "token", token);
        let variables = [
            ("AWS_WEB_IDENTITY_TOKEN_FILE", &*token),
            ("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/operator"),
            ("AWS_ENDPOINT_URL_STS", &*url),
        ];
        with_source(&setup, &variables).await
    };
    let run = with_token(WEB_TOKEN).await;
    assert_source(&setup, &run, "the web identity (AWS_WEB_IDENTITY_TOKEN_FILE)", "AKIDWEB");
    assert_failed(&with_token("another").await, "credentials of the web identity …InvalidIdentityToken");
}

#[tokio::test]
async fn keys_of_identity_center_are_used() {
    let setup = DoctorSetup::new().await;
    let url = credential_server().await;
    let config = "[profile dev]\nsso_session = corp\nsso_account_id = 111122223333\nsso_role_name = dev\n\
                  [sso-session corp]\nsso_region = eu-west-1\nsso_start_url = https://corp.awsapps.com/start\n";
    let config = file(&setup, "config", config);
    // As `aws sso login` leaves it: the name is the SHA-1 of the session's name.
    let home = tempfile::tempdir().unwrap();
    let cache = home.path().join(".aws/sso/cache");
    std::fs::create_dir_all(&cache).unwrap();
    let token = json!({"accessToken": PORTAL_TOKEN, "expiresAt": "2120-01-01T00:00:00Z"}).to_string();
    std::fs::write(cache.join("ee0bfd2552fbd840c02cc48b6e823320543c450f.json"), token).unwrap();
    let variables = [
        ("HOME", home.path().to_str().unwrap()),
        ("AWS_PROFILE", "dev"),
        ("AWS_CONFIG_FILE", &*config),
        ("AWS_ENDPOINT_URL_SSO", &*url),
    ];
    let run = with_source(&setup, &variables).await;
    assert_source(&setup, &run, "the profile \\\"dev\\\" (AWS_PROFILE)", "AKIDPORTAL");
}

/// Adds an account whose role `ops` admits the own account's user with the external id `mesh-7`.
fn add_member(setup: &DoctorSetup) {
    let config = CloudConfig { account: MEMBER.to_owned(), ..CloudConfig::default() };
    let front = &setup.endpoints.front;
    let cloud = Arc::new(Mutex::new(Cloud::new(config, front.with(|_, now| now))));
    front.add_account(cloud, Arc::clone(&setup.refusing) as _).with(|cloud, now| {
        let trust = json!({"Statement": {
            "Effect": "Allow", "Action": "sts:AssumeRole",
            "Principal": {"AWS": "arn:aws:iam::111122223333:user/sandbox"},
            "Condition": {"StringEquals": {"sts:ExternalId": "mesh-7"}},
        }});
        let assume_role_policy = trust.to_string();
        let role = CreateRole { name: "ops".to_owned(), assume_role_policy, ..CreateRole::default() };
        cloud.create_role(role, now).unwrap();
    });
}

#[tokio::test]
async fn role_of_a_profile_is_assumed_if_it_admits_the_source() {
    let setup = DoctorSetup::new().await;
    add_member(&setup);
    let with_id = async |id: &str| {
        let config = format!(
            "[profile base]\naws_access_key_id = AKIDBASE\naws_secret_access_key = {AWS_SECRET}\n\
             [profile ops]\nrole_arn = arn:aws:iam::{MEMBER}:role/ops\nsource_profile = base\nexternal_id = {id}\n"
        );
        let config = file(&setup, "config", &config);
        with_source(&setup, &[("AWS_PROFILE", "ops"), ("AWS_CONFIG_FILE", &*config)]).await
    };
    let run = with_id("mesh-7").await;
    let (status, finding) = run.worst("aws.credentials");
    assert!(status == "ok" && finding.contains("the profile \\\"ops\\\" (AWS_PROFILE)"), "{finding}");
    let (status, finding) = run.worst("aws.identity");
    let session = format!("arn:aws:sts::{MEMBER}:assumed-role/ops/");
    assert!(status != "error" && finding.contains(&session), "{finding}");

    let form = "credentials of the profile …: …(AccessDenied)…is not authorized to perform: sts:AssumeRole";
    assert!(PAGE.contains(&format!("| `{form}` |")), "the page has this error");
    assert_failed(&with_id("another").await, form);
}

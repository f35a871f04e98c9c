//! Tests of the client over real sockets.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::IntoResponse;
use serde_json::{Value, json};

use super::{TASK, id, operator};
use crate::{
    HttpMethod, HttpTransport, KumaControlPlane, NoObserver, Transport, TransportError, TransportErrorKind,
    settings,
};
use ecs_mesh_api::{AllowList, HumanDuration, KumaConnection};
use ecs_mesh_control_plane::http::SettingsError;
use ecs_mesh_control_plane::http::testing::{tls_fixture, tls_server};
use ecs_mesh_control_plane::list_owned;
use ecs_mesh_control_plane::{ControlPlane, MeshErrorKind};
use ecs_mesh_controller::{NoSecrets, ReadFileError, SecretError, SecretRequest, Secrets};
use ecs_mesh_model::{SecretRef, TlsServerName};

/// Serves one response to every request and records each request's path and headers.
async fn server<R: IntoResponse + Send + 'static>(
    response: impl Fn() -> R + Clone + Send + Sync + 'static,
) -> (SocketAddr, Arc<Mutex<Vec<(Uri, HeaderMap)>>>) {
    let seen: Arc<Mutex<Vec<(Uri, HeaderMap)>>> = Arc::default();
    let keep = seen.clone();
    let router = Router::new().fallback(move |uri: Uri, headers: HeaderMap| {
        keep.lock().unwrap().push((uri, headers));
        let response = response();
        async move { response }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, seen)
}

pub(super) fn at(address: impl std::fmt::Display) -> KumaConnection {
    KumaConnection::new(format!("http://{address}"))
}

fn allow_all() -> AllowList {
    AllowList::new(["*"], ["/"])
}

pub(super) fn connect(spec: &KumaConnection) -> Result<KumaControlPlane<HttpTransport>, SettingsError> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    KumaControlPlane::connect(spec, &allow_all(), operator(), Arc::new(NoObserver), Arc::new(NoSecrets))
}

fn transport(spec: &KumaConnection) -> HttpTransport {
    let _ = rustls::crypto::ring::default_provider().install_default();
    HttpTransport::new(settings(spec, &allow_all()), Arc::new(NoSecrets)).unwrap()
}

#[tokio::test]
async fn rotated_token_is_used_from_the_next_call() {
    let (address, requests) = server(|| r#"{"items": [], "next": null}"#).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "first\n").unwrap();
    let mut spec = at(format!("{address}/behind/a/proxy/"));
    spec.token_file = Some(file.path().to_owned());
    let kuma = connect(&spec).unwrap();
    list_owned(&kuma, &BTreeSet::new()).await.unwrap();
    std::fs::write(file.path(), "other").unwrap();
    list_owned(&kuma, &BTreeSet::new()).await.unwrap();
    let requests = requests.lock().unwrap();
    let tokens: Vec<_> = requests.iter().map(|(_, headers)| headers[header::AUTHORIZATION].clone()).collect();
    assert_eq!(tokens, ["Bearer first", "Bearer other"]);
    assert_eq!(requests[0].0.path(), "/behind/a/proxy/dataplanes");
}

/// Returns tokens in JSON, with the number of the read.
#[derive(Default)]
struct NumberedTokens(AtomicUsize);

#[async_trait]
impl Secrets for NumberedTokens {
    async fn read(&self, _: SecretRequest<'_>) -> Result<String, SecretError> {
        Ok(json!({"token": format!("token-{}", self.0.fetch_add(1, Ordering::Relaxed))}).to_string())
    }
}

#[tokio::test]
async fn user_token_is_read_from_a_key_of_a_secret() {
    let (address, requests) = server(|| r#"{"items": [], "next": null}"#).await;
    let mut spec = at(address);
    let secret = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:kuma:token::";
    spec.token_secret = Some(SecretRef::parse(secret).unwrap());
    let secrets = Arc::new(NumberedTokens::default());
    let _ = rustls::crypto::ring::default_provider().install_default();
    let kuma =
        KumaControlPlane::connect(&spec, &allow_all(), operator(), Arc::new(NoObserver), secrets.clone())
            .unwrap();
    assert_eq!(secrets.0.load(Ordering::Relaxed), 0, "nothing is read before it is needed");
    for _ in 0..2 {
        list_owned(&kuma, &BTreeSet::new()).await.unwrap();
    }
    let requests = requests.lock().unwrap();
    let tokens: Vec<_> = requests.iter().map(|(_, headers)| headers[header::AUTHORIZATION].clone()).collect();
    assert_eq!(tokens, ["Bearer token-0"; 2]);
}

#[tokio::test]
async fn missing_token_file_fails_at_use_not_at_start() {
    let mut spec = at("127.0.0.1:1");
    spec.token_file = Some("/nowhere/token".into());
    let error = list_owned(&connect(&spec).unwrap(), &BTreeSet::new()).await.unwrap_err();
    assert_eq!(error.kind, MeshErrorKind::Forbidden);
    assert!(error.message.contains("/nowhere/token") && error.message.contains("tokenFile"), "{error}");
}

#[tokio::test]
async fn empty_token_file_error_does_not_quote_it() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut spec = at("127.0.0.1:1");
    spec.token_file = Some(file.path().to_owned());
    let kuma = connect(&spec).unwrap();
    for content in ["", " \n", "hunter2\nhunter3"] {
        std::fs::write(file.path(), content).unwrap();
        let error = list_owned(&kuma, &BTreeSet::new()).await.unwrap_err();
        assert_eq!(error.kind, MeshErrorKind::Forbidden, "{content:?}");
        assert!(!error.message.contains("hunter"), "{error}");
    }
}

#[tokio::test]
async fn status_errors_never_contain_the_token() {
    for (status, kind) in [
        (401, MeshErrorKind::Forbidden),
        (405, MeshErrorKind::ReadOnly),
        (409, MeshErrorKind::Conflict),
        (429, MeshErrorKind::Throttled),
        (500, MeshErrorKind::Unreachable),
    ] {
        let echo = "you sent: Bearer hunter2";
        let (address, _) = server(move || {
            let status = StatusCode::from_u16(status).unwrap();
            (status, [(header::RETRY_AFTER, "7")], echo)
        })
        .await;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hunter2").unwrap();
        let mut spec = at(address);
        spec.token_file = Some(file.path().to_owned());
        let error = transport(&spec).send(HttpMethod::Put, "/x", Some(b"{}".to_vec())).await.unwrap();
        assert!(!String::from_utf8(error.body).unwrap().contains("hunter2"));
        let kuma = connect(&spec).unwrap();
        let error = kuma.get(&id("default", TASK)).await.unwrap_err();
        assert_eq!(error.kind, kind, "{status}");
        assert_eq!(error.retry_after, Some(Duration::from_secs(7)));
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}

#[tokio::test]
async fn request_is_json_and_follows_no_redirect() {
    let (address, requests) = server(|| (StatusCode::FOUND, [(header::LOCATION, "/elsewhere")])).await;
    let response =
        transport(&at(address)).send(HttpMethod::Put, "/x?a=b%2Fc", Some(b"{}".to_vec())).await.unwrap();
    assert_eq!(response.status, 302);
    let requests = requests.lock().unwrap();
    assert_eq!(requests.len(), 1, "the redirect was followed");
    assert_eq!(requests[0].0.to_string(), "/x?a=b%2Fc");
    assert_eq!(requests[0].1[header::CONTENT_TYPE], "application/json");
    assert!(!requests[0].1.contains_key(header::AUTHORIZATION));
}

#[tokio::test]
async fn call_times_out_when_server_never_responds() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut spec = at(listener.local_addr().unwrap());
    spec.timeout = HumanDuration(Duration::from_millis(50));
    let error = list_owned(&connect(&spec).unwrap(), &BTreeSet::new()).await.unwrap_err();
    assert_eq!(error.kind, MeshErrorKind::Unreachable);
    assert!(error.message.contains("50ms"), "{error}");
}

#[tokio::test]
async fn call_times_out_when_response_stops() {
    let address = raw_server(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"items\":");
        // Until the client hangs up.
        let _ = stream.read(&mut [0; 1]);
    });
    let mut spec = at(address);
    spec.timeout = HumanDuration(Duration::from_millis(50));
    let error = transport(&spec).send(HttpMethod::Get, "/", None).await.unwrap_err();
    assert_eq!(error.kind, TransportErrorKind::Timeout);
}

#[tokio::test]
async fn connection_error_names_the_address() {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = list_owned(&connect(&at(address)).unwrap(), &BTreeSet::new()).await.unwrap_err();
    assert_eq!(error.kind, MeshErrorKind::Unreachable);
    assert!(error.message.contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn connection_error_keeps_its_sources() {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = list_owned(&connect(&at(address)).unwrap(), &BTreeSet::new()).await.unwrap_err();
    let transport = error.source().and_then(|source| source.downcast_ref::<TransportError>()).unwrap();
    assert_eq!(transport.kind, TransportErrorKind::Connect);
    let mut innermost = transport.source().unwrap();
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let refused = innermost.downcast_ref::<std::io::Error>().unwrap();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(error.message.matches(&refused.to_string()).count(), 1, "{error}");
}

#[tokio::test]
async fn truncated_and_foreign_responses_are_unexpected() {
    for body in [r#"{"items": [{"#, "<html>hello</html>", "", "\u{0}\u{1}"] {
        let (address, _) = server(move || body).await;
        let kuma = connect(&at(address)).unwrap();
        let list = list_owned(&kuma, &BTreeSet::new()).await.unwrap_err();
        let one = kuma.get(&id("default", TASK)).await.unwrap_err();
        assert_eq!([list.kind, one.kind], [MeshErrorKind::UnexpectedResponse; 2], "{body:?}");
        assert!(list.message.contains("parsing the response"), "{list}");
    }
}

#[tokio::test]
async fn truncated_response_is_a_transport_error() {
    let address = raw_server(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"items\":");
    });
    let error = list_owned(&connect(&at(address)).unwrap(), &BTreeSet::new()).await.unwrap_err();
    assert_eq!(error.kind, MeshErrorKind::Unreachable);
}

#[tokio::test]
async fn oversized_response_is_rejected() {
    let (address, _) = server(|| Body::from(vec![b' '; 5 * 1024 * 1024])).await;
    let transport = transport(&at(address));
    let error = transport.send(HttpMethod::Get, "/config", None).await.unwrap_err();
    assert_eq!(error.kind, TransportErrorKind::TooLarge);
    let list = transport.send(HttpMethod::Get, "/dataplanes?size=1000", None).await.unwrap();
    assert_eq!(list.body.len(), 5 * 1024 * 1024, "a list may be larger");
}

#[tokio::test]
async fn server_with_the_configured_ca_is_trusted() {
    let mut spec = at(tls_server());
    spec.address = spec.address.replace("http://127.0.0.1", "https://localhost");
    spec.ca_file = Some(tls_fixture("ca.pem"));
    let response = transport(&spec).send(HttpMethod::Get, "/", None).await.unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&response.body).unwrap(), json!({}));
}

#[tokio::test]
async fn server_is_checked_for_the_tls_server_name() {
    let mut spec = at(tls_server());
    spec.address = spec.address.replace("http://", "https://");
    spec.ca_file = Some(tls_fixture("ca.pem"));
    spec.tls_server_name = Some(TlsServerName::parse("localhost").unwrap());
    assert_eq!(transport(&spec).send(HttpMethod::Get, "/", None).await.unwrap().status, 200);
}

#[tokio::test]
async fn tls_error_contains_the_next_step() {
    for (host, ca, advice) in [
        ("https://localhost", "other-ca.pem", "other-ca.pem; help: set ControlPlane.spec.kuma.caFile"),
        ("https://127.0.0.1", "ca.pem", "help: set ControlPlane.spec.kuma.tlsServerName"),
    ] {
        let mut spec = at(tls_server());
        spec.address = spec.address.replace("http://127.0.0.1", host);
        spec.ca_file = Some(tls_fixture(ca));
        let error = transport(&spec).send(HttpMethod::Get, "/", None).await.unwrap_err();
        assert_eq!(error.kind, TransportErrorKind::Tls, "{error}");
        assert!(error.source().unwrap().is::<rustls::Error>(), "{error:?}");
        assert!(error.message.contains(advice), "{error}");
    }
}

#[tokio::test]
async fn tls_error_suggests_the_port_when_server_is_plain_http() {
    let (address, _) = server(|| "").await;
    let mut spec = at(address);
    spec.address = spec.address.replace("http://", "https://");
    spec.ca_file = Some(tls_fixture("ca.pem"));
    let error = transport(&spec).send(HttpMethod::Get, "/", None).await.unwrap_err();
    assert!(error.message.contains("5681"), "{error}");
}

#[test]
fn invalid_settings_are_rejected_at_startup() {
    let spec = || at("127.0.0.1:1");
    let with = |change: fn(&mut KumaConnection)| {
        let mut spec = spec();
        change(&mut spec);
        connect(&spec).err().unwrap()
    };
    let missing = with(|spec| spec.ca_file = Some("/nowhere/ca.pem".into()));
    assert!(missing.to_string().contains("caFile: reading /nowhere/ca.pem"), "{missing}");
    let source = missing.source().unwrap().downcast_ref();
    assert!(matches!(source, Some(ReadFileError::Io(_))), "{missing:?}");
    let key = with(|spec| spec.ca_file = Some(tls_fixture("server.key")));
    assert!(key.to_string().contains("BEGIN CERTIFICATE"), "{key}");
    let twice = with(|spec| {
        spec.token_file = Some("a".into());
        spec.token_env = Some("B".into());
    });
    assert!(twice.to_string().contains("tokenFile and tokenEnv"), "{twice}");
    let variable = with(|spec| spec.ca_env = Some("NOT_SET_ANYWHERE".into()));
    assert!(variable.to_string().contains("caEnv: reading NOT_SET_ANYWHERE"), "{variable}");
}

#[tokio::test]
async fn manifest_may_not_name_what_is_not_allowed() {
    let (address, requests) = server(|| "{}").await;
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "hunter2").unwrap();
    let allowed = AllowList::new(["KUMA_*"], [directory.path().join("other")]);
    let _ = rustls::crypto::ring::default_provider().install_default();
    let connect = |spec: &KumaConnection| {
        KumaControlPlane::connect(spec, &allowed, operator(), Arc::new(NoObserver), Arc::new(NoSecrets))
    };
    // `PATH` is set in this process.
    let (path, credentials) = (Some("PATH".to_owned()), Some("AWS_SESSION_TOKEN".to_owned()));
    let file = Some(token);
    for (field, spec) in [
        ("tokenEnv: PATH", KumaConnection { token_env: path.clone(), ..at(address) }),
        ("caEnv: PATH", KumaConnection { ca_env: path, ..at(address) }),
        ("tokenEnv: AWS_SESSION_TOKEN", KumaConnection { token_env: credentials, ..at(address) }),
        ("caFile: ", KumaConnection { ca_file: file.clone(), ..at(address) }),
    ] {
        let refused = connect(&spec).err().unwrap();
        assert!(matches!(refused, SettingsError::Refused { .. }), "{refused:?}");
        assert!(refused.to_string().contains(field) && !refused.to_string().contains("hunter2"), "{refused}");
    }
    let kuma = connect(&KumaConnection { token_file: file, ..at(address) }).unwrap();
    let refused = list_owned(&kuma, &BTreeSet::new()).await.unwrap_err();
    assert_eq!(refused.kind, MeshErrorKind::Forbidden);
    assert!(refused.message.contains("tokenFile") && refused.message.contains("--allow-dir"), "{refused}");
    assert!(!refused.message.contains("hunter2") && requests.lock().unwrap().is_empty(), "{refused}");
}

/// Starts a thread that reads one request per connection, responds with `respond` and closes the connection.
fn raw_server(respond: impl Fn(&mut std::net::TcpStream) + Send + 'static) -> SocketAddr {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            respond(&mut stream);
        }
    });
    address
}

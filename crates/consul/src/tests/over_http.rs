//! Tests of the client over real sockets.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::Router;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use super::*;
use ecs_mesh_control_plane::http::HttpTransport;
use ecs_mesh_control_plane::list_owned;
use ecs_mesh_control_plane::{ControlPlane, MeshErrorKind};
use ecs_mesh_controller::{NoSecrets, SecretError, SecretRequest, Secrets, WriteObstacle};

/// Responds to each request by its path and token.
async fn server(response: impl Fn(&str, &str) -> Response + Clone + Send + Sync + 'static) -> SocketAddr {
    let router = Router::new().fallback(move |uri: Uri, headers: HeaderMap| {
        let token = headers.get("x-consul-token").map_or("", |token| token.to_str().unwrap());
        let response = response(uri.path(), token);
        async move { response }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

fn connect(address: impl std::fmt::Display, more: Value) -> ConsulControlPlane<HttpTransport> {
    connect_with(address, more, Arc::new(NoSecrets))
}

fn connect_with(
    address: impl std::fmt::Display,
    mut more: Value,
    secrets: Arc<dyn Secrets>,
) -> ConsulControlPlane<HttpTransport> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    more["address"] = format!("http://{address}").into();
    ConsulControlPlane::connect(&spec(&more), &allow_all(), operator(), Arc::new(NoObserver), secrets)
        .unwrap()
}

#[tokio::test]
async fn call_times_out_when_server_hangs() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let consul = connect(listener.local_addr().unwrap(), json!({"timeout": "100ms"}));
    let error = list_owned(&consul, &clusters()).await.unwrap_err();
    assert_eq!(error.kind, MeshErrorKind::Unreachable);
    assert!(error.message.contains("100ms"), "{error}");
    assert_eq!(consul.list_for_task(&task(1)).await.unwrap_err().kind, MeshErrorKind::Unreachable);
}

#[tokio::test]
async fn queued_write_checks_the_lease_again() {
    let (arrived, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(tokio::sync::Semaphore::new(0)));
    let (read_cache, gate) = (Arc::clone(&arrived), Arc::clone(&go));
    let router = Router::new().fallback(move || {
        read_cache.fetch_add(1, Ordering::SeqCst);
        let gate = Arc::clone(&gate);
        async move {
            gate.acquire().await.unwrap().forget();
            (StatusCode::NOT_FOUND, "ACL not found")
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let consul = Arc::new(connect(address, json!({})));
    let lease = Arc::new(super::removal::LeaseUntilTaken(AtomicBool::new(false)));
    consul.set_lease(lease.clone());
    let most = PRODUCT.max_concurrent_calls.unwrap();
    let reads: Vec<_> = (0..most)
        .map(|_| {
            let consul = Arc::clone(&consul);
            tokio::spawn(async move { consul.load_version().await })
        })
        .collect();
    while arrived.load(Ordering::SeqCst) < most {
        tokio::task::yield_now().await;
    }
    let removal = {
        let consul = Arc::clone(&consul);
        tokio::spawn(async move { consul.delete(&token_id(1)).await })
    };
    // Until the removal waits for a permit.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    lease.0.store(true, Ordering::Relaxed);
    go.add_permits(100);
    assert_eq!(removal.await.unwrap().unwrap_err().kind, MeshErrorKind::Obstructed(WriteObstacle::NotLeader));
    for read in reads {
        let _ = read.await;
    }
    assert_eq!(arrived.load(Ordering::SeqCst), most, "nothing but the reads was sent");
}

#[tokio::test]
async fn filtered_header_is_an_error() {
    let response = |path: &str, _: &str| {
        let body =
            if path == "/v1/acl/tokens" { json!([]) } else { json!({"Node": {"Node": "n"}, "Services": []}) };
        let header = if path == "/v1/acl/tokens" { "x-other" } else { "X-Consul-Results-Filtered-By-ACLs" };
        ([(header, "true")], body.to_string()).into_response()
    };
    let listed = list_owned(&connect(server(response).await, json!({})), &clusters()).await.unwrap();
    assert_eq!(failed_segments(&listed), [format!("the services of {CLUSTER}")]);
    let error = &listed.failed[0].error;
    assert_eq!(error.kind, MeshErrorKind::Forbidden);
    assert!(error.message.contains("service_prefix"), "{error}");
}

#[tokio::test]
async fn html_response_is_named_in_the_error() {
    let address = server(|_, _| "<html>It works!</html>".into_response()).await;
    let consul = connect(address, json!({}));
    for error in [
        consul.refresh_capabilities(&BTreeSet::new()).await.unwrap_err(),
        list_owned(&consul, &clusters()).await.unwrap_err(),
        consul.get(&service_id("web-1")).await.unwrap_err(),
    ] {
        assert_eq!(error.kind, MeshErrorKind::UnexpectedResponse);
        assert!(error.message.contains("HTML") && error.message.contains("8500"), "{error}");
    }
}

#[tokio::test]
async fn token_is_sent_in_header_and_never_in_errors() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "hunter2\n").unwrap();
    let response = |_: &str, token: &str| {
        (StatusCode::FORBIDDEN, format!("ACL not found, you sent {token}")).into_response()
    };
    let consul = connect(server(response).await, json!({"tokenFile": file.path()}));
    let error = list_owned(&consul, &clusters()).await.unwrap_err();
    assert_eq!(error.kind, MeshErrorKind::Forbidden);
    assert!(error.message.contains("(token)"), "{error}");
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
}

/// Returns a new token at each read.
struct RotatingSecrets(AtomicUsize);

#[async_trait]
impl Secrets for RotatingSecrets {
    async fn read(&self, _: SecretRequest<'_>) -> Result<String, SecretError> {
        Ok(format!("token-{}", self.0.fetch_add(1, Ordering::Relaxed)))
    }
}

#[tokio::test]
async fn secret_token_is_read_at_first_call() {
    let response = |_: &str, token: &str| {
        let tokens = if token == "token-0" { vec![super::token(1)] } else { vec![] };
        Value::from(tokens).to_string().into_response()
    };
    let arn = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:consul";
    let secrets = Arc::new(RotatingSecrets(AtomicUsize::new(0)));
    let consul = connect_with(server(response).await, json!({"tokenSecret": arn}), secrets.clone());
    assert_eq!(secrets.0.load(Ordering::Relaxed), 0, "nothing is read before it is needed");
    assert_eq!(complete(list_owned(&consul, &BTreeSet::new()).await), []);
    let listed = list_owned(&consul, &clusters()).await.unwrap();
    assert_eq!(listed.failed[0].error.kind, MeshErrorKind::UnexpectedResponse);
    assert_eq!(secrets.0.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn invalid_ca_secret_is_named_in_the_error() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arn = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:ca";
    let spec = spec(&json!({"address": "https://127.0.0.1:1", "caSecret": arn}));
    let secrets = Arc::new(RotatingSecrets(AtomicUsize::new(0)));
    let consul =
        ConsulControlPlane::connect(&spec, &allow_all(), operator(), Arc::new(NoObserver), secrets).unwrap();
    let error = list_owned(&consul, &clusters()).await.unwrap_err();
    assert_eq!(error.kind, MeshErrorKind::Unreachable);
    assert!(error.message.contains(arn) && error.message.contains("BEGIN CERTIFICATE"), "{error}");
    assert!(error.message.contains("spec.consul.caSecret"), "{error}");
}

#[tokio::test]
async fn burst_of_calls_uses_few_connections() {
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let counted = (open.clone(), most.clone());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (open, most) = counted.clone();
            most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::spawn(async move {
                use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
                while stream.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {
                    tokio::task::yield_now().await;
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue").await;
                }
                open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    let consul = Arc::new(connect(address, json!({})));
    let mut removals = tokio::task::JoinSet::new();
    for number in 0..300 {
        let consul = consul.clone();
        removals.spawn(async move {
            // Reads with invalid responses, concurrent with removals.
            let _ = consul.get(&token_id(number)).await;
            consul.delete(&token_id(number)).await
        });
    }
    for result in removals.join_all().await {
        assert_eq!(result, Ok(true));
    }
    let most = most.load(Ordering::SeqCst);
    assert!((1..=8).contains(&most), "{most}");
}

#[tokio::test]
async fn long_list_is_streamed() {
    // More than the limit of a buffered response.
    let list = || Value::from((0..4_000).map(super::token).collect::<Vec<_>>()).to_string();
    assert!(list().len() > 1024 * 1024);
    let response = move |path: &str, _: &str| match path {
        "/v1/acl/tokens" => list().into_response(),
        _ => json!({"Node": null, "Services": null}).to_string().into_response(),
    };
    let owned = complete(list_owned(&connect(server(response).await, json!({})), &clusters()).await);
    assert_eq!(owned.len(), 4_000);
}

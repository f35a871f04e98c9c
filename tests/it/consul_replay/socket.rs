//! Faults that need a socket: lost responses and excess connections.

use std::sync::Arc;

use ecs_mesh_sandbox::aws;
use ecs_mesh_sandbox::consul::http::{ConsulFault, ConsulFaults, NoConsulFaults};
use ecs_mesh_sandbox::consul::{ConsulConfig, ConsulRequest, in_process};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::server::{ACCOUNT, ConsulReplayServer, MANAGEMENT};

struct LoseConsulResponses;

impl ConsulFaults for LoseConsulResponses {
    fn decide(&self, method: &str, path: &str) -> ConsulFault {
        match (method, path) {
            ("DELETE", "/v1/acl/auth-method/lost") => ConsulFault::DropAfterEffect,
            ("DELETE", "/v1/acl/auth-method/never") => ConsulFault::Drop,
            ("DELETE", "/v1/acl/auth-method/late") => ConsulFault::StatusAfterEffect(503),
            ("DELETE", "/v1/acl/auth-method/refused") => ConsulFault::Status(500),
            _ => ConsulFault::None,
        }
    }
}

#[tokio::test]
async fn fault_drops_response_before_or_after_the_effect() {
    let server = ConsulReplayServer::with(ConsulConfig::default(), Arc::new(LoseConsulResponses)).await;
    let mut seen = Vec::new();
    for name in ["lost", "never", "late", "refused"] {
        let config = json!({"BoundIAMPrincipalARNs": ["arn:aws:iam::123456789012:role/task"]});
        let body = json!({"Name": name, "Type": "aws-iam", "Config": config});
        let method = ConsulRequest::new("PUT", "/v1/acl/auth-method", Some(MANAGEMENT), &body);
        assert_eq!(server.consul.with(|consul, now| consul.handle(now, &method)).status, 200);
        let url = format!("{}/v1/acl/auth-method/{name}", server.url);
        let call = |request: reqwest::RequestBuilder| request.header("x-consul-token", MANAGEMENT).send();
        let deleted = call(server.client.delete(&url)).await;
        let read = call(server.client.get(&url)).await.unwrap();
        seen.push((name, deleted.ok().map(|deleted| deleted.status().as_u16()), read.status().as_u16()));
    }
    assert_eq!(
        seen,
        [("lost", None, 404), ("never", None, 200), ("late", Some(503), 404), ("refused", Some(500), 200)]
    );
}

#[tokio::test]
async fn excess_connection_is_refused() {
    let config = ConsulConfig { connections_per_client: 2, ..ConsulConfig::default() };
    let server = ConsulReplayServer::with(config, Arc::new(NoConsulFaults)).await;
    let address = server.url.trim_start_matches("http://").to_owned();
    let mut held = Vec::new();
    for _ in 0..2 {
        let (status, stream) = leader(&address).await;
        assert_eq!(status, 200);
        held.push(stream);
    }
    assert_eq!(leader(&address).await.0, 429);
    held.clear();
    // The server notices the closed connection shortly after.
    while leader(&address).await.0 != 200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn account_answers_alike_over_http_and_in_process() {
    let server = ConsulReplayServer::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let aws_url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(aws::serve(listener, server.cloud.clone(), std::future::pending()));
    let config = json!({
        "BoundIAMPrincipalARNs": [format!("arn:aws:iam::{ACCOUNT}:role/consul-ecs/*")],
        "EnableIAMEntityDetails": true, "STSEndpoint": aws_url, "IAMEndpoint": aws_url,
    });
    let body = json!({"Name": "iam", "Type": "aws-iam", "Config": config});
    let method = ConsulRequest::new("PUT", "/v1/acl/auth-method", Some(MANAGEMENT), &body);
    let login = server.login("", &json!({"AuthMethod": "iam", "BearerToken": "(made anew)"}).to_string());
    let login = serde_json::from_str(&login).unwrap();
    let login = ConsulRequest::new("POST", "/v1/acl/login", None, &login);
    let calls = server.consul.with(|consul, now| {
        assert_eq!(consul.handle(now, &method).status, 200);
        consul.signed_calls(&login)
    });
    assert_eq!(calls.len(), 2);
    for call in calls {
        let mut request = server.client.post(&call.url).body(call.body.clone());
        for (name, value) in call.headers.iter().filter(|(name, _)| name != "Host") {
            request = request.header(name, value);
        }
        let found = request.send().await.unwrap();
        assert_eq!(
            (found.status(), &found.headers()["content-type"]),
            (StatusCode::OK, &"text/xml".parse().unwrap())
        );
        let wanted =
            server.cloud.with(|cloud, now| in_process::send_signed(cloud, now, &aws_url, &call)).unwrap();
        let found = found.text().await.unwrap();
        assert!(found.ends_with(&wanted.body), "{found}");
    }
}

/// The status of a request on a new connection, and the connection.
async fn leader(address: &str) -> (u16, TcpStream) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A refused connection may be closed before the request is sent.
    drop(stream.write_all(b"GET /v1/status/leader HTTP/1.1\r\nHost: consul\r\n\r\n").await);
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    (std::str::from_utf8(&head[9..]).unwrap().parse().unwrap(), stream)
}

#[tokio::test]
async fn token_is_accepted_in_either_header() {
    let server = ConsulReplayServer::start().await;
    let url = format!("{}/v1/acl/token/self", server.url);
    let own = server.client.get(&url).header("x-consul-token", MANAGEMENT).send().await.unwrap();
    let bearer = server.client.get(&url).bearer_auth(MANAGEMENT).send().await.unwrap();
    let (own, bearer): (Value, Value) = (own.json().await.unwrap(), bearer.json().await.unwrap());
    assert_eq!(own, bearer);
    assert_eq!(own["SecretID"], json!(MANAGEMENT));
}

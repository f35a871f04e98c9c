//! `HTTPS_PROXY` and `NO_PROXY`, with a proxy on loopback.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;

/// A proxy that refuses each request, and the heads of these requests.
async fn refusing_proxy() -> (String, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (seen, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 4_096];
            let length = stream.read(&mut head).await.unwrap_or_default();
            let _ = seen.send(String::from_utf8_lossy(&head[..length]).into_owned());
            let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await;
        }
    });
    (address, requests)
}

async fn call_through(https_proxy: String, endpoint: &str) -> AwsError {
    let variables = [("HTTPS_PROXY", https_proxy), ("NO_PROXY", "direct.invalid".to_owned())];
    let proxy = ProxyVariables::read(|name| {
        variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
    });
    let options = AwsOptions {
        endpoint_url: Some(endpoint.to_owned()),
        region: Some("eu-west-1".to_owned()),
        credentials: Some(Credentials::new("a", "b", None, None, "test")),
        proxy,
        ..AwsOptions::default()
    };
    AwsClients::connect(options).await.unwrap().ecs.list_clusters(None).await.unwrap_err()
}

#[tokio::test]
async fn https_calls_go_through_the_proxy() {
    let (address, mut requests) = refusing_proxy().await;
    let error = call_through(format!("http://user:hunter2@{address}"), "https://ecs.aws.invalid").await;
    let head = requests.recv().await.unwrap().to_lowercase();
    assert!(head.starts_with("connect ecs.aws.invalid:443 http/1.1\r\n"), "{head}");
    assert!(head.contains("proxy-authorization: basic dxnlcjpodw50zxiy"), "{head}");
    assert_eq!(error.kind, AwsErrorKind::Unavailable, "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[tokio::test]
async fn excepted_hosts_and_plain_http_are_called_directly() {
    let (address, mut requests) = refusing_proxy().await;
    for endpoint in
        ["https://direct.invalid", "https://127.0.0.1:1", "http://127.0.0.1:1", "http://aws.invalid"]
    {
        let error = call_through(format!("http://{address}"), endpoint).await;
        assert_eq!(error.kind, AwsErrorKind::Unavailable, "{error}");
        assert!(requests.try_recv().is_err(), "{endpoint} went through the proxy");
    }
}

#[tokio::test]
async fn proxy_without_a_usable_url_is_refused() {
    let proxy = ProxyVariables::read(|name| {
        (name == "HTTPS_PROXY").then(|| "socks5://user:hunter2@proxy:1080".to_owned())
    });
    let options = AwsOptions { proxy, region: Some("eu-west-1".to_owned()), ..AwsOptions::default() };
    let error = AwsClients::connect(options).await.err().unwrap().to_string();
    assert!(error.contains("\"socks5://proxy:1080\"") && !error.contains("hunter2"), "{error}");
}

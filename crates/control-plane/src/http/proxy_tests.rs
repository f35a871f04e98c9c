//! A control plane behind the proxy of the environment, with a proxy on loopback.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::HttpTransport;
use super::settings::{ConnectionSettings, Credential, Product, TextSources};
use super::transport::{HttpMethod, Transport};
use ecs_mesh_api::AllowList;
use ecs_mesh_controller::{NoSecrets, ProxyVariables};
use ecs_mesh_model::TlsServerName;

fn settings(address: &str, proxy: &str) -> ConnectionSettings {
    // An error means that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let product = Product {
        name: "Kuma",
        block: "spec.kuma",
        ports: (5681, 5682),
        token: "a user token",
        credential: Credential::Bearer,
        client_certificate_help: "let it accept user tokens",
        max_concurrent_calls: None,
    };
    let proxy = proxy.to_owned();
    ConnectionSettings {
        product,
        address: address.to_owned(),
        tls_server_name: None,
        ca: TextSources::default(),
        token: TextSources::default(),
        allowed: AllowList::new(["*"], ["/"]),
        proxy: ProxyVariables::read(|name| (name == "HTTPS_PROXY").then(|| proxy.clone())),
        timeout: Duration::from_secs(5),
    }
}

#[tokio::test]
async fn calls_go_through_the_proxy() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = format!("http://user:hunter2@{}", listener.local_addr().unwrap());
    let (seen, requests) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = [0; 4_096];
        let length = stream.read(&mut head).unwrap();
        seen.send(String::from_utf8_lossy(&head[..length]).to_lowercase()).unwrap();
        stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").unwrap();
    });
    let transport =
        HttpTransport::new(settings("https://cp.invalid:5682", &proxy), Arc::new(NoSecrets)).unwrap();
    let error = transport.send(HttpMethod::Get, "/", None).await.unwrap_err();
    let head = requests.recv_timeout(Duration::from_secs(5)).unwrap();
    assert!(head.starts_with("connect cp.invalid:5682 http/1.1\r\n"), "{head}");
    assert!(head.contains("proxy-authorization: basic"), "{head}");
    assert!(!error.message.contains("hunter2"), "{error}");
}

#[test]
fn proxy_that_cannot_be_used_is_refused() {
    let refusal = |settings| HttpTransport::new(settings, Arc::new(NoSecrets)).unwrap_err().to_string();
    let plain = refusal(settings("http://cp:5681", "http://proxy:3128"));
    assert!(plain.contains("spec.kuma.proxy has no use for an http:// address"), "{plain}");
    let name = Some(TlsServerName::parse("cp.internal").unwrap());
    let renamed =
        ConnectionSettings { tls_server_name: name, ..settings("https://cp:5682", "http://proxy:3128") };
    let renamed = refusal(renamed);
    assert!(renamed.contains("cannot be used with tlsServerName"), "{renamed}");
    let invalid = refusal(settings("https://cp:5682", "http://user:hunter2@[proxy"));
    assert!(invalid.contains("HTTPS_PROXY") && !invalid.contains("hunter2"), "{invalid}");
}

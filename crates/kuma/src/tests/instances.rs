//! A load balancer that chooses the instance for each connection, as a Network Load Balancer does.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::ConnectInfo;
use axum::http::{Method, StatusCode, Uri};
use serde_json::{Value, json};

use super::over_http::{at, connect};
use super::{TASK, id, stored_by_2x};
use crate::DataplaneCapabilities;
use ecs_mesh_api::KumaRelease;
use ecs_mesh_control_plane::ControlPlane;

/// Instances of 2.14 and 3.0 with one store.
#[derive(Default)]
struct BalancedInstances {
    /// The release of the instance of each connection, by the client's port.
    by_connection: BTreeMap<u16, KumaRelease>,
    stored: Option<Value>,
    puts: usize,
}

impl BalancedInstances {
    fn respond(&mut self, port: u16, method: &Method, path: &str, body: &[u8]) -> (StatusCode, String) {
        let next = if self.by_connection.len().is_multiple_of(2) { (3, 0) } else { (2, 14) };
        let release = *self.by_connection.entry(port).or_insert(KumaRelease::new(next.0, next.1));
        let shown = |body: &Value| release.without_unknown_fields(body);
        match (method, path) {
            (_, "/") => {
                let version = format!("{release}.1");
                (
                    StatusCode::OK,
                    json!({"product": "Kuma", "version": version, "instanceId": version}).to_string(),
                )
            }
            (&Method::PUT, _) => {
                self.puts += 1;
                let body = stored_by_2x(&serde_json::from_slice(body).unwrap(), true);
                self.stored = Some(shown(&body));
                (StatusCode::OK, "{}".to_owned())
            }
            _ => match &self.stored {
                Some(stored) => (StatusCode::OK, shown(stored).to_string()),
                None => (StatusCode::NOT_FOUND, json!({"status": 404, "title": "Not found"}).to_string()),
            },
        }
    }
}

async fn balanced_instances() -> (SocketAddr, Arc<Mutex<BalancedInstances>>) {
    let instances: Arc<Mutex<BalancedInstances>> = Arc::default();
    let state = Arc::clone(&instances);
    let respond =
        move |ConnectInfo(client): ConnectInfo<SocketAddr>, method: Method, uri: Uri, body: Bytes| {
            let response = state.lock().unwrap().respond(client.port(), &method, uri.path(), &body);
            async move { response }
        };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = Router::new().fallback(respond).into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    (address, instances)
}

#[tokio::test]
async fn version_reads_reach_each_instance() {
    let (address, _) = balanced_instances().await;
    let kuma = connect(&at(address)).unwrap();
    kuma.ensure_supported().await.unwrap();
    assert_eq!(kuma.registration_format().as_deref(), Some("2.14 and 3.0"));
}

#[tokio::test]
async fn write_that_a_new_instance_took_is_repeated() {
    let (address, instances) = balanced_instances().await;
    let kuma = connect(&at(address)).unwrap();
    kuma.ensure_supported().await.unwrap();
    let sent = super::demo_rendered(DataplaneCapabilities::default());
    kuma.put(&id("default", TASK), &sent).await.unwrap();
    {
        let instances = instances.lock().unwrap();
        let inbound = &instances.stored.as_ref().unwrap()["networking"]["inbound"][0];
        assert_eq!(inbound["tags"]["kuma.io/service"], "demo-app");
        assert!(instances.puts <= 2, "{}", instances.puts);
    }
    let current = kuma.get(&id("default", TASK)).await.unwrap().unwrap();
    assert_eq!(current.normal, crate::normalise(&sent), "the answer of the old instance counts");
}

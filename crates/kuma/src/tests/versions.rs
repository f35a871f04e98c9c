//! Which servers are written to, and in which dialect.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::calls::{UNSUPPORTED, resources, text, version};
use super::{
    ScriptedKumaTransport, TASK, demo, id, kuma, mesh, operator, page, responds, std_error,
    unreachable_server,
};
use crate::{DRAIN_LABEL, HttpMethod, HttpResponse, KumaControlPlane, NoObserver, Transport, TransportError};
use ecs_mesh_api::ApiDialect;
use ecs_mesh_control_plane::{ControlPlane, MeshErrorKind};

const IN_2X: [&str; 2] = ["ZoneIngress", "ZoneEgress"];

fn written() -> Result<HttpResponse, TransportError> {
    responds(201, &json!({}))
}

/// The demo app as a server of 3.x returns it.
fn stored_by_3x(sent: &Value) -> Value {
    let mut stored = sent.clone();
    stored["creationTime"] = "2026-11-22T03:28:44Z".into();
    stored["labels"]["kuma.io/display-name"] = TASK.into();
    stored["networking"]["inbound"][0]["health"] = json!({});
    stored
}

#[tokio::test]
async fn untested_version_is_written_to_once_its_first_write_is_read_back() {
    for (text, more, dialect) in
        [("3.1.0", &[][..], "3.x"), ("3.0.0-dev", &[][..], "3.x"), ("2.15.0", &IN_2X[..], "2.x")]
    {
        let script = ScriptedKumaTransport::of(vec![version(text), resources(more)]);
        let kuma = kuma(&script);
        kuma.ensure_supported().await.unwrap();
        let body = kuma.render(&demo(), None).body;
        let has_tags = body["networking"]["inbound"][0].get("tags").is_some();
        assert_eq!(has_tags, dialect == "2.x", "{text}");
        script.responses.lock().unwrap().extend([written(), responds(200, &stored_by_3x(&body)), written()]);
        for _ in 0..2 {
            kuma.put(&id("default", TASK), &body).await.unwrap();
        }
        let put = format!("PUT /meshes/default/dataplanes/{TASK}");
        let get = format!("GET /meshes/default/dataplanes/{TASK}");
        assert_eq!(script.paths()[2..], [put.clone(), get, put], "{text}");
    }
}

#[tokio::test]
async fn untested_version_with_other_resource_types_is_not_written_to() {
    for (text, more) in [("2.15.0", &[][..]), ("3.1.0", &IN_2X[..]), ("3.1.0", &["ZoneIngress"][..])] {
        let script = ScriptedKumaTransport::of(vec![version(text), resources(more)]);
        let kuma = kuma(&script);
        let error = kuma.ensure_supported().await.unwrap_err();
        assert_eq!(error.kind, UNSUPPORTED, "{text} {more:?}");
        assert!(error.message.contains("/_resources") && error.message.contains(text), "{error}");
        assert_eq!(kuma.put(&id("default", TASK), &json!({})).await.unwrap_err().kind, UNSUPPORTED);
    }
}

#[tokio::test(start_paused = true)]
async fn version_that_stores_the_first_write_differently_gets_no_other() {
    let script = ScriptedKumaTransport::of(vec![version("3.1.0"), resources(&[])]);
    let kuma = kuma(&script);
    kuma.ensure_supported().await.unwrap();
    let body = kuma.render(&demo(), None).body;
    let mut stored = stored_by_3x(&body);
    stored["networking"].as_object_mut().unwrap().remove("outbound");
    script.responses.lock().unwrap().push_back(written());
    script.responses.lock().unwrap().extend((0..10).map(|_| responds(200, &stored)));
    script.responses.lock().unwrap().extend([version("3.1.0"), version("3.1.1"), resources(&[])]);
    let error = kuma.put(&id("default", TASK), &body).await.unwrap_err();
    assert_eq!(error.kind, UNSUPPORTED);
    assert!(error.message.contains("networking.outbound"), "{error}");
    assert_eq!(kuma.delete(&id("default", TASK)).await.unwrap_err().kind, UNSUPPORTED);
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(kuma.ensure_supported().await.unwrap_err().kind, UNSUPPORTED, "it is tried only once");
    tokio::time::advance(Duration::from_secs(5)).await;
    kuma.ensure_supported().await.unwrap();
}

/// A read replica of the store may lag, and another writer may change the Dataplane in between.
#[tokio::test(start_paused = true)]
async fn passing_difference_does_not_refute_a_version() {
    let body = kuma(&ScriptedKumaTransport::of(Vec::new())).render(&demo(), None).body;
    let mut foreign = stored_by_3x(&body);
    foreign["labels"]["ecs-mesh.dev/operator"] = "other".into();
    let lagging = [written(), std_error(404), std_error(404), responds(200, &stored_by_3x(&body))];
    let overwritten = std::iter::once(written()).chain((0..10).map(|_| responds(200, &foreign)));
    for (responses, expected) in
        [(lagging.into(), None), (overwritten.collect::<Vec<_>>(), Some(MeshErrorKind::Conflict))]
    {
        let script = ScriptedKumaTransport::of(vec![version("2.15.0"), resources(&IN_2X)]);
        let kuma = kuma(&script);
        kuma.ensure_supported().await.unwrap();
        script.responses.lock().unwrap().extend(responses);
        let result = kuma.put(&id("default", TASK), &body).await;
        assert_eq!(result.err().map(|error| error.kind), expected);
        assert!(kuma.support().check().is_ok());
        assert_eq!(script.responses.lock().unwrap().len(), 0);
    }
}

/// A server of 3.1 that responds to a PUT only once it is told to.
#[derive(Default)]
struct SlowServer {
    put_received: Notify,
    respond: Notify,
    stored: std::sync::Mutex<Value>,
}

#[async_trait]
impl Transport for SlowServer {
    async fn send(
        &self,
        method: HttpMethod,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<HttpResponse, TransportError> {
        match (method, path) {
            (HttpMethod::Put, _) => {
                *self.stored.lock().unwrap() = serde_json::from_slice(&body.unwrap()).unwrap();
                self.put_received.notify_one();
                self.respond.notified().await;
                written()
            }
            (_, "/") => version("3.1.0"),
            (_, "/_resources") => resources(&[]),
            _ => responds(200, &stored_by_3x(&self.stored.lock().unwrap())),
        }
    }
}

#[tokio::test]
async fn other_writes_wait_for_the_first_to_an_untested_version() {
    let server = Arc::new(SlowServer::default());
    let kuma = Arc::new(KumaControlPlane::new(server.clone(), operator(), Arc::new(NoObserver)));
    kuma.ensure_supported().await.unwrap();
    let body = kuma.render(&demo(), None).body;
    let first = tokio::spawn({
        let (kuma, body) = (kuma.clone(), body.clone());
        async move { kuma.put(&id("default", TASK), &body).await }
    });
    server.put_received.notified().await;
    let second = kuma.put(&id("default", TASK), &body).await.unwrap_err();
    assert_eq!(second.kind, MeshErrorKind::Conflict, "{second}");
    let supported = tokio::spawn({
        let kuma = kuma.clone();
        async move { kuma.ensure_supported().await }
    });
    tokio::task::yield_now().await;
    assert!(!supported.is_finished(), "the next attempt does not wait");
    server.respond.notify_one();
    first.await.unwrap().unwrap();
    supported.await.unwrap().unwrap();
    server.respond.notify_one();
    kuma.put(&id("default", TASK), &body).await.unwrap();
}

/// Kong Gateway's Admin API has versions with the same numbers.
#[tokio::test]
async fn other_product_is_not_written_to_unless_the_dialect_is_named() {
    let admin_api = || responds(200, &json!({"tagline": "Welcome to kong", "version": "2.8.5"}));
    let error = kuma(&ScriptedKumaTransport::of(vec![admin_api()])).ensure_supported().await.unwrap_err();
    assert_eq!(error.kind, UNSUPPORTED);
    assert!(error.message.contains("spec.kuma.address"), "{error}");
    let script = ScriptedKumaTransport::of(vec![admin_api(), resources(&IN_2X)]);
    let named =
        KumaControlPlane::new(script, operator(), Arc::new(NoObserver)).with_dialect(Some(ApiDialect::V2));
    named.ensure_supported().await.unwrap();
    let product = responds(200, &json!({"tagline": "Kong Mesh", "version": "2.8.5"}));
    kuma(&ScriptedKumaTransport::of(vec![product])).ensure_supported().await.unwrap();
}

#[tokio::test]
async fn named_dialect_counts_where_the_version_decides_nothing() {
    use ApiDialect::{V2, V3};
    for (text, named, more, dialect) in [
        ("unknown", Some(V3), &[][..], Some("3.0")),
        ("unknown", Some(V2), &IN_2X[..], Some("2.14")),
        ("0.0.0-preview.v1234", Some(V3), &[][..], Some("3.0")),
        ("4.0.0", Some(V3), &[][..], Some("3.0")),
        ("2.6.9", Some(V2), &IN_2X[..], Some("2.6")),
        ("unknown", Some(V2), &[][..], None),
        ("unknown", Some(V3), &IN_2X[..], None),
        ("unknown", None, &[][..], None),
        ("3.0.1", Some(V2), &IN_2X[..], Some("3.0")),
        ("2.14.3", Some(V3), &[][..], Some("2.14")),
    ] {
        let script = ScriptedKumaTransport::of(vec![version(text), resources(more)]);
        let kuma = KumaControlPlane::new(script, operator(), Arc::new(NoObserver)).with_dialect(named);
        let supported = kuma.ensure_supported().await;
        assert_eq!(supported.is_ok(), dialect.is_some(), "{text} {named:?}: {supported:?}");
        if let Some(dialect) = dialect {
            assert_eq!(kuma.registration_format().as_deref(), Some(dialect), "{text} {named:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn failed_version_read_keeps_the_last_answer_for_five_minutes() {
    let html = || text(200, "<html>maintenance</html>");
    let responses = vec![version("3.0.1"), std_error(429), html(), html(), version("3.0.1")];
    let script = ScriptedKumaTransport::of(responses);
    let kuma = kuma(&script);
    kuma.ensure_supported().await.unwrap();
    for seconds in [100, 199] {
        tokio::time::advance(Duration::from_secs(seconds)).await;
        kuma.ensure_supported().await.unwrap();
    }
    tokio::time::advance(Duration::from_secs(1)).await;
    let error = kuma.ensure_supported().await.unwrap_err();
    assert_eq!(error.kind, MeshErrorKind::UnexpectedResponse);
    kuma.ensure_supported().await.unwrap();
    assert_eq!(script.paths(), ["GET /"; 5]);
}

#[tokio::test(start_paused = true)]
async fn last_answer_does_not_count_after_an_outage() {
    let html = text(200, "<html>maintenance</html>");
    let script = ScriptedKumaTransport::of(vec![version("3.0.1"), unreachable_server(), html]);
    let kuma = kuma(&script);
    kuma.ensure_supported().await.unwrap();
    tokio::time::advance(Duration::from_secs(6)).await;
    assert_eq!(kuma.ensure_supported().await.unwrap_err().kind, MeshErrorKind::Unreachable);
    assert_eq!(kuma.ensure_supported().await.unwrap_err().kind, MeshErrorKind::UnexpectedResponse);
}

#[tokio::test(start_paused = true)]
async fn unreachable_server_is_not_written_to() {
    let script = ScriptedKumaTransport::of(vec![version("3.0.1"), unreachable_server()]);
    let kuma = kuma(&script);
    kuma.ensure_supported().await.unwrap();
    tokio::time::advance(Duration::from_secs(6)).await;
    assert_eq!(kuma.ensure_supported().await.unwrap_err().kind, MeshErrorKind::Unreachable);
}

#[tokio::test(start_paused = true)]
async fn upgrade_changes_the_dialect_of_the_next_rendering() {
    let script =
        ScriptedKumaTransport::of(vec![version("2.14.3"), version("3.0.1"), version("2.14.3"), written()]);
    let kuma = kuma(&script);
    kuma.ensure_supported().await.unwrap();
    let (in_2x, format) = (kuma.render(&demo(), None), kuma.registration_format());
    assert!(in_2x.body["networking"]["inbound"][0].get("tags").is_some());
    tokio::time::advance(Duration::from_secs(5)).await;
    kuma.ensure_supported().await.unwrap();
    let in_3x = kuma.render(&demo(), None);
    assert_ne!(kuma.registration_format(), format);
    assert_ne!(in_3x.normal, in_2x.normal, "the stored registration would not be updated");
    // A body of before the upgrade is never sent: the server would accept it and drop its service.
    let error = kuma.put(&id("default", TASK), &in_2x.body).await.unwrap_err();
    assert_eq!(error.kind, MeshErrorKind::Conflict);
    assert!(error.message.contains("networking.inbound[0].tags"), "{error}");
    tokio::time::advance(Duration::from_secs(5)).await;
    kuma.ensure_supported().await.unwrap();
    let error = kuma.put(&id("default", TASK), &in_3x.body).await.unwrap_err();
    assert_eq!(error.kind, MeshErrorKind::Conflict, "a body without a service");
    let mut drained = in_3x.body;
    drained["labels"][DRAIN_LABEL] = "stopping".into();
    kuma.put(&id("default", TASK), &drained).await.unwrap();
}

#[tokio::test]
async fn service_is_the_workload_label_in_3_x() {
    let overview = |workload: &str, name: &str| {
        json!({
            "type": "DataplaneOverview", "mesh": "default", "name": name,
            "labels": {"kuma.io/workload": workload},
            "dataplane": {"networking": {"address": "10.0.0.1", "inbound": [{"port": 1}]}},
        })
    };
    let script = ScriptedKumaTransport::of(vec![
        version("3.0.1"),
        page(&[overview("web-shop", "a"), overview("other", "b")], None),
        page(&[json!({"name": "web-shop"})], None),
        page(&[], None),
        page(&[], None),
    ]);
    let kuma = kuma(&script);
    kuma.ensure_supported().await.unwrap();
    let mut desired = demo();
    desired.service = ecs_mesh_model::ServiceName::parse("web_shop").unwrap();
    desired.workload = Some("web-shop".into());
    let service = kuma.registered_service(&desired);
    let read = super::registration(kuma.render(&desired, None).body);
    assert_eq!((service, read.service.as_deref()), ("web-shop", Some("web-shop")));
    let found = kuma.list_endpoints(&mesh("default"), service).await.unwrap();
    let names: Vec<&str> = found.iter().map(|found| &*found.endpoint.id.name).collect();
    assert_eq!(names, ["a"]);
    let known = kuma.list_callable(&mesh("default")).await.unwrap().resources;
    assert_eq!(known[0].name, "web-shop");
    let filter = "filter%5Blabels.kuma.io%2Fworkload%5D=web-shop&size=1000";
    assert_eq!(script.paths()[1], format!("GET /meshes/default/dataplanes+insights?{filter}"));
    assert_eq!(script.paths()[2], "GET /meshes/default/meshservices?size=1000");
}

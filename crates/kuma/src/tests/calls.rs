use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{
    RecordingKumaObserver, ScriptedKumaTransport, TASK, demo, demo_rendered, id, kuma, mesh, operator, page,
    responds, std_error, stored_by_2x, unreachable_server,
};
use crate::{
    DataplaneCapabilities, HealthDiscovery, HttpResponse, KumaControlPlane, MeshCallObserver, ServicesMode,
};
use ecs_mesh_api::{BackendKind, KumaFeature};
use ecs_mesh_control_plane::list_owned;
use ecs_mesh_control_plane::{ControlPlane, MeshErrorKind, RegistrationOwner};
use ecs_mesh_controller::WriteObstacle;

pub(super) fn version(text: &str) -> Result<HttpResponse, crate::TransportError> {
    responds(200, &json!({"product": "Kuma", "version": text}))
}

/// The response to `GET /_resources` of a server with these types beside those of every version.
pub(super) fn resources(more: &[&str]) -> Result<HttpResponse, crate::TransportError> {
    let names = ["Dataplane", "Mesh", "MeshService"].iter().chain(more);
    responds(200, &json!({"resources": names.map(|name| json!({"name": name})).collect::<Vec<_>>()}))
}

fn config(hds: bool) -> Result<HttpResponse, crate::TransportError> {
    responds(
        200,
        &json!({"mode": "zone", "dpServer": {"hds": {"enabled": hds}}, "apiServer": {"readOnly": false}}),
    )
}

fn dataplane(name: &str) -> Value {
    let mut stored = stored_by_2x(&demo_rendered(DataplaneCapabilities::default()), true);
    stored["name"] = name.into();
    stored
}

#[allow(clippy::unnecessary_wraps, reason = "scripts are lists of results")]
pub(super) fn text(status: u16, body: &str) -> Result<HttpResponse, crate::TransportError> {
    Ok(HttpResponse { status, retry_after: None, body: body.as_bytes().to_vec() })
}

#[tokio::test]
async fn list_owned_returns_each_registration_of_all_pages_once() {
    let script = ScriptedKumaTransport::of(vec![
        page(&[dataplane("a"), dataplane("b")], Some("http://elsewhere:1/dataplanes?x=1&offset=2&size=2")),
        page(&[dataplane("b"), dataplane("c")], None),
    ]);
    let owned = list_owned(&kuma(&script), &BTreeSet::new()).await.unwrap().seen;
    let names: Vec<&str> = owned.iter().map(|r| &*r.id.name).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert!(owned.iter().all(|r| matches!(r.owner, RegistrationOwner::Owned(_))));
    let first = "GET /dataplanes?filter%5Blabels.ecs-mesh.dev%2Foperator%5D=op-1&size=1000";
    assert_eq!(script.paths(), [first.to_owned(), format!("{first}&offset=2")]);
}

#[tokio::test]
async fn list_fails_when_a_page_fails() {
    let script = ScriptedKumaTransport::of(vec![
        page(&[dataplane("a")], Some("/dataplanes?offset=1")),
        std_error(500),
    ]);
    let error = list_owned(&kuma(&script), &BTreeSet::new()).await.unwrap_err();
    assert_eq!(error.kind, MeshErrorKind::Unreachable);
    assert!(error.message.contains("offset=1"), "{error}");
}

#[tokio::test]
async fn list_fails_when_its_pages_repeat() {
    let script = ScriptedKumaTransport::of(vec![
        page(&[], Some("/dataplanes?offset=1")),
        page(&[], Some("/dataplanes?offset=2")),
        page(&[], Some("/dataplanes?offset=1")),
    ]);
    let error = list_owned(&kuma(&script), &BTreeSet::new()).await.unwrap_err();
    assert_eq!(error.kind, MeshErrorKind::UnexpectedResponse);
    assert!(error.message.contains("does not end"), "{error}");
}

#[tokio::test]
async fn list_fails_when_it_has_too_many_pages() {
    let pages = (0..2_000).map(|n| page(&[], Some(&format!("/dataplanes?offset={n}")))).collect();
    let error = list_owned(&kuma(&ScriptedKumaTransport::of(pages)), &BTreeSet::new()).await.unwrap_err();
    assert!(error.message.contains("does not end"), "{error}");
}

#[tokio::test]
async fn malformed_item_is_skipped_and_counted() {
    let marked = json!({"ecs-mesh.dev/operator": "op-1"});
    let script = ScriptedKumaTransport::of(vec![page(
        &[
            json!("what"),
            json!({"name": "x", "labels": marked}),
            json!({"mesh": "default", "labels": marked}),
            json!({"mesh": "default", "name": "x", "labels": marked, "networking": "?"}),
            dataplane("good"),
        ],
        None,
    )]);
    let outcomes = Arc::new(RecordingKumaObserver::default());
    let kuma = KumaControlPlane::new(script, operator(), outcomes.clone());
    assert_eq!(list_owned(&kuma, &BTreeSet::new()).await.unwrap().seen.len(), 1);
    let skipped = ["list_owned skipped"; 4];
    assert_eq!(outcomes.0.lock().unwrap()[..], [&skipped[..], &["list_owned success"]].concat());
}

#[tokio::test]
async fn list_owned_excludes_others_when_filter_is_ignored() {
    let mut foreign = dataplane("foreign");
    foreign["labels"]["ecs-mesh.dev/operator"] = "op-2".into();
    let unlabelled = json!({"mesh": "default", "name": "x", "networking": {}});
    let script = ScriptedKumaTransport::of(vec![page(&[foreign, unlabelled, dataplane("ours")], None)]);
    let owned = list_owned(&kuma(&script), &BTreeSet::new()).await.unwrap().seen;
    assert_eq!(owned.len(), 1);
    assert_eq!(&*owned[0].id.name, "ours");
}

#[tokio::test]
async fn list_fails_when_it_has_no_items_field() {
    for response in [json!({}), json!({"items": 7}), json!([]), json!({"items": [], "next": "http://x/"})] {
        let error =
            list_owned(&kuma(&ScriptedKumaTransport::of(vec![responds(200, &response)])), &BTreeSet::new())
                .await
                .unwrap_err();
        assert_eq!(error.kind, MeshErrorKind::UnexpectedResponse, "{response}");
    }
    let nothing = responds(200, &json!({"total": 0, "items": null, "next": null}));
    assert_eq!(
        list_owned(&kuma(&ScriptedKumaTransport::of(vec![nothing])), &BTreeSet::new()).await.unwrap().seen,
        []
    );
}

#[tokio::test]
async fn missing_dataplane_is_none_and_not_removed() {
    let script = ScriptedKumaTransport::of(vec![std_error(404), version("2.14.3"), std_error(404)]);
    let kuma = kuma(&script);
    assert_eq!(kuma.get(&id("default", "a b/c")).await.unwrap(), None);
    assert!(!kuma.delete(&id("default", TASK)).await.unwrap());
    assert_eq!(script.paths()[0], "GET /meshes/default/dataplanes/a%20b%2Fc");
}

#[tokio::test]
async fn get_fails_when_404_has_no_kuma_body() {
    for body in ["<html>Not Found</html>", "404: Page Not Found", r#"{"message":"Not Found"}"#, ""] {
        let script = ScriptedKumaTransport::of(vec![text(404, body), text(404, body)]);
        let kuma = kuma(&script);
        let read = kuma.get(&id("default", TASK)).await.unwrap_err();
        let deleted = kuma.delete(&id("default", TASK)).await.unwrap_err();
        assert_eq!([read.kind, deleted.kind], [MeshErrorKind::UnexpectedResponse; 2], "{body}");
    }
}

#[tokio::test]
async fn unreadable_dataplane_error_names_it() {
    for (response, what) in [
        (json!({"mesh": "default", "name": TASK, "labels": 1}), "labels"),
        (json!({"mesh": "default", "name": "other"}), "default/other"),
        (json!([]), "not an object"),
    ] {
        let error = kuma(&ScriptedKumaTransport::of(vec![responds(200, &response)]))
            .get(&id("default", TASK))
            .await
            .unwrap_err();
        assert_eq!(error.kind, MeshErrorKind::UnexpectedResponse);
        assert!(error.message.contains(TASK) && error.message.contains(what), "{error}");
    }
}

#[tokio::test]
async fn credential_in_a_response_is_never_in_errors() {
    const KEY: &str = "AKIAIOSFODNN7EXAMPLE";
    let error_body = json!({
        "title": KEY, "detail": KEY, "invalid_parameters": [{"field": KEY, "reason": KEY}],
    });
    for (status, body) in [
        (200, KEY.to_owned()),
        (200, format!("{{\"AccessKeyId\": \"{KEY}\"")),
        (200, json!(KEY).to_string()),
        (200, json!({"items": KEY}).to_string()),
        (200, json!({"items": [{"mesh": "default", "name": KEY}], "next": KEY}).to_string()),
        (200, json!({"items": [], "next": format!("http://next?offset={KEY}")}).to_string()),
        (200, json!({"mesh": "default", "name": KEY}).to_string()),
        (200, json!({"product": KEY, "version": KEY}).to_string()),
        (200, json!({"product": KEY, "version": format!("3.0.{KEY}")}).to_string()),
        (400, error_body.to_string()),
        (403, KEY.to_owned()),
        (404, json!({"AccessKeyId": KEY}).to_string()),
    ] {
        let response = || text(status, &body);
        let script = ScriptedKumaTransport::of(std::iter::repeat_with(response).take(8).collect());
        let kuma = kuma(&script);
        for error in [
            list_owned(&kuma, &BTreeSet::new()).await.unwrap_err(),
            kuma.get(&id("default", TASK)).await.unwrap_err(),
            kuma.refresh_capabilities(&BTreeSet::new()).await.unwrap_err(),
            kuma.put(&id("default", TASK), &json!({})).await.unwrap_err(),
        ] {
            assert!(!format!("{error:?}").contains(KEY), "{body}: {error:?}");
        }
    }
}

#[tokio::test]
async fn each_status_has_its_error_kind() {
    use MeshErrorKind::{
        Conflict, Forbidden, Invalid, MeshNotFound, ReadOnly, Throttled, UnexpectedResponse, Unreachable,
    };
    for (status, kind, hint) in [
        (302, UnexpectedResponse, "redirects are not followed"),
        (400, Invalid, "It failed: for a reason"),
        (401, Forbidden, "tokenFile"),
        (403, Forbidden, "tokenFile"),
        (404, MeshNotFound, "MeshBinding.spec.mesh"),
        (405, ReadOnly, "zone"),
        (409, Conflict, "409"),
        (415, UnexpectedResponse, "415"),
        (429, Throttled, "429"),
        (500, Unreachable, "500"),
        (503, Unreachable, "503"),
    ] {
        let script = ScriptedKumaTransport::of(vec![version("2.14.3"), std_error(status)]);
        let error = kuma(&script).put(&id("default", TASK), &json!({})).await.unwrap_err();
        assert_eq!(error.kind, kind, "{status}");
        assert!(error.message.contains(hint), "{error}");
        assert!(error.message.starts_with("PUT /meshes/default/dataplanes/"), "{error}");
    }
}

#[tokio::test]
async fn rejected_body_error_names_fields_and_reasons() {
    let refusal = json!({
        "type": "/std-errors", "status": 400, "title": "Refused", "detail": "Not valid",
        "invalid_parameters": [
            {"field": "networking.inbound[0].port", "reason": "out of range"},
            {"field": "networking.address", "reason": "missing"},
        ],
    });
    let script = ScriptedKumaTransport::of(vec![version("2.14.3"), responds(400, &refusal)]);
    let error = kuma(&script).put(&id("default", TASK), &json!({})).await.unwrap_err();
    let fields = "networking.inbound[0].port: out of range, networking.address: missing";
    assert!(error.message.contains(fields), "{error}");
}

#[tokio::test]
async fn write_fails_when_response_is_html() {
    let script = ScriptedKumaTransport::of(vec![version("2.14.3"), text(200, "<html>Please log in</html>")]);
    let error = kuma(&script).put(&id("default", TASK), &json!({})).await.unwrap_err();
    assert_eq!(error.kind, MeshErrorKind::UnexpectedResponse);
    assert!(error.message.contains("HTML"), "{error}");
}

#[tokio::test]
async fn empty_write_response_means_success_on_old_versions() {
    let script = ScriptedKumaTransport::of(vec![version("2.7.0"), text(201, ""), text(200, "")]);
    let kuma = kuma(&script);
    kuma.put(&id("default", TASK), &json!({"type": "Dataplane"})).await.unwrap();
    assert!(kuma.delete(&id("default", TASK)).await.unwrap());
}

#[tokio::test]
async fn names_that_are_path_steps_are_never_sent() {
    let script = ScriptedKumaTransport::of(vec![]);
    for name in ["", ".", ".."] {
        let error = kuma(&script).delete(&id("default", name)).await.unwrap_err();
        assert_eq!(error.kind, MeshErrorKind::Invalid);
    }
}

#[tokio::test]
async fn unsupported_version_is_never_written_to() {
    let script = ScriptedKumaTransport::of(vec![version("4.0.0-dev"), version("4.0.0-dev")]);
    let kuma = kuma(&script);
    let refreshed = kuma.refresh_capabilities(&BTreeSet::new()).await.unwrap_err();
    assert_eq!(refreshed.kind, UNSUPPORTED);
    assert!(refreshed.message.contains("Kuma 4.0.0-dev"), "{refreshed}");
    assert_eq!(kuma.put(&id("default", TASK), &json!({})).await.unwrap_err().kind, UNSUPPORTED);
    assert_eq!(kuma.delete(&id("default", TASK)).await.unwrap_err().kind, UNSUPPORTED);
    assert_eq!(script.paths(), ["GET /"], "a write was sent");
}

#[tokio::test]
async fn dataplane_without_inbounds_needs_2_14() {
    let without = ecs_mesh_core::intent::DesiredRegistration { inbounds: Vec::new(), ..demo() };
    for (text, is_accepted) in [("2.7.0", false), ("2.13.9", false), ("2.14.0", true), ("2.15.0", true)] {
        let resources = text.starts_with("2.15").then(|| resources(&["ZoneIngress", "ZoneEgress"]));
        let kuma =
            kuma(&ScriptedKumaTransport::of(std::iter::once(version(text)).chain(resources).collect()));
        kuma.ensure_supported().await.unwrap();
        let checked = kuma.check_desired(&without).map_err(|error| error.kind);
        assert_eq!(checked, if is_accepted { Ok(()) } else { Err(MeshErrorKind::NotExpressible) }, "{text}");
        assert_eq!(kuma.check_desired(&demo()), Ok(()), "{text}");
    }
}

pub(super) const UNSUPPORTED: MeshErrorKind =
    MeshErrorKind::Obstructed(WriteObstacle::UnsupportedControlPlane);

#[tokio::test]
async fn unreadable_and_old_versions_are_unsupported() {
    for text in ["unknown", "", "0.0.0-preview.v1234", "2.6.9", "1.8.0", "4.1.0"] {
        let kuma = kuma(&ScriptedKumaTransport::of(vec![version(text), version(text)]));
        kuma.refresh_capabilities(&BTreeSet::new()).await.unwrap_err();
        assert_eq!(kuma.ensure_supported().await.unwrap_err().kind, UNSUPPORTED, "{text}");
    }
    for text in ["2.7.0", "v2.9.1", "2.14.3", "2.14.3+build.1", "3.0.1"] {
        let kuma = kuma(&ScriptedKumaTransport::of(vec![version(text)]));
        kuma.ensure_supported().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn upgrade_under_a_running_operator_stops_writes_until_it_is_undone() {
    let written = || responds(200, &json!({}));
    let script = ScriptedKumaTransport::of(vec![
        version("2.14.3"),
        written(),
        version("4.0.1"),
        version("2.14.3"),
        written(),
    ]);
    let kuma = kuma(&script);
    let put = async || {
        kuma.ensure_supported().await?;
        kuma.put(&id("default", TASK), &json!({})).await
    };
    put().await.unwrap();
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(put().await.unwrap_err().kind, UNSUPPORTED);
    assert_eq!(kuma.support().refusal().map(|reason| reason.contains("4.0.1")), Some(true));
    tokio::time::advance(Duration::from_secs(5)).await;
    put().await.unwrap();
    assert_eq!(kuma.support().refusal(), None);
}

#[tokio::test(start_paused = true)]
async fn failed_connection_makes_the_next_write_read_the_version() {
    let script = ScriptedKumaTransport::of(vec![version("2.14.3"), unreachable_server(), version("4.0.1")]);
    let kuma = kuma(&script);
    kuma.ensure_supported().await.unwrap();
    let error = kuma.put(&id("default", TASK), &json!({})).await.unwrap_err();
    assert_eq!(error.kind, MeshErrorKind::Unreachable);
    assert_eq!(kuma.ensure_supported().await.unwrap_err().kind, UNSUPPORTED);
}

#[tokio::test]
async fn first_write_reads_the_version_once() {
    let script = ScriptedKumaTransport::of(vec![
        version("2.14.3"),
        responds(201, &json!({})),
        responds(200, &json!({})),
    ]);
    let kuma = kuma(&script);
    for _ in 0..2 {
        kuma.put(&id("default", TASK), &json!({})).await.unwrap();
    }
    assert_eq!(script.paths().iter().filter(|path| *path == "GET /").count(), 1);
}

#[tokio::test]
async fn refresh_reads_health_discovery_and_mesh_modes() {
    let script = ScriptedKumaTransport::of(vec![
        version("2.7.4"),
        config(false),
        responds(200, &json!({"type": "Mesh", "name": "a", "meshServices": {"mode": "Exclusive"}})),
        page(&[], None),
        responds(200, &json!({"type": "Mesh", "name": "b", "meshServices": {"mode": "Everywhere"}})),
        page(&[], None),
    ]);
    let kuma = kuma(&script);
    kuma.refresh_capabilities(&[mesh("a"), mesh("b")].into()).await.unwrap();
    let (a, b) = (kuma.capabilities(&mesh("a")), kuma.capabilities(&mesh("b")));
    assert_eq!((a.services, b.services), (ServicesMode::Exclusive, ServicesMode::Everywhere));
    assert_eq!(a.health_discovery, HealthDiscovery::Off);
    assert!(!a.has(KumaFeature::InboundNames), "2.7 drops the names of inbounds");
    assert_eq!(&*kuma.version().unwrap().text, "Kuma 2.7.4");
}

#[tokio::test]
async fn refresh_reads_other_meshes_when_one_is_missing() {
    let exclusive = json!({"meshServices": {"mode": "Exclusive"}});
    let script = ScriptedKumaTransport::of(vec![
        version("2.14.3"),
        config(true),
        std_error(404),
        responds(200, &exclusive),
        page(&[], None),
    ]);
    let kuma = kuma(&script);
    let error = kuma.refresh_capabilities(&[mesh("a"), mesh("b")].into()).await.unwrap_err();
    assert_eq!(error.kind, MeshErrorKind::MeshNotFound);
    assert!(error.message.contains("/meshes/a"), "{error}");
    assert!(kuma.capabilities(&mesh("b")).mesh_services_only());
}

#[tokio::test]
async fn capabilities_are_kept_when_refresh_fails() {
    let exclusive = json!({"meshServices": {"mode": "Exclusive"}});
    let script = ScriptedKumaTransport::of(vec![
        version("2.14.3"),
        config(false),
        responds(200, &exclusive),
        page(&[], None),
        unreachable_server(),
        version("2.14.3"),
        unreachable_server(),
    ]);
    let kuma = kuma(&script);
    let meshes: BTreeSet<_> = [mesh("default")].into();
    kuma.refresh_capabilities(&meshes).await.unwrap();
    let before = kuma.capabilities(&mesh("default"));
    for _ in 0..2 {
        assert_eq!(kuma.refresh_capabilities(&meshes).await.unwrap_err().kind, MeshErrorKind::Unreachable);
    }
    assert_eq!(kuma.capabilities(&mesh("default")), before);
}

#[tokio::test]
async fn unreadable_configuration_keeps_the_default() {
    let script = ScriptedKumaTransport::of(vec![version("2.14.3"), std_error(403)]);
    let kuma = kuma(&script);
    kuma.refresh_capabilities(&BTreeSet::new()).await.unwrap();
    assert_eq!(kuma.capabilities(&mesh("default")).health_discovery, HealthDiscovery::On);
}

#[tokio::test]
async fn refresh_fails_when_control_plane_is_read_only() {
    for config in [json!({"mode": "global"}), json!({"mode": "zone", "apiServer": {"readOnly": true}})] {
        let script = ScriptedKumaTransport::of(vec![version("2.14.3"), responds(200, &config)]);
        let error = kuma(&script).refresh_capabilities(&BTreeSet::new()).await.unwrap_err();
        assert_eq!(error.kind, MeshErrorKind::ReadOnly, "{config}");
    }
}

#[tokio::test]
async fn refresh_fails_when_server_is_not_kuma() {
    for response in [responds(200, &json!({"hello": "world"})), text(200, "<html>"), text(404, "nginx")] {
        let error = kuma(&ScriptedKumaTransport::of(vec![response]))
            .refresh_capabilities(&BTreeSet::new())
            .await
            .unwrap_err();
        assert_eq!(error.kind, MeshErrorKind::UnexpectedResponse);
        assert!(error.message.contains("address"), "{error}");
    }
}

#[tokio::test]
async fn services_come_from_insights_or_mesh_services() {
    let named = |name: &str| json!({"name": name});
    let insights = ScriptedKumaTransport::of(vec![
        page(&[named("kv")], Some("/meshes/default/service-insights?offset=1&size=1000")),
        page(&[named("demo")], None),
    ]);
    let found = kuma(&insights).list_services(&mesh("default")).await.unwrap();
    assert_eq!(found, BTreeSet::from(["demo".to_owned(), "kv".to_owned()]));

    let exclusive = ScriptedKumaTransport::of(vec![
        version("2.14.3"),
        config(true),
        responds(200, &json!({"meshServices": {"mode": "Exclusive"}})),
        page(&[], None),
        page(&[named("redis")], None),
        page(&[named("payments")], None),
        page(&[], None),
    ]);
    let kuma = kuma(&exclusive);
    kuma.refresh_capabilities(&[mesh("m")].into()).await.unwrap();
    let found = kuma.list_callable(&mesh("m")).await.unwrap();
    assert_eq!(found.names, None);
    let found: Vec<_> = found.resources.iter().map(|one| (one.kind, one.name.as_str())).collect();
    let wanted = [(BackendKind::MeshService, "redis"), (BackendKind::MeshExternalService, "payments")];
    assert_eq!(found, wanted);
    assert_eq!(exclusive.paths()[4], "GET /meshes/m/meshservices?size=1000");
}

#[tokio::test]
async fn services_come_from_tags_without_insights() {
    let script = ScriptedKumaTransport::of(vec![std_error(404), page(&[dataplane("a")], None)]);
    let found = kuma(&script).list_services(&mesh("default")).await.unwrap();
    assert_eq!(found, BTreeSet::from(["demo-app".to_owned()]));
}

#[tokio::test]
async fn list_services_fails_when_mesh_does_not_exist() {
    let script = ScriptedKumaTransport::of(vec![std_error(404), std_error(404)]);
    let error = kuma(&script).list_services(&mesh("nope")).await.unwrap_err();
    assert_eq!(error.kind, MeshErrorKind::MeshNotFound);
}

#[tokio::test]
async fn every_operation_is_observed_with_its_result() {
    let script = ScriptedKumaTransport::of(vec![
        version("2.14.3"),
        std_error(409),
        unreachable_server(),
        std_error(404),
        responds(200, &json!({})),
        page(&[], None),
    ]);
    let outcomes = Arc::new(RecordingKumaObserver::default());
    let observer: Arc<dyn MeshCallObserver> = outcomes.clone();
    let kuma = KumaControlPlane::new(script, operator(), observer);
    let body = kuma.render(&demo(), None).body;
    let id = id("default", TASK);
    kuma.put(&id, &body).await.unwrap_err();
    kuma.refresh_capabilities(&BTreeSet::new()).await.unwrap_err();
    kuma.get(&id).await.unwrap();
    kuma.delete(&id).await.unwrap();
    kuma.list_services(&mesh("default")).await.unwrap();
    let calls = outcomes.0.lock().unwrap().clone();
    assert_eq!(
        calls,
        [
            "put conflict",
            "refresh_capabilities unreachable",
            "get success",
            "delete success",
            "list_services success"
        ]
    );
}

//! Calls while instances of two releases answer in turn.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{ScriptedKumaTransport, TASK, demo, id, kuma, mesh, page, responds, std_error, stored_by_2x};
use crate::{HttpResponse, KumaControlPlane, TransportError};
use ecs_mesh_api::{CalledBackend, ReachableBackend};
use ecs_mesh_control_plane::{ControlPlane, MeshErrorKind, list_owned};
use ecs_mesh_core::intent::{DesiredReach, Outbounds, RegisteredBackends};
use ecs_mesh_model::ServiceName;

type Responses = Vec<Result<HttpResponse, TransportError>>;

fn index(instance: &str, version: &str) -> Result<HttpResponse, TransportError> {
    responds(200, &json!({"product": "Kuma", "version": version, "instanceId": instance}))
}

/// A client that knows an instance of 2.14 and one of 3.0, with these responses to what follows.
async fn in_rolling_upgrade(
    responses: Responses,
) -> (Arc<ScriptedKumaTransport>, KumaControlPlane<Arc<ScriptedKumaTransport>>) {
    let answers = (0..4).flat_map(|_| [index("a", "2.14.3"), index("b", "3.0.1")]);
    let script = ScriptedKumaTransport::of(answers.chain(responses).collect());
    let kuma = kuma(&script);
    kuma.ensure_supported().await.unwrap();
    assert_eq!(kuma.registration_format().as_deref(), Some("2.14 and 3.0"));
    (script, kuma)
}

/// The resource types of an instance of 2.14, or of 3.1.
fn resource_types(is_2_14: bool) -> Result<HttpResponse, TransportError> {
    super::calls::resources(if is_2_14 { &["ZoneIngress", "ZoneEgress"] } else { &[] })
}

/// A client that knows an instance of 2.14 and one of 3.1, which no release of the operator was tested with.
async fn in_upgrade_to_an_untested_release(
    responses: Responses,
) -> (Arc<ScriptedKumaTransport>, KumaControlPlane<Arc<ScriptedKumaTransport>>, Option<MeshErrorKind>) {
    let answers = (0..4).flat_map(|_| [index("a", "2.14.3"), index("b", "3.1.0")]);
    let script = ScriptedKumaTransport::of(answers.chain(responses).collect());
    let kuma = kuma(&script);
    let refused = kuma.ensure_supported().await.err().map(|error| error.kind);
    (script, kuma, refused)
}

#[tokio::test]
async fn upgrade_to_an_untested_release_needs_its_resource_types() {
    let (script, _, refused) =
        in_upgrade_to_an_untested_release((0..8).map(|_| resource_types(true)).collect()).await;
    assert_eq!(refused, Some(super::calls::UNSUPPORTED));
    assert_eq!(script.paths()[8..], ["GET /_resources"; 8]);
    let types = vec![resource_types(true), resource_types(false)];
    let (_, _, refused) = in_upgrade_to_an_untested_release(types).await;
    assert_eq!(refused, None);
}

#[tokio::test]
async fn untested_release_that_drops_more_than_it_is_known_to_ends_the_writes() {
    let known = shown_by_3_0(&stored_by_2x(&sent(), true));
    let mut less = known.clone();
    less["networking"]["inbound"][0].as_object_mut().unwrap().remove("protocol");
    for (shown, expected) in [(known, None), (less, Some(super::calls::UNSUPPORTED))] {
        let write =
            || std::iter::once(responds(201, &json!({}))).chain((0..4).map(|_| responds(200, &shown)));
        let responses = std::iter::once(resource_types(false)).chain((0..5).flat_map(|_| write()));
        let (script, kuma, refused) = in_upgrade_to_an_untested_release(responses.collect()).await;
        assert_eq!(refused, None);
        let result = kuma.put(&id("default", TASK), &sent()).await;
        assert_eq!(result.err().map(|error| error.kind), expected);
        assert_eq!(script.responses.lock().unwrap().len(), 0);
    }
}

/// The demo app as an instance of 3.0 shows it.
fn shown_by_3_0(body: &Value) -> Value {
    ecs_mesh_api::KumaRelease::new(3, 0).without_unknown_fields(body)
}

fn sent() -> Value {
    super::demo_rendered(crate::DataplaneCapabilities::default())
}

#[tokio::test]
async fn write_is_repeated_until_nothing_of_it_is_dropped() {
    let dropped = || responds(200, &shown_by_3_0(&sent()));
    let mut responses = vec![responds(201, &json!({}))];
    responses.extend((0..4).map(|_| dropped()));
    responses.extend([responds(200, &json!({})), dropped(), responds(200, &stored_by_2x(&sent(), true))]);
    let (script, kuma) = in_rolling_upgrade(responses).await;
    kuma.put(&id("default", TASK), &sent()).await.unwrap();
    let paths = script.paths();
    assert_eq!(paths.iter().filter(|path| path.starts_with("PUT")).count(), 2, "{paths:?}");
    assert_eq!(paths.len(), 16);
}

#[tokio::test]
async fn refused_write_is_sent_in_the_form_of_the_newer_release() {
    let refused = (0..5).map(|_| std_error(400));
    let (_, kuma) = in_rolling_upgrade(refused.collect()).await;
    let body = kuma.render(&demo(), None).body;
    assert_eq!(body["networking"]["outbound"][0]["tags"]["kuma.io/service"], "kv");
    let error = kuma.put(&id("default", TASK), &body).await.unwrap_err();
    assert_eq!(error.kind, MeshErrorKind::Conflict, "the caller renders again");
    let body = kuma.render(&demo(), None).body;
    assert_eq!(body["networking"]["outbound"][0]["backendRef"]["name"], "kv");
    assert_eq!(body["networking"]["inbound"][0]["tags"], Value::Null);
}

#[tokio::test]
async fn registration_that_an_old_instance_shows_complete_needs_no_write() {
    let shown = shown_by_3_0(&stored_by_2x(&sent(), true));
    let whole = stored_by_2x(&sent(), true);
    let responses = (0..9).map(|_| responds(200, &shown)).chain([responds(200, &whole)]);
    let (_, kuma) = in_rolling_upgrade(responses.collect()).await;
    let current = kuma.get(&id("default", TASK)).await.unwrap().unwrap();
    let rendered = kuma.render(&demo(), Some(&current));
    assert_eq!(rendered.normal, current.normal);
    let mut without_outbounds = demo();
    without_outbounds.reach = DesiredReach::Listeners(Outbounds::Exactly(Vec::new()));
    let kept = kuma.render(&without_outbounds, Some(&current)).body;
    assert_eq!(kept["networking"]["outbound"].as_array().map(Vec::len), Some(1), "none is removed meanwhile");
    assert!(!kuma.capabilities(&mesh("default")).mesh_services_only());
}

#[tokio::test]
async fn registration_that_no_instance_shows_complete_is_written_again() {
    let shown = shown_by_3_0(&stored_by_2x(&sent(), true));
    let responses = (0..24).map(|_| responds(200, &shown));
    let (_, kuma) = in_rolling_upgrade(responses.collect()).await;
    let current = kuma.get(&id("default", TASK)).await.unwrap().unwrap();
    let rendered = kuma.render(&demo(), Some(&current));
    assert_ne!(rendered.normal, current.normal);
    assert_eq!(rendered.body["networking"]["inbound"][0]["tags"]["kuma.io/service"], "demo-app");
}

#[tokio::test]
async fn registration_in_the_newer_form_is_read_once() {
    let in_3_0 = |kuma: &KumaControlPlane<Arc<ScriptedKumaTransport>>| kuma.render(&demo(), None).body;
    let (script, kuma) = in_rolling_upgrade((0..5).map(|_| std_error(400)).collect()).await;
    kuma.put(&id("default", TASK), &in_3_0(&kuma)).await.unwrap_err();
    let stored = stored_by_2x(&in_3_0(&kuma), true);
    script.responses.lock().unwrap().push_back(responds(200, &shown_by_3_0(&stored)));
    kuma.get(&id("default", TASK)).await.unwrap().unwrap();
    assert_eq!(script.responses.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn changed_reach_takes_no_outbound_meanwhile() {
    let (_, kuma) = in_rolling_upgrade(Vec::new()).await;
    let mut desired = demo();
    let listening = super::registration(stored_by_2x(&sent(), true));
    desired.reach = DesiredReach::EveryBackend(RegisteredBackends::Remove);
    let kept = kuma.render(&desired, Some(&listening)).body;
    assert_eq!(kept["networking"]["outbound"], listening.stored["networking"]["outbound"]);
    assert_eq!(kept["networking"]["transparentProxying"], Value::Null);

    let mut stored = listening.stored.clone();
    stored["networking"]["outbound"] = Value::Null;
    stored["networking"]["transparentProxying"] =
        json!({"reachableBackends": {"refs": [{"kind": "MeshService", "name": "kv"}]}});
    let redis = CalledBackend::Service(ServiceName::parse("redis").unwrap());
    let redis = ReachableBackend::One { backend: redis, port: None };
    desired.reach = DesiredReach::Backends(Outbounds::Exactly(vec![redis]));
    let kept = kuma.render(&desired, Some(&super::registration(stored))).body;
    let refs = &kept["networking"]["transparentProxying"]["reachableBackends"]["refs"];
    assert_eq!(
        *refs,
        json!([{"kind": "MeshService", "name": "kv"}, {"kind": "MeshService", "name": "redis"}])
    );
}

/// A client that knew an instance of 2.14, and whose server is one of 3.0 since, with these responses to what follows.
async fn upgraded_in_place(
    responses: Responses,
) -> (Arc<ScriptedKumaTransport>, KumaControlPlane<Arc<ScriptedKumaTransport>>) {
    let old = [index("a", "2.14.3"), index("a", "2.14.3")];
    let new = (0..8).map(|_| index("b", "3.0.1"));
    let script = ScriptedKumaTransport::of(old.into_iter().chain(new).chain(responses).collect());
    let kuma = kuma(&script);
    kuma.ensure_supported().await.unwrap();
    tokio::time::advance(std::time::Duration::from_secs(5)).await;
    kuma.ensure_supported().await.unwrap();
    assert_eq!(kuma.registration_format().as_deref(), Some("2.14 and 3.0"));
    (script, kuma)
}

#[tokio::test(start_paused = true)]
async fn upgrade_in_place_needs_one_write_and_no_update() {
    let mut desired = demo();
    desired.reach = DesiredReach::Listeners(Outbounds::Exactly(Vec::new()));
    let sent = crate::dataplane::render(&desired, None, crate::DataplaneCapabilities::default()).body;
    let shown = || responds(200, &shown_by_3_0(&stored_by_2x(&sent, true)));
    let responses = std::iter::once(responds(201, &json!({}))).chain((0..8).map(|_| shown()));
    let (script, kuma) = upgraded_in_place(responses.collect()).await;
    kuma.put(&id("default", TASK), &sent).await.unwrap();
    let current = kuma.get(&id("default", TASK)).await.unwrap().unwrap();
    assert_eq!(kuma.render(&desired, Some(&current)).normal, current.normal);
    desired.address = "10.0.1.8".parse().unwrap();
    assert_ne!(kuma.render(&desired, Some(&current)).normal, current.normal);
    assert_eq!(script.paths().iter().filter(|path| path.starts_with("PUT")).count(), 1);
    assert_eq!(script.responses.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn write_is_not_repeated_over_another_owner() {
    let mut foreign = shown_by_3_0(&stored_by_2x(&sent(), true));
    foreign["labels"]["ecs-mesh.dev/operator"] = "other".into();
    let (script, kuma) = in_rolling_upgrade(vec![responds(201, &json!({})), responds(200, &foreign)]).await;
    let error = kuma.put(&id("default", TASK), &sent()).await.unwrap_err();
    assert_eq!(error.kind, MeshErrorKind::Conflict);
    assert_eq!(script.paths().iter().filter(|path| path.starts_with("PUT")).count(), 1);
}

#[tokio::test]
async fn lost_lease_ends_repeated_writes() {
    /// Lost after the first write.
    struct Lost(std::sync::atomic::AtomicUsize);

    impl ecs_mesh_controller::Lease for Lost {
        fn term(&self) -> ecs_mesh_controller::LeaseTerm {
            let first = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
            ecs_mesh_controller::LeaseTerm::unlimited(first)
        }
    }

    let dropped = (0..4).map(|_| responds(200, &shown_by_3_0(&sent())));
    let (script, kuma) =
        in_rolling_upgrade(std::iter::once(responds(201, &json!({}))).chain(dropped).collect()).await;
    kuma.set_lease(Arc::new(Lost(std::sync::atomic::AtomicUsize::new(0))));
    let error = kuma.put(&id("default", TASK), &sent()).await.unwrap_err();
    assert!(matches!(error.kind, MeshErrorKind::Obstructed(_)), "{error:?}");
    assert_eq!(script.paths().iter().filter(|path| path.starts_with("PUT")).count(), 1);
}

#[tokio::test]
async fn kept_reach_is_of_the_registered_kind() {
    let (_, kuma) = in_rolling_upgrade(Vec::new()).await;
    let mut desired = demo();
    let listening = super::registration(stored_by_2x(&sent(), true));
    for reach in [
        DesiredReach::EveryBackend(RegisteredBackends::Keep),
        DesiredReach::Backends(Outbounds::KeepCurrent { fallback: Vec::new() }),
    ] {
        desired.reach = reach;
        let kept = crate::dataplane::render(&desired, Some(&listening), kuma.capabilities(&mesh("default")));
        assert_eq!(kept.body["networking"]["outbound"], listening.stored["networking"]["outbound"]);
    }
}

/// After an upgrade in place, only the new instance answers, while the old one still counts.
#[tokio::test]
async fn mode_of_a_mesh_stays_while_new_instances_alone_answer() {
    let exclusive = json!({"type": "Mesh", "name": "default", "meshServices": {"mode": "Exclusive"}});
    let config = || {
        let config =
            json!({"mode": "zone", "dpServer": {"hds": {"enabled": true}}, "apiServer": {"readOnly": false}});
        responds(200, &config)
    };
    let old =
        [index("a", "2.14.3"), index("a", "2.14.3"), config(), responds(200, &exclusive), page(&[], None)];
    let new = (0..8).map(|_| index("b", "3.0.1")).chain([config()]);
    let mesh_of_3_0 = (0..4).map(|_| responds(200, &json!({"type": "Mesh", "name": "default"})));
    let responses = old.into_iter().chain(new).chain(mesh_of_3_0).chain([page(&[], None)]);
    let kuma = kuma(&ScriptedKumaTransport::of(responses.collect()));
    for formats in ["2.14", "2.14 and 3.0"] {
        kuma.refresh_capabilities(&[mesh("default")].into()).await.unwrap();
        assert_eq!(kuma.registration_format().as_deref(), Some(formats));
        assert!(kuma.capabilities(&mesh("default")).mesh_services_only(), "{formats}");
    }
}

#[tokio::test]
async fn list_of_zone_proxies_names_the_instances_that_hide_them() {
    let not_found = || Ok(HttpResponse { status: 404, ..responds(200, &json!({})).unwrap() });
    let (_, kuma) =
        in_rolling_upgrade(std::iter::once(page(&[], None)).chain((0..40).map(|_| not_found())).collect())
            .await;
    let listed = list_owned(&kuma, &BTreeSet::new()).await.unwrap();
    let failed: Vec<String> = listed.failed.iter().map(|failed| failed.error.to_string()).collect();
    assert!(failed.iter().any(|error| error.contains("instances of 3.0 alone have answered")), "{failed:?}");
}

#[tokio::test]
async fn sidecars_dataplane_as_a_new_instance_shows_it_has_no_drift() {
    let (_, kuma) = in_rolling_upgrade(Vec::new()).await;
    let paths = |stored: Value| {
        let current = super::registration(stored);
        kuma.drift(&demo(), &current).into_iter().map(|change| change.path).collect::<Vec<_>>()
    };
    let shown = shown_by_3_0(&stored_by_2x(&sent(), true));
    assert_eq!(paths(shown.clone()), [""; 0]);
    let mut elsewhere = shown;
    elsewhere["networking"]["address"] = "10.9.9.9".into();
    assert!(paths(elsewhere).contains(&"networking.address".to_owned()));
}

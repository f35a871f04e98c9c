//! Zone ingresses and egresses as resources of 2.x: paths, lists, ownership, and what is written.

use std::sync::Arc;

use serde_json::{Value, json};

use super::calls::{text, version};
use super::{ScriptedKumaTransport, TASK, demo, id, kuma, operator, page, responds, std_error};
use crate::{KumaControlPlane, NoObserver, normalise, zone_proxy};
use ecs_mesh_api::{WorkloadSpec, ZoneProxyForm, ZoneProxyKind};
use ecs_mesh_control_plane::{ControlPlane, MeshErrorKind, RegistrationOwner, list_owned};
use ecs_mesh_core::intent::{DesiredProxy, DesiredRegistration, RegistrationId};
use ecs_mesh_core::plan::DrainReason;

const NLB: &str = "nlb-0a1b2c3d.elb.eu-west-1.amazonaws.com";

fn ingress_id(name: &str) -> RegistrationId {
    RegistrationId::of_zone_proxy(ZoneProxyKind::Ingress, name)
}

/// An ingress of the demo task behind a network load balancer.
fn ingress() -> DesiredRegistration {
    let spec = json!({
        "selector": {}, "service": "ingress", "proxy": "zoneIngress",
        "zoneIngress": {"advertised": {"address": NLB, "port": 443}},
    });
    let workload: WorkloadSpec = serde_json::from_value(spec).unwrap();
    let ecs_mesh_api::ProxyRole::Zone(proxy) = workload.proxy_role() else { panic!("{workload:?}") };
    let proxy = DesiredProxy::Zone(proxy, ZoneProxyForm::Resource);
    DesiredRegistration { id: ingress_id(TASK), proxy, inbounds: Vec::new(), ..demo() }
}

/// The body as a server of 2.14 stores it, with what it learns of the zone.
fn stored(sent: &Value) -> Value {
    let mut stored = sent.clone();
    stored["creationTime"] = "2026-11-22T03:27:02.141977879Z".into();
    stored["modificationTime"] = "2026-11-22T03:27:02.141977879Z".into();
    stored["kri"] = "kri_zi__default__zi-1_".into();
    stored["zone"] = "east".into();
    stored["availableServices"] =
        json!([{"tags": {"kuma.io/service": "kv"}, "instances": 2, "mesh": "default"}]);
    for (label, value) in [
        ("kuma.io/env", "universal"),
        ("kuma.io/origin", "zone"),
        ("kuma.io/proxy-type", "zoneingress"),
        ("kuma.io/zone", "east"),
    ] {
        stored["labels"][label] = value.into();
    }
    stored
}

fn rendered() -> Value {
    kuma(&ScriptedKumaTransport::of(Vec::new())).render(&ingress(), None).body
}

/// A client of a server of this version, whose version is read.
async fn client(
    server: &str,
    responses: Vec<Result<crate::HttpResponse, crate::TransportError>>,
) -> (KumaControlPlane<Arc<ScriptedKumaTransport>>, Arc<ScriptedKumaTransport>) {
    let config = json!({"mode": "zone", "dpServer": {"hds": {"enabled": true}}});
    let mut script = vec![version(server), responds(200, &config)];
    script.extend(responses);
    let script = ScriptedKumaTransport::of(script);
    let kuma = KumaControlPlane::new(script.clone(), operator(), Arc::new(NoObserver));
    kuma.refresh_capabilities(&[].into()).await.unwrap();
    script.requests.lock().unwrap().clear();
    (kuma, script)
}

#[test]
fn ingress_is_stored_as_it_was_sent_in_normal_form() {
    let sent = rendered();
    assert_eq!(
        sent["networking"],
        json!({
            "address": "10.0.1.7", "port": 10001, "advertisedAddress": NLB, "advertisedPort": 443,
        })
    );
    assert_eq!((&sent["type"], &sent["name"]), (&json!("ZoneIngress"), &json!(TASK)));
    assert_eq!(sent.get("mesh"), None, "it is of no mesh");
    assert_eq!(normalise(&sent), normalise(&stored(&sent)));
}

#[test]
fn update_carries_what_the_control_plane_knows_of_the_zone() {
    let current = zone_proxy::registration(ZoneProxyKind::Ingress, stored(&rendered())).unwrap();
    assert_eq!(current.owner, RegistrationOwner::Owned(ingress().marks));
    let kuma = kuma(&ScriptedKumaTransport::of(Vec::new()));
    let updated = kuma.render(&ingress(), Some(&current));
    assert_eq!(updated.normal, current.normal, "nothing is to be written");
    for body in [updated.body, kuma.render_drained(&current, DrainReason::Stopping).body] {
        assert_eq!((&body["zone"], &body["availableServices"][0]["instances"]), (&json!("east"), &json!(2)));
        assert_eq!(body["labels"].get("kuma.io/zone"), None, "the server computes it");
    }
}

#[tokio::test]
async fn each_release_has_its_path_and_3_0_none() {
    for (server, path) in [("2.10.11", "/zone-ingresses/zi"), ("2.11.0", "/zoneingresses/zi")] {
        let (kuma, script) = client(server, vec![std_error(404), responds(200, &json!({}))]).await;
        assert_eq!(kuma.get(&ingress_id("zi")).await, Ok(None));
        assert_eq!(kuma.delete(&ingress_id("zi")).await, Ok(true));
        assert_eq!(script.paths(), [format!("GET {path}"), format!("DELETE {path}")]);
    }
    let (kuma, script) = client("3.0.1", Vec::new()).await;
    assert_eq!(kuma.get(&ingress_id("zi")).await, Ok(None));
    assert_eq!(kuma.delete(&ingress_id("zi")).await, Ok(false));
    let refused = kuma.put(&ingress_id(TASK), &rendered()).await.unwrap_err();
    assert_eq!(refused.kind, MeshErrorKind::Conflict, "{refused}");
    let stale = kuma.check_desired(&ingress()).unwrap_err();
    assert_eq!(stale.kind, MeshErrorKind::Conflict, "evaluated for another form: {stale}");
    assert_eq!(script.paths(), [""; 0]);
}

#[tokio::test]
async fn resource_body_is_never_sent_to_a_dataplane_of_3_0() {
    let (kuma, script) = client("3.0.1", Vec::new()).await;
    let refused = kuma.put(&id("default", TASK), &rendered()).await.unwrap_err();
    assert_eq!((refused.kind, script.paths().len()), (MeshErrorKind::Conflict, 0), "{refused}");
}

#[tokio::test]
async fn lists_find_own_zone_proxies_and_none_of_other_zones() {
    let own = stored(&rendered());
    let mut remote = own.clone();
    (remote["name"], remote["labels"]["kuma.io/origin"]) = ("remote-1a2b".into(), "global".into());
    let mut foreign = own.clone();
    foreign["labels"]["ecs-mesh.dev/operator"] = "other".into();
    let pages = vec![page(&[], None), page(&[own, remote, foreign], None), page(&[], None)];
    let (kuma, script) = client("2.14.3", pages).await;
    let found = list_owned(&kuma, &[].into()).await.unwrap();
    let ids: Vec<String> = found.seen.iter().map(|seen| seen.id.to_string()).collect();
    assert_eq!((ids, found.failed.len()), (vec![format!("zoneingress/{TASK}")], 0));
    let lists: Vec<String> =
        script.paths().iter().filter_map(|path| Some(path.split_once('?')?.0.to_owned())).collect();
    assert_eq!(lists, ["GET /dataplanes", "GET /zoneingresses", "GET /zoneegresses"]);

    let (kuma, script) = client("3.0.1", vec![page(&[], None)]).await;
    assert_eq!(list_owned(&kuma, &[].into()).await.unwrap().seen, []);
    assert_eq!(script.paths().len(), 1, "3.0 has no such lists");
}

#[tokio::test]
async fn failed_list_of_ingresses_affects_ingresses_alone() {
    let pages = vec![page(&[], None), text(502, "bad gateway"), page(&[], None)];
    let (kuma, _) = client("2.14.3", pages).await;
    let failed = list_owned(&kuma, &[].into()).await.unwrap().failed;
    let [failed] = &failed[..] else { panic!("{failed:?}") };
    assert_eq!(failed.segment.to_string(), "zone ingresses");
    assert!(failed.segment.contains(&ingress_id("a")));
    for other in [RegistrationId::of_zone_proxy(ZoneProxyKind::Egress, "a"), id("default", "a")] {
        assert!(!failed.segment.contains(&other), "{other}");
    }
}

#[test]
fn zone_proxy_of_another_zone_is_foreign() {
    let mut remote = stored(&rendered());
    remote["labels"]["kuma.io/origin"] = "global".into();
    let found = zone_proxy::registration(ZoneProxyKind::Ingress, remote).unwrap();
    assert_eq!(found.owner, RegistrationOwner::Foreign);
}

#[tokio::test]
async fn readiness_of_a_listener_is_found_by_its_label_in_2_14() {
    let egress = json!({
        "type": "DataplaneOverview", "mesh": "default", "name": "ze-1", "labels": {"kuma.io/workload": "ze"},
        "dataplane": {"networking": {"address": "10.0.0.1", "listeners": [{"type": "ZoneEgress", "port": 10002}]}},
    });
    for (server, lists) in [("2.13.9", 1), ("2.14.3", 2)] {
        let (kuma, script) =
            client(server, vec![page(&[], None), page(std::slice::from_ref(&egress), None)]).await;
        let found = kuma.list_endpoints(&super::mesh("default"), "ze").await.unwrap();
        let routed: Vec<bool> = found.iter().map(|found| found.endpoint.routed).collect();
        assert_eq!(routed, vec![true; lists - 1], "{server}");
        let paths = script.paths();
        assert_eq!(paths.len(), lists, "{server}: {paths:?}");
        assert!(lists == 1 || paths[1].contains("labels.kuma.io%2Fworkload%5D=ze"), "{paths:?}");
    }
}

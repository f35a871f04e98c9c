//! Reads the readiness of Dataplanes from their overviews, which also have the connections of their sidecars.

use serde_json::Value;

use super::dataplane::{self, SERVICE_TAG, WORKLOAD_LABEL};
use super::labels;
use super::list::ListFilter;
use super::readiness::is_ready;
use super::stored::MalformedRegistration;
use ecs_mesh_control_plane::OwnedEndpoint;
use ecs_mesh_core::plan::ServiceEndpoint;

/// How a Dataplane names its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServiceNaming {
    /// By a tag of the inbound (2.x). A listener has no tags: the workload label names its service.
    Tag,
    /// By the workload label, for all inbounds (3.x).
    Label,
}

impl ServiceNaming {
    /// The filter for a list of the service's Dataplanes, which may return others, too.
    pub(super) fn filter(self, service: &str) -> ListFilter<'_> {
        match self {
            Self::Tag => ListFilter::Tag(SERVICE_TAG, service),
            Self::Label => ListFilter::Label(WORKLOAD_LABEL, service),
        }
    }

    fn names_inbound(self, service: &str, stored: &Value, inbound: &Value) -> bool {
        let name = match self {
            Self::Tag => inbound["tags"][SERVICE_TAG].as_str(),
            Self::Label => labels::label(stored, WORKLOAD_LABEL),
        };
        name == Some(service)
    }
}

/// The endpoint of an overview, if the Dataplane has an inbound or a listener of the service: a filter may also find others,
/// such as services whose name contains this one.
pub(super) fn read(
    overview: Value,
    service: &str,
    naming: ServiceNaming,
) -> Result<Option<OwnedEndpoint>, MalformedRegistration> {
    let connected = is_connected(&overview);
    let registration = dataplane::registration(stored_of(overview))?;
    let inbounds = registration.stored.pointer("/networking/inbound").and_then(Value::as_array);
    let listeners = registration.stored.pointer("/networking/listeners").and_then(Value::as_array);
    let is_labelled = labels::label(&registration.stored, WORKLOAD_LABEL) == Some(service);
    let mut of_service = inbounds
        .into_iter()
        .flatten()
        .filter(|inbound| naming.names_inbound(service, &registration.stored, inbound))
        .chain(listeners.filter(|_| is_labelled).into_iter().flatten())
        .peekable();
    if of_service.peek().is_none() {
        return Ok(None);
    }
    let endpoint = ServiceEndpoint {
        id: registration.id,
        routed: registration.drained.is_none() && of_service.all(is_ready),
        connected,
        drained: registration.drained,
        leaving: false,
    };
    Ok(Some(OwnedEndpoint { endpoint, owner: registration.owner }))
}

/// The Dataplane of an overview, which has the resource's own fields below `dataplane`.
pub(super) fn stored_of(overview: Value) -> Value {
    let mut stored = overview;
    if let Some(networking) = stored.pointer_mut("/dataplane/networking").map(Value::take)
        && let Some(top) = stored.as_object_mut()
    {
        top.insert("networking".to_owned(), networking);
    }
    stored
}

/// Whether a stored registration has inbounds or listeners, and with them a readiness. A gateway, a client, a `ZoneIngress`
/// and a `ZoneEgress` have none.
pub(super) fn has_readiness(stored: &Value) -> bool {
    let is_filled = |path| stored.pointer(path).and_then(Value::as_array).is_some_and(|all| !all.is_empty());
    is_filled("/networking/inbound") || is_filled("/networking/listeners")
}

/// Whether a connection of the sidecar has not ended. After a hard kill clients are still routed to the inbound.
pub(super) fn is_connected(overview: &Value) -> bool {
    let subscriptions = overview.pointer("/dataplaneInsight/subscriptions").and_then(Value::as_array);
    subscriptions.into_iter().flatten().any(|subscription| {
        subscription.get("connectTime").is_some() && subscription.get("disconnectTime").is_none()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn overview(inbound: &Value, labels: &Value, connections: &Value) -> Value {
        let mut inbound = inbound.clone();
        inbound["port"] = 15_000.into();
        let more = json!({SERVICE_TAG: "web", "kuma.io/protocol": "http"});
        inbound["tags"].as_object().is_none().then(|| inbound["tags"] = more);
        json!({
            "type": "DataplaneOverview", "mesh": "default", "name": "a", "labels": labels,
            "dataplane": {"networking": {"address": "10.0.0.1", "inbound": [inbound]}},
            "dataplaneInsight": {"subscriptions": connections},
        })
    }

    /// Whether it is routed and connected.
    fn status(inbound: &Value, labels: &Value, connections: &Value) -> (bool, bool) {
        let endpoint = read(overview(inbound, labels, connections), "web", ServiceNaming::Tag)
            .unwrap()
            .unwrap()
            .endpoint;
        (endpoint.routed, endpoint.connected)
    }

    #[test]
    fn endpoint_is_routed_by_its_inbounds_and_connected_by_its_subscriptions() {
        let on = json!([{"connectTime": "1", "disconnectTime": "2"}, {"connectTime": "3"}]);
        for (inbound, routed) in [
            (json!({}), true),
            (json!({"health": {"ready": true}}), true),
            (json!({"state": "Ready", "health": {"ready": true}}), true),
            (json!({"state": "NotReady"}), false),
            (json!({"state": "Ignored"}), false),
            (json!({"health": {}}), false),
        ] {
            assert_eq!(status(&inbound, &json!({}), &on), (routed, true), "{inbound}");
        }
        for off in [json!([]), json!(null), json!([{"connectTime": "1", "disconnectTime": "2"}])] {
            assert_eq!(status(&json!({}), &json!({}), &off), (true, false), "{off}");
        }
        assert_eq!(status(&json!({}), &json!({"ecs-mesh.dev/drain": "stopping"}), &on), (false, true));
    }

    #[test]
    fn service_whose_name_contains_the_wanted_one_is_another() {
        let inbound = json!({"tags": {SERVICE_TAG: "web-admin"}});
        assert_eq!(read(overview(&inbound, &json!({}), &json!([])), "web", ServiceNaming::Tag), Ok(None));
        assert!(read(json!([]), "web", ServiceNaming::Tag).is_err());
    }

    #[test]
    fn only_inbounds_and_listeners_have_a_readiness() {
        for (networking, expected) in [
            (json!({"inbound": [{"port": 1}]}), true),
            (json!({"listeners": [{"type": "ZoneEgress"}]}), true),
            (json!({"gateway": {"type": "DELEGATED"}, "inbound": []}), false),
            (json!({"port": 10001}), false),
        ] {
            assert_eq!(has_readiness(&json!({"networking": networking})), expected, "{networking}");
        }
    }

    #[test]
    fn workload_label_names_the_service_in_3_x() {
        let dataplane = |workload: &str, inbounds: Value| {
            json!({
                "type": "DataplaneOverview", "mesh": "default", "name": "a",
                "labels": {"kuma.io/workload": workload},
                "dataplane": {"networking": {"address": "10.0.0.1", "inbound": inbounds}},
            })
        };
        let routed = |workload: &str, inbounds: Value| {
            let found = read(dataplane(workload, inbounds), "web", ServiceNaming::Label).unwrap();
            found.map(|found| found.endpoint.routed)
        };
        assert_eq!(routed("web", json!([{"port": 1}])), Some(true));
        assert_eq!(routed("web", json!([{"port": 1}, {"port": 2, "state": "NotReady"}])), Some(false));
        assert_eq!(routed("web-admin", json!([{"port": 1}])), None, "an older server ignores the filter");
        assert_eq!(routed("web", json!([])), None, "a client has no endpoint");
        for (listener, is_routed) in [
            (json!({"type": "ZoneEgress"}), true),
            (json!({"type": "ZoneEgress", "state": "NotReady"}), false),
        ] {
            let mut egress = dataplane("web", json!([]));
            egress["dataplane"]["networking"]["listeners"] = json!([listener]);
            for naming in [ServiceNaming::Label, ServiceNaming::Tag] {
                let found = read(egress.clone(), "web", naming).unwrap().unwrap();
                assert_eq!(found.endpoint.routed, is_routed, "{listener} {naming:?}");
                assert_eq!(read(egress.clone(), "other", naming), Ok(None), "{naming:?}");
            }
        }
    }
}

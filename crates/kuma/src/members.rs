//! Reads the Dataplanes of a mesh, of any owner, for those who look at it.

use std::collections::BTreeSet;

use serde_json::Value;

use super::dataplane::{self, WORKLOAD_LABEL};
use super::endpoints::{is_connected, stored_of};
use super::labels;
use super::stored::MalformedRegistration;
use ecs_mesh_control_plane::MeshMember;
use ecs_mesh_model::intern;

/// The member that an overview shows. A Dataplane is ready if clients are routed to all its inbounds and its sidecar is
/// connected; one without inbounds, such as a gateway, if its sidecar is connected.
pub(super) fn read(overview: Value) -> Result<MeshMember, MalformedRegistration> {
    let is_connected = is_connected(&overview);
    let registration = dataplane::registration(stored_of(overview))?;
    let tags: BTreeSet<&str> = dataplane::services(&registration.stored).collect();
    let label = labels::label(&registration.stored, WORKLOAD_LABEL).filter(|_| tags.is_empty());
    let is_routed = registration.drained.is_none() && registration.ready.unwrap_or(true);
    Ok(MeshMember {
        services: tags.into_iter().chain(label).map(intern).collect(),
        ready: is_routed && is_connected,
        id: registration.id,
        owner: registration.owner,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn member_is_ready_while_routed_and_connected() {
        let on = json!([{"connectTime": "1"}]);
        let off = json!([{"connectTime": "1", "disconnectTime": "2"}]);
        let inbound =
            |health: Value| json!([{"port": 1, "tags": {"kuma.io/service": "web"}, "health": health}]);
        for (inbounds, drain, subscriptions, services, ready) in [
            (inbound(json!({"ready": true})), None, &on, vec!["web"], true),
            (inbound(json!({"ready": true})), None, &off, vec!["web"], false),
            (inbound(json!({})), None, &on, vec!["web"], false),
            (inbound(json!({"ready": true})), Some("stopping"), &on, vec!["web"], false),
            (json!([]), None, &on, vec!["edge"], true),
            (json!([]), None, &off, vec!["edge"], false),
        ] {
            let overview = json!({
                "type": "DataplaneOverview", "mesh": "default", "name": "a",
                "labels": {"kuma.io/workload": "edge", "ecs-mesh.dev/drain": drain},
                "dataplane": {"networking": {"address": "10.0.0.1", "inbound": inbounds}},
                "dataplaneInsight": {"subscriptions": subscriptions},
            });
            let member = read(overview.clone()).unwrap();
            let names: Vec<&str> = member.services.iter().map(AsRef::as_ref).collect();
            assert_eq!((names, member.ready), (services, ready), "{overview}");
        }
        assert!(read(json!([])).is_err());
    }
}

//! Reads the resources that Dataplanes can call: `MeshService`, `MeshExternalService` and `MeshMultiZoneService`.

use std::net::IpAddr;

use serde_json::Value;

use ecs_mesh_api::BackendKind;
use ecs_mesh_core::intent::MeshBackend;

/// The name of the list in the API.
pub(super) fn list_name(kind: BackendKind) -> &'static str {
    match kind {
        BackendKind::MeshService => "meshservices",
        BackendKind::MeshExternalService => "meshexternalservices",
        BackendKind::MeshMultiZoneService => "meshmultizoneservices",
    }
}

/// Reads an item of a list; `None` if it has no name. Ports and addresses that are none are left out.
pub(super) fn read(kind: BackendKind, item: &Value) -> Option<MeshBackend> {
    let (spec, status) = (&item["spec"], &item["status"]);
    let labels = item["labels"].as_object().into_iter().flatten();
    let number = |port: &Value| port["port"].as_u64().and_then(|port| u16::try_from(port).ok());
    let listed =
        |ports: &Value| ports.as_array().into_iter().flatten().filter_map(number).collect::<Vec<u16>>();
    // A MeshExternalService has one port, which it matches, and a MeshMultiZoneService may get its ports from its services.
    let mut ports = listed(&spec["ports"]);
    ports.extend(listed(&status["ports"]));
    ports.extend(number(&spec["match"]));
    let addresses = ["vips", "vip"].iter().flat_map(|field| match &status[*field] {
        Value::Array(all) => all.iter().collect(),
        one => vec![one],
    });
    Some(MeshBackend {
        kind,
        name: item["name"].as_str()?.to_owned(),
        labels: labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect(),
        ports,
        addresses: addresses.filter_map(|vip| vip["ip"].as_str()?.parse::<IpAddr>().ok()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_and_addresses_are_read_of_each_kind() {
        let service = json!({
            "name": "kv", "labels": {"team": "a"}, "spec": {"ports": [{"port": 15050, "targetPort": 15050}]},
            "status": {"vips": [{"ip": "127.251.0.0"}]},
        });
        let read_service = read(BackendKind::MeshService, &service).unwrap();
        assert_eq!((read_service.name.as_str(), &*read_service.ports), ("kv", &[15050][..]));
        assert_eq!(read_service.labels["team"], "a");
        assert!(read_service.is_bindable());
        let external = json!({
            "name": "payments", "spec": {"match": {"type": "HostnameGenerator", "port": 443}},
            "status": {"vip": {"ip": "242.0.0.0"}},
        });
        let read_external = read(BackendKind::MeshExternalService, &external).unwrap();
        assert_eq!(read_external.ports, [443]);
        assert!(!read_external.is_bindable());
        assert_eq!(read(BackendKind::MeshService, &json!({"spec": {}})), None);
    }
}

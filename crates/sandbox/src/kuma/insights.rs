//! Computed resources: overviews, insights of Dataplanes and services, and the rules of a Dataplane.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use ecs_mesh_model::Timestamp;

use super::body::{inbounds, list, number, object, state, tag, text};
use super::kinds::{self, ResourceType};
use super::object::{FRAME, MeshAndName};
use super::release::EmulatedRelease;
use super::rules::{DISPLAY_NAME, SERVICE_TAG};
use super::server::{KumaCp, zone_labels};
use ecs_mesh_api::KumaFeature;

/// The insight of a proxy; `None` if it never connected.
pub(super) fn of(cp: &KumaCp, kind: &ResourceType, key: &MeshAndName) -> Option<Value> {
    let sidecar =
        cp.sidecars.get(key).filter(|sidecar| kind.name == "Dataplane" && !sidecar.connections.is_empty())?;
    let subscriptions: Vec<Value> = sidecar
        .connections
        .iter()
        .enumerate()
        .map(|(at, connection)| {
            let mut subscription = json!({
                "id": format!("{}-{}-{at}", key.0, key.1),
                "controlPlaneInstanceId": cp.instance_id(),
                "connectTime": connection.since.to_string(),
                "status": {"total": {}, "cds": {}, "eds": {}, "lds": {}, "rds": {}},
            });
            if let Some(until) = connection.until {
                subscription["disconnectTime"] = json!(until.to_string());
            }
            subscription
        })
        .collect();
    let mut insight = json!({ "subscriptions": subscriptions });
    if let Some(features) = &sidecar.features {
        insight["metadata"] = json!({ "features": features });
    }
    Some(insight)
}

/// The overview of an object: the object with its insight.
pub(super) fn overview(kind: &ResourceType, body: &Value, insight: Option<Value>) -> Value {
    let mut frame = Map::new();
    let mut own = Map::new();
    for (field, value) in body.as_object().into_iter().flatten() {
        let part = if FRAME.contains(&field.as_str()) { &mut frame } else { &mut own };
        part.insert(field.clone(), value.clone());
    }
    let mut name = kind.name.to_owned();
    name[..1].make_ascii_lowercase();
    frame.insert("type".to_owned(), json!(format!("{}Overview", kind.name)));
    if let Some(insight) = insight {
        frame.insert(format!("{name}Insight"), insight);
    }
    frame.insert(name, Value::Object(own));
    Value::Object(frame)
}

/// The `DataplaneInsight` of a key.
pub(super) fn dataplane_resource(cp: &KumaCp, key: &MeshAndName) -> Option<Value> {
    let insight = of(cp, kinds::named("Dataplane")?, key)?;
    let connections = &cp.sidecars.get(key)?.connections;
    let (first, last) = (connections.first()?, connections.last()?);
    let mut body = json!({
        "type": "DataplaneInsight",
        "mesh": key.0,
        "name": key.1,
        "creationTime": first.since.to_string(),
        "modificationTime": last.until.unwrap_or(last.since).to_string(),
    });
    for (field, value) in insight.as_object()? {
        body[field] = value.clone();
    }
    Some(body)
}

/// All `DataplaneInsight`s, or those of one mesh.
pub(super) fn dataplane_resources(cp: &KumaCp, mesh: Option<&str>, name: &str) -> Vec<Value> {
    cp.sidecars
        .keys()
        .filter(|key| mesh.is_none_or(|mesh| mesh == key.0) && key.1.contains(name))
        .filter_map(|key| dataplane_resource(cp, key))
        .collect()
}

#[derive(Default)]
struct ServiceInsight {
    kind: &'static str,
    online: u64,
    offline: u64,
    since: Timestamp,
    until: Timestamp,
}

/// The insights of services by mesh and name. `wanted` filters by name. Since 3.0 there are none.
pub(super) fn services(cp: &KumaCp, mesh: Option<&str>, wanted: impl Fn(&str) -> bool) -> Vec<Value> {
    if !cp.release().has(KumaFeature::TagServices) {
        return Vec::new();
    }
    let mut services: BTreeMap<(String, String), ServiceInsight> = BTreeMap::new();
    for (key, dataplane) in cp.store.list("Dataplane", mesh) {
        let exclusive = cp.is_exclusive(&key.0);
        let online = is_online(cp, key, &dataplane.body);
        for (name, kind) in offered(&dataplane.body) {
            if name.is_empty() || (exclusive && kind != "gateway_delegated") {
                continue;
            }
            let service =
                services.entry((key.0.clone(), name.to_owned())).or_insert_with(|| ServiceInsight {
                    kind,
                    since: dataplane.created,
                    until: dataplane.modified,
                    ..ServiceInsight::default()
                });
            service.since = service.since.min(dataplane.created);
            service.until = service.until.max(dataplane.modified);
            if online {
                service.online += 1;
            } else {
                service.offline += 1;
            }
        }
    }
    services
        .into_iter()
        .filter(|((_, name), _)| wanted(name))
        .map(|((mesh, name), service)| service.body(&mesh, &name, &cp.config.zone))
        .collect()
}

/// The insight of one service. A mesh with Dataplanes has an insight for every name, empty for unknown services.
pub(super) fn service(cp: &KumaCp, mesh: &str, name: &str) -> Option<Value> {
    if !cp.release().has(KumaFeature::TagServices) {
        return None;
    }
    let mut found = services(cp, Some(mesh), |service| service == name);
    found.pop().or_else(|| {
        let (_, first) = cp.store.list("Dataplane", Some(mesh)).next()?;
        let empty = ServiceInsight {
            kind: "internal",
            since: first.created,
            until: first.modified,
            ..ServiceInsight::default()
        };
        let mut body = empty.body(mesh, name, &cp.config.zone);
        let body_fields = body.as_object_mut()?;
        body_fields.remove("status");
        body_fields.remove("zones");
        Some(body)
    })
}

impl ServiceInsight {
    fn body(&self, mesh: &str, name: &str, zone: &str) -> Value {
        let total = self.online + self.offline;
        let mut counts = Map::new();
        for (field, count) in [("total", total), ("online", self.online), ("offline", self.offline)] {
            if count > 0 {
                counts.insert(field.to_owned(), json!(count));
            }
        }
        let mut body = json!({
            "type": "ServiceInsight",
            "mesh": mesh,
            "name": name,
            "creationTime": self.since.to_string(),
            "modificationTime": self.until.to_string(),
            "status": match self.online {
                0 => "offline",
                online if online < total => "partially_degraded",
                _ => "online",
            },
            "dataplanes": counts,
            "zones": [zone],
        });
        if self.kind == "internal" {
            body["addressPort"] = json!(format!("{name}.mesh:80"));
        } else {
            body["serviceType"] = json!(self.kind);
        }
        body
    }
}

fn offered(dataplane: &Value) -> Vec<(&str, &'static str)> {
    let networking = &dataplane["networking"];
    match networking.get("gateway") {
        Some(gateway) if text(gateway, "type") == "BUILTIN" => {
            vec![(tag(gateway, SERVICE_TAG), "gateway_builtin")]
        }
        Some(gateway) => vec![(tag(gateway, SERVICE_TAG), "gateway_delegated")],
        None => inbounds(dataplane)
            .iter()
            .filter(|inbound| state(inbound) != "Ignored")
            .map(|inbound| (tag(inbound, SERVICE_TAG), "internal"))
            .collect(),
    }
}

/// Whether the proxy is connected, and each inbound and listener is ready.
pub(super) fn is_online(cp: &KumaCp, key: &MeshAndName, dataplane: &Value) -> bool {
    let networking = &dataplane["networking"];
    if cp.sidecars.get(key).is_none_or(|sidecar| sidecar.connected().is_none()) {
        return false;
    }
    if networking.get("gateway").is_some() {
        return true;
    }
    let inbounds_ready = inbounds(dataplane).iter().all(|inbound| {
        state(inbound) != "NotReady"
            && inbound.get("health").is_none_or(|health| health["ready"] == json!(true))
    });
    let listeners = list(networking, "listeners");
    let parts = inbounds(dataplane).len() + listeners.len();
    parts > 0 && inbounds_ready && listeners.iter().all(|listener| state(listener) == "Ready")
}

/// The rules of a Dataplane by the default policies of a mesh.
pub(super) fn rules(dataplane: &Value, release: EmulatedRelease) -> Value {
    let (mesh, labels) = (text(dataplane, "mesh"), object(dataplane, "labels"));
    let zone = labels.get(super::rules::ZONE).and_then(Value::as_str).unwrap_or_default();
    let origin = |kind: &str, name: &str| {
        let name = format!("{name}-all-{mesh}");
        let mut labels = zone_labels(mesh, zone);
        if release >= EmulatedRelease::V3_0 {
            labels[DISPLAY_NAME] = json!(name);
        }
        json!({"type": kind, "mesh": mesh, "name": name, "labels": labels})
    };
    let policies: Vec<Value> = DEFAULT_POLICIES
        .iter()
        .map(|policy| {
            // Since 3.0, a policy has either inbound or outbound rules.
            let to_name = match policy.from {
                Some(_) if release >= EmulatedRelease::V3_0 => format!("{}-to", policy.name),
                _ => policy.name.to_owned(),
            };
            let (from_origin, to_origin) = (origin(policy.kind, policy.name), origin(policy.kind, &to_name));
            let to = (policy.to)();
            let from = policy.from.map(|from| from());
            let inbound_rules = |rule: &dyn Fn(&Value) -> Value| -> Vec<Value> {
                let Some(from) = &from else { return Vec::new() };
                inbounds(dataplane)
                    .iter()
                    .map(|inbound| {
                        let place = json!({"port": number(inbound, "port"), "tags": inbound.get("tags")});
                        json!({"inbound": place, "rules": [rule(from)]})
                    })
                    .collect()
            };
            let meta = |origin: &Value| json!([{"resourceMeta": origin, "ruleIndex": 0}]);
            let mut rules = json!({
                "type": policy.kind,
                "warnings": [],
                "inboundRules": inbound_rules(&|conf| json!({"conf": [conf], "origin": meta(&from_origin)})),
                "toResourceRules": [{
                    "conf": [to],
                    "origin": meta(&to_origin),
                    "resourceMeta": {"type": "Mesh", "mesh": "", "name": mesh, "labels": {}},
                    "resourceSectionName": "",
                }],
            });
            if release < EmulatedRelease::V3_0 {
                let from =
                    inbound_rules(&|conf| json!({"conf": conf, "matchers": [], "origin": [from_origin]}));
                rules["fromRules"] = Value::Array(from);
                rules["toRules"] = json!([{"conf": to, "matchers": [], "origin": [to_origin]}]);
            }
            rules
        })
        .collect();
    json!({
        "httpMatches": [],
        "resource": {"type": "Dataplane", "mesh": mesh, "name": text(dataplane, "name"), "labels": labels},
        "rules": policies,
    })
}

/// A default policy of a mesh.
struct DefaultPolicy {
    kind: &'static str,
    name: &'static str,
    from: Option<fn() -> Value>,
    to: fn() -> Value,
}

const DEFAULT_POLICIES: [DefaultPolicy; 3] = [
    DefaultPolicy {
        kind: "MeshTimeout",
        name: "mesh-timeout",
        from: Some(|| {
            json!({
                "connectionTimeout": "10s",
                "idleTimeout": "2h0m0s",
                "http": {"requestTimeout": "0s", "streamIdleTimeout": "1h0m0s", "maxStreamDuration": "0s"},
            })
        }),
        to: || {
            json!({
                "connectionTimeout": "5s",
                "idleTimeout": "1h0m0s",
                "http": {"requestTimeout": "15s", "streamIdleTimeout": "30m0s"},
            })
        },
    },
    DefaultPolicy {
        kind: "MeshCircuitBreaker",
        name: "mesh-circuit-breaker",
        from: None,
        to: || {
            json!({"connectionLimits": {
                "maxConnections": 1024,
                "maxPendingRequests": 1024,
                "maxRetries": 3,
                "maxRequests": 1024,
            }})
        },
    },
    DefaultPolicy {
        kind: "MeshRetry",
        name: "mesh-retry",
        from: None,
        to: || {
            let retries = json!({
                "numRetries": 5,
                "perTryTimeout": "16s",
                "backOff": {"baseInterval": "25ms", "maxInterval": "250ms"},
            });
            json!({"tcp": {"maxConnectAttempt": 5}, "http": retries, "grpc": retries})
        },
    },
];

//! Services and checks of the catalog.

use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use super::decode::{JsonFieldKind, JsonMessage, flag, number, text, texts};

const WEIGHTS: JsonMessage =
    JsonMessage(&[("Passing", JsonFieldKind::Number), ("Warning", JsonFieldKind::Number)]);
const CONNECT: JsonMessage = JsonMessage(&[("Native", JsonFieldKind::Bool)]);
const PROXY: JsonMessage = JsonMessage(&[
    ("DestinationServiceName", JsonFieldKind::Text),
    ("DestinationServiceID", JsonFieldKind::Text),
    ("LocalServiceAddress", JsonFieldKind::Text),
    ("LocalServicePort", JsonFieldKind::Number),
    ("LocalServiceSocketPath", JsonFieldKind::Text),
    ("Mode", JsonFieldKind::Text),
    ("Config", JsonFieldKind::Object),
    ("Upstreams", JsonFieldKind::Any),
    ("MeshGateway", JsonFieldKind::Object),
    ("Expose", JsonFieldKind::Object),
    ("TransparentProxy", JsonFieldKind::Object),
    ("AccessLogs", JsonFieldKind::Object),
    ("EnvoyExtensions", JsonFieldKind::Any),
]);
pub(super) const SERVICE: JsonMessage = JsonMessage(&[
    ("Kind", JsonFieldKind::Text),
    ("ID", JsonFieldKind::Text),
    ("Service", JsonFieldKind::Text),
    ("Tags", JsonFieldKind::Texts),
    ("Meta", JsonFieldKind::TextMap),
    ("Port", JsonFieldKind::Number),
    ("Address", JsonFieldKind::Text),
    ("SocketPath", JsonFieldKind::Text),
    ("TaggedAddresses", JsonFieldKind::Object),
    ("Weights", JsonFieldKind::Message(&WEIGHTS)),
    ("EnableTagOverride", JsonFieldKind::Bool),
    ("Proxy", JsonFieldKind::Message(&PROXY)),
    ("Connect", JsonFieldKind::Message(&CONNECT)),
    ("ModifyIndex", JsonFieldKind::Number),
]);
pub(super) const CHECK: JsonMessage = JsonMessage(&[
    ("Node", JsonFieldKind::Text),
    ("CheckID", JsonFieldKind::Text),
    ("Name", JsonFieldKind::Text),
    ("Status", JsonFieldKind::Text),
    ("Notes", JsonFieldKind::Text),
    ("Output", JsonFieldKind::Text),
    ("ServiceID", JsonFieldKind::Text),
    ("ServiceName", JsonFieldKind::Text),
    ("Type", JsonFieldKind::Text),
    ("Interval", JsonFieldKind::Text),
    ("Timeout", JsonFieldKind::Text),
    ("ExposedPort", JsonFieldKind::Number),
    ("Definition", JsonFieldKind::Object),
]);

const KINDS: [&str; 6] =
    ["", "connect-proxy", "mesh-gateway", "terminating-gateway", "ingress-gateway", "api-gateway"];
/// The tagged address of a mesh service's virtual IP.
const VIRTUAL: &str = "consul-virtual";

/// An instance of a service.
#[derive(Clone, Debug)]
pub(super) struct ServiceInstance {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) kind: String,
    /// The destination service of a proxy.
    pub(super) destination: String,
    native: bool,
    /// The response form without indexes.
    body: Value,
    pub(super) created: u64,
    pub(super) modified: u64,
    /// The response form as JSON, once it was listed.
    listed: OnceLock<String>,
}

impl ServiceInstance {
    /// Parses and checks an instance.
    pub(super) fn read(fields: &Map<String, Value>) -> Result<Self, String> {
        let (id, name) = (text(fields, "ID"), text(fields, "Service"));
        if name.is_empty() {
            return Err(format!("the service {id:?} needs a name in Service.Service"));
        }
        let id = if id.is_empty() { name } else { id };
        if name.bytes().any(|byte| !byte.is_ascii_alphanumeric() && byte != b'-') {
            return Err(format!("the name {name:?} of a service: letters, digits and '-' are allowed"));
        }
        let kind = text(fields, "Kind");
        if !KINDS.contains(&kind) {
            return Err(format!("the Kind of the service {id:?} is {kind:?}, which is none"));
        }
        let empty = Map::new();
        let proxy = fields.get("Proxy").and_then(Value::as_object).unwrap_or(&empty);
        let connect = fields.get("Connect").and_then(Value::as_object).unwrap_or(&empty);
        let (destination, native) = (text(proxy, "DestinationServiceName"), flag(connect, "Native"));
        if kind == "connect-proxy" {
            if destination.is_empty() || destination == "*" {
                return Err(format!("Proxy.DestinationServiceName of {id:?} must name one service"));
            }
            if number(fields, "Port") == 0 && text(fields, "SocketPath").is_empty() {
                return Err(format!("the proxy {id:?} needs a Port or a SocketPath"));
            }
            if native {
                return Err(format!("{id:?} is a proxy and so cannot be Connect.Native"));
            }
        }
        Ok(Self {
            id: id.to_owned(),
            name: name.to_owned(),
            kind: kind.to_owned(),
            destination: destination.to_owned(),
            native,
            body: body(id, name, fields, proxy, native),
            created: 0,
            modified: 0,
            listed: OnceLock::new(),
        })
    }

    /// The service to which this instance gives a virtual address.
    pub(super) fn virtual_for(&self) -> Option<&str> {
        match self.kind.as_str() {
            "connect-proxy" => Some(&self.destination),
            _ if self.native => Some(&self.name),
            _ => None,
        }
    }

    pub(super) fn set_virtual_address(&mut self, address: &str) {
        let port = self.body.get("Port").cloned().unwrap_or_else(|| json!(0));
        if !self.body["TaggedAddresses"].is_object() {
            self.body["TaggedAddresses"] = json!({});
        }
        self.body["TaggedAddresses"][VIRTUAL] = json!({"Address": address, "Port": port});
    }

    pub(super) fn is_as(&self, other: &Self) -> bool {
        self.body == other.body
    }

    pub(super) fn field(&self, name: &str) -> &Value {
        self.body.get(name).unwrap_or(&Value::Null)
    }

    /// The response form without indexes, which no filter selects by.
    pub(super) fn body(&self) -> &Value {
        &self.body
    }

    pub(super) fn shown(&self) -> Value {
        let mut shown = self.body.clone();
        shown["CreateIndex"] = json!(self.created);
        shown["ModifyIndex"] = json!(self.modified);
        shown
    }

    /// The response form as JSON. A stored instance does not change.
    pub(super) fn listed(&self) -> &str {
        self.listed.get_or_init(|| self.shown().to_string())
    }
}

fn body(
    id: &str,
    name: &str,
    fields: &Map<String, Value>,
    proxy: &Map<String, Value>,
    native: bool,
) -> Value {
    let mut body = json!({
        "ID": id,
        "Service": name,
        "Tags": texts(fields, "Tags"),
        "Address": text(fields, "Address"),
        "Meta": fields.get("Meta").cloned().unwrap_or_default(),
        "Weights": weights(fields),
        "EnableTagOverride": flag(fields, "EnableTagOverride"),
        "Proxy": shown_proxy(proxy),
        "Connect": if native { json!({"Native": true}) } else { json!({}) },
        "PeerName": "",
    });
    for field in ["Kind", "Port", "SocketPath", "TaggedAddresses"] {
        if let Some(value) = fields.get(field).filter(|value| !is_zero(value)) {
            body[field] = value.clone();
        }
    }
    body
}

fn weights(fields: &Map<String, Value>) -> Value {
    match fields.get("Weights").and_then(Value::as_object) {
        Some(weights) => {
            json!({"Passing": number(weights, "Passing"), "Warning": number(weights, "Warning")})
        }
        None => json!({"Passing": 1, "Warning": 1}),
    }
}

fn shown_proxy(proxy: &Map<String, Value>) -> Value {
    let mut shown = json!({"Mode": "", "MeshGateway": {}, "Expose": {}});
    for (field, value) in proxy.iter().filter(|(_, value)| !is_zero(value)) {
        shown[field] = value.clone();
    }
    shown
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

/// A check.
#[derive(Clone, Debug)]
pub(super) struct HealthCheck {
    pub(super) id: String,
    /// Empty for a check of the node.
    pub(super) service_id: String,
    body: Value,
    pub(super) created: u64,
    pub(super) modified: u64,
}

impl HealthCheck {
    pub(super) fn read(node: &str, fields: &Map<String, Value>) -> Result<Self, String> {
        let (id, name) = (text(fields, "CheckID"), text(fields, "Name"));
        let id = if id.is_empty() { name } else { id };
        if id.is_empty() {
            return Err("a check needs a CheckID or a Name".to_owned());
        }
        let given = text(fields, "Node");
        if !given.is_empty() && given != node {
            return Err(format!("the check {id:?} names the node {given:?}, not {node:?}"));
        }
        let status = match text(fields, "Status") {
            "" => "critical",
            known @ ("passing" | "warning" | "critical") => known,
            other => return Err(format!("the Status of the check {id:?} is {other:?}, which is none")),
        };
        let or_empty = |field: &str| text(fields, field);
        Ok(Self {
            id: id.to_owned(),
            service_id: or_empty("ServiceID").to_owned(),
            body: json!({
                "Node": node,
                "CheckID": id,
                "Name": name,
                "Status": status,
                "Notes": or_empty("Notes"),
                "Output": or_empty("Output"),
                "ServiceID": or_empty("ServiceID"),
                "ServiceName": "",
                "ServiceTags": [],
                "Type": or_empty("Type"),
                "Interval": or_empty("Interval"),
                "Timeout": or_empty("Timeout"),
                "ExposedPort": number(fields, "ExposedPort"),
                "Definition": fields.get("Definition").cloned().unwrap_or_else(|| json!({})),
            }),
            created: 0,
            modified: 0,
        })
    }

    pub(super) fn of_service(mut self, service: &ServiceInstance) -> Self {
        self.body["ServiceName"] = json!(service.name);
        self.body["ServiceTags"] = service.field("Tags").clone();
        self
    }

    pub(super) fn is_as(&self, other: &Self) -> bool {
        self.body == other.body
    }

    pub(super) fn shown(&self) -> Value {
        let mut shown = self.body.clone();
        shown["CreateIndex"] = json!(self.created);
        shown["ModifyIndex"] = json!(self.modified);
        shown
    }
}

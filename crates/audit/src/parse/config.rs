//! `CONSUL_ECS_CONFIG_JSON` as consul-ecs reads it, defaults included. What does not fit its schema counts as left out here:
//! the schema's own rule tells of it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::facts::AuditedDefinition;
use crate::report::FindingLocation;
use ecs_mesh_aws::inspect::Redacted;
use ecs_mesh_consul::DEFAULT_METHOD;

/// The variable.
pub(crate) const VARIABLE: &str = "CONSUL_ECS_CONFIG_JSON";
/// The container of the older set-up.
pub(crate) const CLIENT: &str = "consul-client";

/// The value that a container has, and where.
#[derive(Clone, Debug)]
pub(crate) struct TaskConfig {
    /// Which container.
    pub(crate) container: usize,
    /// The place of the whole value.
    place: FindingLocation,
    /// The object.
    pub(crate) value: Value,
    /// Whether it is of consul-ecs before 0.6, whose tasks have a Consul client of their own.
    pub(crate) is_older: bool,
}

/// A value that is no object: where, and why.
pub(crate) type NotAnObject = (FindingLocation, String);

/// Every value of the variable in plain text, container by container.
pub(crate) fn all(definition: &AuditedDefinition) -> Vec<Result<TaskConfig, NotAnObject>> {
    let mut found = Vec::new();
    for (container, whole) in definition.containers() {
        for (index, variable) in whole.environment.iter().enumerate() {
            if variable.name == VARIABLE && !variable.value.expose().is_empty() {
                let field = format!("environment[{index}].value");
                let place = definition.container_place(container, &field);
                found.push(one(definition, container, place, variable.value.expose()));
            }
        }
    }
    found
}

fn one(definition: &AuditedDefinition, container: usize, place: FindingLocation, text: &str) -> Result<TaskConfig, NotAnObject> {
    match serde_json::from_str::<Value>(text) {
        Ok(value) if value.is_object() => {
            let older = ["/consulHTTPAddr", "/consulCACertFile", "/consulLogin/extraLoginFlags"];
            let has_client = definition.containers().any(|(_, container)| container.name == CLIENT);
            let is_older = value.get("consulServers").is_none()
                && (has_client || older.iter().any(|field| value.pointer(field).is_some()));
            Ok(TaskConfig { container, place, value, is_older })
        }
        Ok(_) => Err((place, "it is JSON and no object".to_owned())),
        Err(error) => {
            let words = error.to_string();
            let words = words.split(" at line ").next().unwrap_or_default();
            Err((place, format!("{words} at line {}, column {} of it", error.line(), error.column())))
        }
    }
}

impl TaskConfig {
    /// The place of a field of the object, `consulLogin.enabled`.
    pub(crate) fn location(&self, field: &str) -> FindingLocation {
        let dot = if field.is_empty() { "" } else { "." };
        self.place.clone().field(format!("{VARIABLE}{dot}{field}"))
    }

    /// The configuration of a controller and not of a task in the mesh.
    pub(crate) fn is_controller(&self) -> bool {
        self.value.get("controller").is_some_and(|controller| !controller.is_null())
            && self.value.get("service").is_none()
            && self.value.get("gateway").is_none()
    }

    /// Whether the proxy takes all that the app sends, and the app finds services by DNS.
    pub(crate) fn finds_services_by_dns(&self) -> bool {
        self.flag("/transparentProxy/enabled") != Some(false)
            && self.flag("/transparentProxy/consulDNS/enabled") == Some(true)
    }

    pub(crate) fn text(&self, pointer: &str) -> Option<&str> {
        self.value.pointer(pointer)?.as_str().filter(|text| !text.is_empty())
    }

    pub(crate) fn flag(&self, pointer: &str) -> Option<bool> {
        self.value.pointer(pointer)?.as_bool()
    }

    pub(crate) fn number(&self, pointer: &str) -> Option<i64> {
        self.value.pointer(pointer)?.as_i64()
    }

    pub(crate) fn texts(&self, pointer: &str) -> Vec<&str> {
        let list = self.value.pointer(pointer).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    pub(crate) fn map(&self, pointer: &str) -> BTreeMap<&str, &str> {
        let map = self.value.pointer(pointer).and_then(Value::as_object);
        map.into_iter().flatten().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?))).collect()
    }

    /// Where the task logs in.
    pub(crate) fn method(&self) -> &str {
        self.text("/consulLogin/method").unwrap_or(DEFAULT_METHOD)
    }

    /// Whether it logs in.
    pub(crate) fn logs_in(&self) -> bool {
        self.flag("/consulLogin/enabled") == Some(true)
    }

    /// Whether it sends the role's details; true unless it says otherwise.
    pub(crate) fn includes_entity(&self) -> bool {
        self.flag("/consulLogin/includeEntity").unwrap_or(true)
    }

    /// `gateway.kind`.
    pub(crate) fn gateway(&self) -> Option<&str> {
        self.text("/gateway/kind")
    }

    /// `service` or `gateway`: what the task registers.
    pub(crate) fn subject(&self) -> &'static str {
        if self.gateway().is_some() { "gateway" } else { "service" }
    }

    /// A text of the service or gateway.
    pub(crate) fn of_subject(&self, field: &str) -> Option<&str> {
        self.text(&format!("/{}/{field}", self.subject()))
    }

    /// The name that the task registers: the family in lower case where none is given.
    pub(crate) fn service(&self, family: &str) -> String {
        self.of_subject("name").map_or_else(|| family.to_lowercase(), str::to_owned)
    }

    /// `serverIdHeaderValue`.
    pub(crate) fn server_id(&self) -> Option<Redacted> {
        self.text("/consulLogin/serverIdHeaderValue").map(Redacted::new)
    }

    /// `proxy.upstreams`.
    pub(crate) fn upstreams(&self) -> Vec<Upstream<'_>> {
        let list = self.value.pointer("/proxy/upstreams").and_then(Value::as_array);
        list.into_iter().flatten().map(|value| Upstream { value }).collect()
    }
}

/// One of `proxy.upstreams`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Upstream<'a> {
    value: &'a Value,
}

impl<'a> Upstream<'a> {
    /// A text of it; empty where it is left out.
    pub(crate) fn text(self, field: &str) -> &'a str {
        self.value.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    /// The service that is called.
    pub(crate) fn name(self) -> &'a str {
        self.text("destinationName")
    }

    /// Whether it names a prepared query, and so no service.
    pub(crate) fn is_query(self) -> bool {
        self.text("destinationType") == "prepared_query"
    }

    /// Where the sidecar listens for it.
    pub(crate) fn address(self) -> &'a str {
        Some(self.text("localBindAddress")).filter(|text| !text.is_empty()).unwrap_or("127.0.0.1")
    }

    /// The port there.
    pub(crate) fn port(self) -> Option<i64> {
        self.value.get("localBindPort")?.as_i64()
    }
}

//! `CONSUL_ECS_CONFIG_JSON` as consul-ecs reads it, defaults included. Fields that violate the schema count as absent here,
//! since [`schema`](super::schema) reports them.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::facts::AuditedDefinition;
use crate::report::FindingLocation;
use ecs_mesh_aws::inspect::Redacted;
use ecs_mesh_consul::DEFAULT_METHOD;
use ecs_mesh_core::intent::TASK_MESH_TAG;
use ecs_mesh_model::Tags;

/// The variable.
pub(crate) const VARIABLE: &str = "CONSUL_ECS_CONFIG_JSON";
/// The container with a Consul client agent (consul-ecs before 0.6).
pub(crate) const CLIENT: &str = "consul-client";

/// The value of one container, with its location.
#[derive(Clone, Debug)]
pub(crate) struct TaskConfig {
    /// Index of the container.
    pub(crate) container: usize,
    /// The location of the value.
    place: FindingLocation,
    /// The object.
    pub(crate) value: Value,
    /// Whether the value is for consul-ecs before 0.6, whose tasks have a Consul client agent.
    pub(crate) is_older: bool,
}

/// Location and reason of a value that is not an object.
pub(crate) type NotAnObject = (FindingLocation, String);

/// Whether the task should be in a Consul mesh.
pub(crate) fn is_of_consul(definition: &AuditedDefinition) -> bool {
    let tagged = |tags: &Tags| tags.contains_key(TASK_MESH_TAG);
    let contained = definition.containers().any(|(_, container)| {
        container.name == CLIENT
            || container.has_variable(VARIABLE)
            || container.environment.iter().any(|variable| variable.name == VARIABLE)
            || ["consul-ecs", "consul-dataplane"].iter().any(|image| container.image.contains(image))
    });
    contained
        || definition.definition.tags.as_ref().is_some_and(tagged)
        || definition.uses.iter().any(|one| tagged(&one.tags))
}

/// The first value of `CONSUL_ECS_CONFIG_JSON` that is an object.
pub(crate) fn first(definition: &AuditedDefinition) -> Option<TaskConfig> {
    all(definition).into_iter().find_map(Result::ok)
}

/// All plain-text values of the variable, by container.
pub(crate) fn all(definition: &AuditedDefinition) -> Vec<Result<TaskConfig, NotAnObject>> {
    let mut found = Vec::new();
    for (index_of_container, container) in definition.containers() {
        for (index, variable) in container.environment.iter().enumerate() {
            if variable.name == VARIABLE && !variable.value.expose().is_empty() {
                let field = format!("environment[{index}].value");
                let place = definition.container_place(index_of_container, &field);
                found.push(one(definition, index_of_container, place, variable.value.expose()));
            }
        }
    }
    found
}

fn one(
    definition: &AuditedDefinition,
    container: usize,
    place: FindingLocation,
    text: &str,
) -> Result<TaskConfig, NotAnObject> {
    match serde_json::from_str::<Value>(text) {
        Ok(value) if value.is_object() => {
            let older = ["/consulHTTPAddr", "/consulCACertFile", "/consulLogin/extraLoginFlags"];
            let has_client = definition.containers().any(|(_, container)| container.name == CLIENT);
            let is_older = value.get("consulServers").is_none()
                && (has_client || older.iter().any(|field| value.pointer(field).is_some()));
            Ok(TaskConfig { container, place, value, is_older })
        }
        Ok(_) => Err((place, "JSON, but not an object".to_owned())),
        Err(error) => {
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or_default();
            Err((
                place,
                format!("{message} at line {}, column {} of the value", error.line(), error.column()),
            ))
        }
    }
}

impl TaskConfig {
    /// The location of a field of the object, `consulLogin.enabled`.
    pub(crate) fn location(&self, field: &str) -> FindingLocation {
        let dot = if field.is_empty() { "" } else { "." };
        self.place.clone().field(format!("{VARIABLE}{dot}{field}"))
    }

    /// Whether this configures the consul-ecs controller instead of a task in the mesh.
    pub(crate) fn is_controller(&self) -> bool {
        self.value.get("controller").is_some_and(|controller| !controller.is_null())
            && self.value.get("service").is_none()
            && self.value.get("gateway").is_none()
    }

    /// Whether the proxy is transparent and the app resolves services by Consul DNS.
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

    /// The auth method of the login.
    pub(crate) fn method(&self) -> &str {
        self.text("/consulLogin/method").unwrap_or(DEFAULT_METHOD)
    }

    /// Whether the task logs in.
    pub(crate) fn logs_in(&self) -> bool {
        self.flag("/consulLogin/enabled") == Some(true)
    }

    /// Whether the login includes the role's details (the default).
    pub(crate) fn includes_entity(&self) -> bool {
        self.flag("/consulLogin/includeEntity").unwrap_or(true)
    }

    /// `gateway.kind`.
    pub(crate) fn gateway(&self) -> Option<&str> {
        self.text("/gateway/kind")
    }

    /// The registered kind: `service` or `gateway`.
    pub(crate) fn subject(&self) -> &'static str {
        if self.gateway().is_some() { "gateway" } else { "service" }
    }

    /// A text of the service or gateway.
    pub(crate) fn of_subject(&self, field: &str) -> Option<&str> {
        self.text(&format!("/{}/{field}", self.subject()))
    }

    /// The registered name; default: the family in lower case.
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
    /// A text field; empty if absent.
    pub(crate) fn text(self, field: &str) -> &'a str {
        self.value.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    /// The called service.
    pub(crate) fn name(self) -> &'a str {
        self.text("destinationName")
    }

    /// Whether the upstream is a prepared query instead of a service.
    pub(crate) fn is_query(self) -> bool {
        self.text("destinationType") == "prepared_query"
    }

    /// The sidecar's listen address.
    pub(crate) fn address(self) -> &'a str {
        Some(self.text("localBindAddress")).filter(|text| !text.is_empty()).unwrap_or("127.0.0.1")
    }

    /// The sidecar's listen port.
    pub(crate) fn port(self) -> Option<i64> {
        self.value.get("localBindPort")?.as_i64()
    }
}

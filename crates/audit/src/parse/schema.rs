//! The schema of `CONSUL_ECS_CONFIG_JSON`, as tables. consul-ecs refuses the whole value if one field violates it.
//!
//! One table is for consul-ecs 0.6 and later (verified with 0.10), one for earlier versions, whose tasks have a Consul client agent.

use serde_json::Value;

use ecs_mesh_model::is_consul_service;

/// Type of a field.
enum FieldKind {
    Any,
    Text,
    FilledText,
    ServiceName,
    Flag,
    Whole,
    OneOf(&'static [&'static str]),
    Texts,
    Wholes,
    TextsByKey,
    /// An object with these fields. If closed, others are refused; otherwise they are ignored.
    Object(&'static [FieldSchema], bool),
    /// A list of such objects.
    Objects(&'static [FieldSchema], bool),
}

struct FieldSchema {
    name: &'static str,
    kind: FieldKind,
    required: bool,
    /// Whether `null` counts as left out.
    nullable: bool,
}

const fn may(name: &'static str, kind: FieldKind) -> FieldSchema {
    FieldSchema { name, kind, required: false, nullable: true }
}

const fn not_null(name: &'static str, kind: FieldKind) -> FieldSchema {
    FieldSchema { name, kind, required: false, nullable: false }
}

const fn must(name: &'static str, kind: FieldKind) -> FieldSchema {
    FieldSchema { name, kind, required: true, nullable: false }
}

use FieldKind::{
    Any, FilledText, Flag, Object, Objects, OneOf, ServiceName, Text, Texts, TextsByKey, Whole, Wholes,
};

const LEVELS: &[&str] = &["TRACE", "DEBUG", "INFO", "WARN", "ERROR"];
const GATEWAYS: &[&str] = &["mesh-gateway", "terminating-gateway", "api-gateway"];

const CURRENT: &[FieldSchema] = &[
    may("logLevel", OneOf(LEVELS)),
    must("bootstrapDir", FilledText),
    may("consulLogin", Object(LOGIN, true)),
    may("controller", Object(CONTROLLER, true)),
    must("consulServers", Object(SERVERS, true)),
    may("healthSyncContainers", Texts),
    not_null("service", Object(SERVICE, true)),
    may("proxy", Object(PROXY, false)),
    not_null("gateway", Object(GATEWAY, true)),
    may("transparentProxy", Object(TRANSPARENT_PROXY, true)),
];

const LOGIN: &[FieldSchema] = &[
    may("enabled", Flag),
    may("method", Text),
    may("datacenter", Text),
    may("includeEntity", Flag),
    may("meta", TextsByKey),
    may("region", Text),
    may("stsEndpoint", Text),
    may("serverIdHeaderValue", Text),
];

const CONTROLLER: &[FieldSchema] =
    &[may("iamRolePath", Text), may("partitionsEnabled", Flag), may("partition", Text)];

const SERVERS: &[FieldSchema] = &[
    must("hosts", Text),
    may("defaults", Object(SERVER_DEFAULTS, false)),
    may("http", Object(SERVER_HTTP, false)),
    may("grpc", Object(SERVER_GRPC, false)),
    may("skipServerWatch", Flag),
];

const SERVER_DEFAULTS: &[FieldSchema] =
    &[may("caCertFile", Text), may("tls", Flag), may("tlsServerName", Text)];

const SERVER_HTTP: &[FieldSchema] = &[
    may("caCertFile", Text),
    may("https", Flag),
    may("port", Whole),
    may("tls", Flag),
    may("tlsServerName", Text),
];

const SERVER_GRPC: &[FieldSchema] =
    &[may("caCertFile", Text), may("port", Whole), may("tls", Flag), may("tlsServerName", Text)];

const SERVICE: &[FieldSchema] = &[
    may("name", ServiceName),
    may("tags", Texts),
    must("port", Whole),
    may("enableTagOverride", Flag),
    may("meta", TextsByKey),
    may("weights", Object(WEIGHTS, true)),
    may("namespace", Text),
    may("partition", Text),
    may("networkResilienceConfig", Any),
];

const WEIGHTS: &[FieldSchema] = &[must("passing", Whole), must("warning", Whole)];

const PROXY: &[FieldSchema] = &[
    may("config", Any),
    may("localServiceAddress", Text),
    may("publicListenerPort", Whole),
    may("healthCheckPort", Any),
    may("upstreams", Objects(UPSTREAM, true)),
    may("meshGateway", Object(MESH_GATEWAY, false)),
    may("expose", Any),
];

const UPSTREAM: &[FieldSchema] = &[
    may("destinationType", OneOf(&["service", "prepared_query"])),
    may("destinationNamespace", Text),
    may("destinationPartition", Text),
    must("destinationName", Text),
    may("destinationPeer", Text),
    may("datacenter", Text),
    may("localBindAddress", Text),
    must("localBindPort", Whole),
    may("config", Any),
    may("meshGateway", Object(MESH_GATEWAY, false)),
];

const MESH_GATEWAY: &[FieldSchema] = &[must("mode", OneOf(&["none", "local", "remote"]))];

const GATEWAY: &[FieldSchema] = &[
    must("kind", OneOf(GATEWAYS)),
    may("lanAddress", Object(ADDRESS, true)),
    may("wanAddress", Object(ADDRESS, true)),
    may("name", ServiceName),
    may("tags", Texts),
    may("meta", TextsByKey),
    may("namespace", Text),
    may("partition", Text),
    may("healthCheckPort", Any),
    may("proxy", Any),
];

const ADDRESS: &[FieldSchema] = &[may("address", Text), may("port", Whole)];

const TRANSPARENT_PROXY: &[FieldSchema] = &[
    may("enabled", Flag),
    may("excludeInboundPorts", Wholes),
    may("excludeOutboundPorts", Wholes),
    may("excludeOutboundCIDRs", Texts),
    may("excludeUIDs", Texts),
    not_null("consulDNS", Object(&[may("enabled", Flag)], true)),
];

const OLDER: &[FieldSchema] = &[
    may("logLevel", OneOf(LEVELS)),
    must("bootstrapDir", FilledText),
    may("consulHTTPAddr", Text),
    may("consulCACertFile", Text),
    may("consulLogin", Object(OLDER_LOGIN, true)),
    may("healthSyncContainers", Texts),
    not_null("service", Object(OLDER_SERVICE, true)),
    may("proxy", Object(PROXY, false)),
    not_null("gateway", Object(GATEWAY, true)),
];

const OLDER_LOGIN: &[FieldSchema] =
    &[may("enabled", Flag), may("method", Text), may("includeEntity", Flag), may("extraLoginFlags", Texts)];

const OLDER_SERVICE: &[FieldSchema] = &[
    may("name", ServiceName),
    may("tags", Texts),
    must("port", Whole),
    may("enableTagOverride", Flag),
    may("meta", TextsByKey),
    may("weights", Object(WEIGHTS, true)),
    may("checks", Any),
    may("namespace", Text),
    may("partition", Text),
];

/// A violation of the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SchemaViolation {
    /// The field, `consulLogin.enabled`.
    pub(crate) field: String,
    /// The finding and the allowed form; never a value.
    pub(crate) message: String,
    /// Whether consul-ecs refuses the value; otherwise consul-ecs ignores the field.
    pub(crate) is_refused: bool,
}

/// All violations.
pub(crate) fn schema_violations(value: &Value, is_older: bool) -> Vec<SchemaViolation> {
    let mut found = Vec::new();
    object(value, if is_older { OLDER } else { CURRENT }, true, "", &mut found);
    found
}

fn object(
    value: &Value,
    fields: &[FieldSchema],
    closed: bool,
    path: &str,
    message: &mut Vec<SchemaViolation>,
) {
    let Some(given) = value.as_object() else {
        return message.push(violation(path, format!("it is {}; an object is needed", kind_of(value))));
    };
    for (name, value) in given {
        match fields.iter().find(|field| field.name == name) {
            Some(field) if value.is_null() && field.nullable => {}
            Some(field) => check(value, &field.kind, &join(path, name), message),
            None => message.push(SchemaViolation { is_refused: closed, ..unknown(name, fields, path) }),
        }
    }
    for field in fields.iter().filter(|field| field.required && !given.contains_key(field.name)) {
        message.push(violation(&join(path, field.name), "it is missing".to_owned()));
    }
}

fn unknown(name: &str, fields: &[FieldSchema], path: &str) -> SchemaViolation {
    let likely = fields
        .iter()
        .map(|field| {
            (strsim::normalized_damerau_levenshtein(&name.to_lowercase(), &field.name.to_lowercase()), field)
        })
        .filter(|(likeness, _)| *likeness >= 0.6)
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    let meant = likely.map_or_else(
        || format!("; known are: {}", fields.iter().map(|field| field.name).collect::<Vec<_>>().join(", ")),
        |(_, field)| format!("; did you mean {}?", field.name),
    );
    violation(&join(path, name), format!("no such field{meant}"))
}

fn check(value: &Value, kind: &FieldKind, path: &str, message: &mut Vec<SchemaViolation>) {
    let whole = |value: &Value| value.is_i64() || value.is_u64();
    let list_of = |fits: fn(&Value) -> bool| value.as_array().is_some_and(|list| list.iter().all(fits));
    let needed = match kind {
        Any => return,
        Object(fields, closed) => return object(value, fields, *closed, path, message),
        Objects(fields, closed) => match value.as_array() {
            Some(list) => {
                for (index, item) in list.iter().enumerate() {
                    object(item, fields, *closed, &format!("{path}[{index}]"), message);
                }
                return;
            }
            None => "a list of objects",
        },
        Text if value.is_string() => return,
        Text => "a text",
        FilledText if value.as_str().is_some_and(|text| !text.is_empty()) => return,
        FilledText => "a text that is not empty",
        ServiceName if value.as_str().is_some_and(|text| text.is_empty() || is_consul_service(text)) => {
            return;
        }
        ServiceName => "a name in lower case: letters, digits, - and _, a letter or digit at both ends",
        Flag if value.is_boolean() => return,
        Flag => "true or false",
        Whole if whole(value) => return,
        Whole => "a whole number",
        OneOf(words) if value.as_str().is_some_and(|text| words.contains(&text)) => return,
        OneOf(words) => {
            let words = words.join(", ");
            return message
                .push(violation(path, format!("it is {}; one of {words} is needed", kind_of(value))));
        }
        Texts if list_of(Value::is_string) => return,
        Texts => "a list of texts",
        Wholes if list_of(|value| value.is_i64() || value.is_u64()) => return,
        Wholes => "a list of whole numbers",
        TextsByKey if value.as_object().is_some_and(|map| map.values().all(Value::is_string)) => return,
        TextsByKey => "an object whose values are texts",
    };
    message.push(violation(path, format!("it is {}; {needed} is needed", kind_of(value))));
}

fn violation(path: &str, message: String) -> SchemaViolation {
    SchemaViolation { field: path.to_owned(), message, is_refused: true }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(number) if number.is_f64() => "a fraction",
        Value::Number(_) => "a number",
        Value::String(text) if text.is_empty() => "an empty text",
        Value::String(_) => "another text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn good() -> Value {
        json!({
            "bootstrapDir": "/consul",
            "consulLogin": {"enabled": true, "method": null},
            "consulServers": {"hosts": "consul.internal", "http": {"port": 8501}},
            "service": {"name": "kv", "port": 8080},
            "proxy": {"upstreams": [{"destinationName": "db", "localBindPort": 5000}]},
            "healthSyncContainers": ["app"],
        })
    }

    #[test]
    fn valid_configuration_has_no_violation() {
        assert_eq!(schema_violations(&good(), false), []);
        let older = json!({"bootstrapDir": "/c", "consulHTTPAddr": "https://a:8501",
            "consulLogin": {"extraLoginFlags": ["-x"]}, "service": {"port": 1, "checks": []}});
        assert_eq!(schema_violations(&older, true), []);
    }

    #[test]
    fn violation_names_field_and_allowed_values() {
        for (pointer, value, field, words) in [
            ("/bootstrapDir", json!(""), "bootstrapDir", "not empty"),
            ("/consulLogin", json!({"enable": true}), "consulLogin.enable", "did you mean enabled?"),
            ("/consulLogin", json!({"extraLoginFlags": []}), "consulLogin.extraLoginFlags", "no such field"),
            ("/consulLogin/enabled", json!("true"), "consulLogin.enabled", "true or false is needed"),
            ("/consulServers", json!({}), "consulServers.hosts", "missing"),
            ("/consulServers/http/port", json!("8501"), "consulServers.http.port", "a whole number"),
            ("/service", Value::Null, "service", "an object is needed"),
            ("/service", json!({"name": "kv"}), "service.port", "missing"),
            ("/service/name", json!("Kv"), "service.name", "lower case"),
            (
                "/proxy/upstreams/0",
                json!({"localBindPort": 1}),
                "proxy.upstreams[0].destinationName",
                "missing",
            ),
            ("/healthSyncContainers", json!("app"), "healthSyncContainers", "a list of texts"),
        ] {
            let mut config = good();
            *config.pointer_mut(pointer).unwrap() = value;
            let found = schema_violations(&config, false);
            assert!(
                found.len() == 1 && found[0].field == field && found[0].message.contains(words),
                "{pointer}: {found:?}"
            );
            assert!(found[0].is_refused, "{found:?}");
        }
    }

    #[test]
    fn ignored_field_is_not_refused() {
        let mut config = good();
        config["consulServers"]["http"] = json!({"ports": 8501});
        let found = schema_violations(&config, false);
        assert_eq!((found.len(), found[0].is_refused), (1, false));
    }
}

//! What the catalog and the health endpoints show, and to whom.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::acl::Caller;
use super::answer::{Answer, Outcome, Refusal};
use super::bexpr::{Expression, Fields, Shape};
use super::powers::{Level, Resource};
use super::server::{Call, ConsulServer};

const PROXY: &[(&str, Shape)] = &[
    ("DestinationServiceName", Shape::Text),
    ("DestinationServiceID", Shape::Text),
    ("LocalServiceAddress", Shape::Text),
    ("LocalServicePort", Shape::Number),
    ("Mode", Shape::Text),
];
const WEIGHTS: &[(&str, Shape)] = &[("Passing", Shape::Number), ("Warning", Shape::Number)];
const CONNECT: &[(&str, Shape)] = &[("Native", Shape::Bool)];
const SERVICE: &[(&str, Shape)] = &[
    ("ID", Shape::Text),
    ("Kind", Shape::Text),
    ("Service", Shape::Text),
    ("Tags", Shape::Texts),
    ("Address", Shape::Text),
    ("Port", Shape::Number),
    ("SocketPath", Shape::Text),
    ("Meta", Shape::TextMap),
    ("EnableTagOverride", Shape::Bool),
    ("PeerName", Shape::Text),
    ("Weights", Shape::Object(WEIGHTS)),
    ("Proxy", Shape::Object(PROXY)),
    ("Connect", Shape::Object(CONNECT)),
];
const NODE: &[(&str, Shape)] = &[
    ("ID", Shape::Text),
    ("Node", Shape::Text),
    ("Address", Shape::Text),
    ("Datacenter", Shape::Text),
    ("TaggedAddresses", Shape::TextMap),
    ("Meta", Shape::TextMap),
];
const INSTANCE: &[(&str, Shape)] = &[
    ("ID", Shape::Text),
    ("Node", Shape::Text),
    ("Address", Shape::Text),
    ("Datacenter", Shape::Text),
    ("TaggedAddresses", Shape::TextMap),
    ("NodeMeta", Shape::TextMap),
    ("ServiceKind", Shape::Text),
    ("ServiceID", Shape::Text),
    ("ServiceName", Shape::Text),
    ("ServiceTags", Shape::Texts),
    ("ServiceAddress", Shape::Text),
    ("ServicePort", Shape::Number),
    ("ServiceMeta", Shape::TextMap),
    ("ServiceEnableTagOverride", Shape::Bool),
    ("ServiceWeights", Shape::Object(WEIGHTS)),
    ("ServiceProxy", Shape::Object(PROXY)),
    ("ServiceConnect", Shape::Object(CONNECT)),
];
const HEALTH: &[(&str, Shape)] = &[("Node", Shape::Object(NODE)), ("Service", Shape::Object(SERVICE))];

const SERVICES: Fields = Fields(SERVICE);
const NODES: Fields = Fields(NODE);
const INSTANCES: Fields = Fields(INSTANCE);
const HEALTHS: Fields = Fields(HEALTH);

fn sees_node(caller: &Caller, name: &str) -> bool {
    caller.may(Resource::Node, name, Level::Read)
}

fn sees_service(caller: &Caller, name: &str) -> bool {
    caller.may(Resource::Service, name, Level::Read)
}

fn filter(call: &Call<'_>, fields: &Fields) -> Result<Expression, Refusal> {
    let text = call.target.parameter("filter");
    Expression::parse(text, fields)
        .map_err(|what| Refusal::invalid(format!("the filter {text:?} is not valid: {what}")))
}

impl ConsulServer {
    pub(super) fn list_nodes(&self, call: &Call<'_>) -> Outcome {
        let (caller, filter) = (self.caller(call.secret)?, filter(call, &NODES)?);
        let mut hidden = false;
        let mut shown = Vec::new();
        for (name, node) in &self.catalog.nodes {
            if sees_node(&caller, name) {
                shown.push(node.shown(name, &self.config.datacenter));
            } else {
                hidden = true;
            }
        }
        shown.retain(|node| filter.selects(node));
        let index = self.catalog.nodes_changed;
        Ok(Answer::catalog(Value::Array(shown), index, hidden && caller.is_told()))
    }

    pub(super) fn list_services(&self, call: &Call<'_>) -> Outcome {
        let caller = self.caller(call.secret)?;
        let mut names: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut hidden = false;
        for service in self.catalog.nodes.values().flat_map(|node| node.services.values()) {
            if !sees_service(&caller, &service.name) {
                hidden = true;
                continue;
            }
            let tags = names.entry(&service.name).or_default();
            for tag in service.field("Tags").as_array().into_iter().flatten().filter_map(Value::as_str) {
                if !tags.contains(&tag) {
                    tags.push(tag);
                }
            }
        }
        Ok(Answer::catalog(json!(names), self.catalog.services_changed, hidden && caller.is_told()))
    }

    pub(super) fn list_instances(&self, call: &Call<'_>, name: &str) -> Outcome {
        let (caller, filter) = (self.caller(call.secret)?, filter(call, &INSTANCES)?);
        let mut hidden = false;
        let mut shown = Vec::new();
        for (node_name, node, service) in self.catalog.instances(name) {
            if sees_node(&caller, node_name) && sees_service(&caller, name) {
                shown.push(service.shown_with(&node.shown(node_name, &self.config.datacenter)));
            } else {
                hidden = true;
            }
        }
        shown.retain(|instance| filter.selects(instance));
        let index = self.catalog.service_index(name);
        Ok(Answer::catalog(Value::Array(shown), index, hidden && caller.is_told()))
    }

    /// A node with its services, as a list or by their ids. A node that is not there looks like one that is not shown.
    pub(super) fn node_services(&self, call: &Call<'_>, name: &str, as_list: bool) -> Outcome {
        let (caller, filter) = (self.caller(call.secret)?, filter(call, &SERVICES)?);
        let index = self.catalog.node_index(name);
        let nothing = || if as_list { json!({"Node": null, "Services": null}) } else { Value::Null };
        let Some(node) = self.catalog.nodes.get(name) else {
            return Ok(Answer::catalog(nothing(), index, false));
        };
        if !sees_node(&caller, name) {
            return Ok(Answer::catalog(nothing(), index, caller.is_told()));
        }
        let seen = node.services.values().filter(|service| sees_service(&caller, &service.name));
        let mut seen: Vec<Value> = seen.map(|service| service.shown()).collect();
        let hidden = seen.len() < node.services.len();
        seen.retain(|service| filter.selects(service));
        let services = if !as_list {
            let id = |service: &Value| service["ID"].as_str().unwrap_or_default().to_owned();
            Value::Object(seen.into_iter().map(|service| (id(&service), service)).collect())
        } else if node.services.is_empty() {
            Value::Null
        } else {
            Value::Array(seen)
        };
        let node = node.shown(name, &self.config.datacenter);
        let body = json!({"Node": node, "Services": services});
        Ok(Answer::catalog(body, index, hidden && caller.is_told()))
    }

    pub(super) fn health_of_service(&self, call: &Call<'_>, name: &str) -> Outcome {
        let (caller, filter) = (self.caller(call.secret)?, filter(call, &HEALTHS)?);
        let (mut hidden, passing) = (false, call.target.has("passing"));
        let mut shown = Vec::new();
        for (node_name, node, service) in self.catalog.instances(name) {
            if !(sees_node(&caller, node_name) && sees_service(&caller, name)) {
                hidden = true;
                continue;
            }
            let checks = node.checks.values();
            let checks: Vec<_> = checks
                .filter(|check| check.service_id.is_empty() || check.service_id == service.id)
                .collect();
            if passing && checks.iter().any(|check| check.status != "passing") {
                continue;
            }
            shown.push(json!({
                "Node": node.shown(node_name, &self.config.datacenter),
                "Service": service.shown(),
                "Checks": checks.iter().map(|check| check.shown()).collect::<Vec<_>>(),
            }));
        }
        shown.retain(|instance| filter.selects(instance));
        let index = self.catalog.service_index(name);
        Ok(Answer::catalog(Value::Array(shown), index, hidden && caller.is_told()))
    }

    pub(super) fn health_of_node(&self, call: &Call<'_>, name: &str) -> Outcome {
        let caller = self.caller(call.secret)?;
        let checks = self.catalog.nodes.get(name).into_iter().flat_map(|node| node.checks.values());
        let seen: Vec<Value> =
            if sees_node(&caller, name) { checks.map(|check| check.shown()).collect() } else { Vec::new() };
        let hidden = self.catalog.nodes.contains_key(name) && !sees_node(&caller, name);
        let index = self.catalog.node_index(name).max(self.catalog.checks_changed);
        Ok(Answer::catalog(Value::Array(seen), index, hidden && caller.is_told()))
    }
}

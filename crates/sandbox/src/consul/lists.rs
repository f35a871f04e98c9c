//! Reads of the catalog and health endpoints, filtered by permissions.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::acl::AclCaller;
use super::bexpr::{Expression, FieldShape, SelectableFields};
use super::permissions::{AccessLevel, Resource};
use super::response::{ConsulErrorResponse, HandlerResponse, HandlerResult};
use super::server::{ConsulServer, RequestContext};
use super::service::ServiceInstance;

const PROXY: &[(&str, FieldShape)] = &[
    ("DestinationServiceName", FieldShape::Text),
    ("DestinationServiceID", FieldShape::Text),
    ("LocalServiceAddress", FieldShape::Text),
    ("LocalServicePort", FieldShape::Number),
    ("Mode", FieldShape::Text),
];
const WEIGHTS: &[(&str, FieldShape)] = &[("Passing", FieldShape::Number), ("Warning", FieldShape::Number)];
const CONNECT: &[(&str, FieldShape)] = &[("Native", FieldShape::Bool)];
const SERVICE: &[(&str, FieldShape)] = &[
    ("ID", FieldShape::Text),
    ("Kind", FieldShape::Text),
    ("Service", FieldShape::Text),
    ("Tags", FieldShape::Texts),
    ("Address", FieldShape::Text),
    ("Port", FieldShape::Number),
    ("SocketPath", FieldShape::Text),
    ("Meta", FieldShape::TextMap),
    ("EnableTagOverride", FieldShape::Bool),
    ("PeerName", FieldShape::Text),
    ("Weights", FieldShape::Object(WEIGHTS)),
    ("Proxy", FieldShape::Object(PROXY)),
    ("Connect", FieldShape::Object(CONNECT)),
];
const NODE: &[(&str, FieldShape)] = &[
    ("ID", FieldShape::Text),
    ("Node", FieldShape::Text),
    ("Address", FieldShape::Text),
    ("Datacenter", FieldShape::Text),
    ("TaggedAddresses", FieldShape::TextMap),
    ("Meta", FieldShape::TextMap),
];

const SERVICES: SelectableFields = SelectableFields(SERVICE);
const NODES: SelectableFields = SelectableFields(NODE);

fn sees_node(caller: &AclCaller, name: &str) -> bool {
    caller.may(Resource::Node, name, AccessLevel::Read)
}

fn sees_service(caller: &AclCaller, name: &str) -> bool {
    caller.may(Resource::Service, name, AccessLevel::Read)
}

fn filter(call: &RequestContext<'_>, fields: &SelectableFields) -> Result<Expression, ConsulErrorResponse> {
    let text = call.target.parameter("filter");
    Expression::parse(text, fields)
        .map_err(|what| ConsulErrorResponse::invalid(format!("the filter {text:?} is not valid: {what}")))
}

impl ConsulServer {
    pub(super) fn list_nodes(&self, call: &RequestContext<'_>) -> HandlerResult {
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
        Ok(HandlerResponse::catalog(&Value::Array(shown), index, hidden && caller.reports_filtering()))
    }

    pub(super) fn list_services(&self, call: &RequestContext<'_>) -> HandlerResult {
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
        Ok(HandlerResponse::catalog(
            &json!(names),
            self.catalog.services_changed,
            hidden && caller.reports_filtering(),
        ))
    }

    /// A node with its services, as a list or by id. An unknown node has the same response as one that the caller may
    /// not read.
    pub(super) fn node_services(
        &self,
        call: &RequestContext<'_>,
        name: &str,
        as_list: bool,
    ) -> HandlerResult {
        let (caller, filter) = (self.caller(call.secret)?, filter(call, &SERVICES)?);
        let index = self.catalog.node_index(name);
        let nothing = || if as_list { json!({"Node": null, "Services": null}) } else { Value::Null };
        let Some(node) = self.catalog.nodes.get(name) else {
            return Ok(HandlerResponse::catalog(&nothing(), index, false));
        };
        if !sees_node(&caller, name) {
            return Ok(HandlerResponse::catalog(&nothing(), index, caller.reports_filtering()));
        }
        let mut seen: Vec<(&String, &Arc<ServiceInstance>)> =
            node.services.iter().filter(|(_, service)| sees_service(&caller, &service.name)).collect();
        let hidden = seen.len() < node.services.len();
        seen.retain(|(_, service)| filter.selects(service.body()));
        let services = if !as_list {
            let entries = seen.iter().map(|(id, service)| format!("{}:{}", json!(id), service.listed()));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
        } else if node.services.is_empty() {
            "null".to_owned()
        } else {
            let items = seen.iter().map(|(_, service)| service.listed());
            format!("[{}]", items.collect::<Vec<_>>().join(","))
        };
        let node = node.shown(name, &self.config.datacenter);
        let body = format!("{{\"Node\":{node},\"Services\":{services}}}");
        Ok(HandlerResponse::catalog_json(body, index, hidden && caller.reports_filtering()))
    }

    pub(super) fn health_of_service(&self, call: &RequestContext<'_>, name: &str) -> HandlerResult {
        let caller = self.caller(call.secret)?;
        let mut hidden = false;
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
            shown.push(json!({
                "Node": node.shown(node_name, &self.config.datacenter),
                "Service": service.shown(),
                "Checks": checks.iter().map(|check| check.shown()).collect::<Vec<_>>(),
            }));
        }
        let index = self.catalog.service_index(name);
        Ok(HandlerResponse::catalog(&Value::Array(shown), index, hidden && caller.reports_filtering()))
    }

    pub(super) fn health_of_node(&self, call: &RequestContext<'_>, name: &str) -> HandlerResult {
        let caller = self.caller(call.secret)?;
        let checks = self.catalog.nodes.get(name).into_iter().flat_map(|node| node.checks.values());
        let seen: Vec<Value> =
            if sees_node(&caller, name) { checks.map(|check| check.shown()).collect() } else { Vec::new() };
        let hidden = self.catalog.nodes.contains_key(name) && !sees_node(&caller, name);
        let index = self.catalog.node_index(name).max(self.catalog.checks_changed);
        Ok(HandlerResponse::catalog(&Value::Array(seen), index, hidden && caller.reports_filtering()))
    }
}

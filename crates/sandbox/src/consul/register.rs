//! Registration and deregistration in the catalog, with their permission checks.

use serde_json::{Map, Value};

use super::acl::AclCaller;
use super::catalog::NodeSpec;
use super::decode::{self, JsonFieldKind, JsonMessage, UnknownFields, flag, objects, text};
use super::ids;
use super::permissions::{AccessLevel, Resource};
use super::response::{ConsulErrorResponse, HandlerResponse, HandlerResult};
use super::server::{ConsulServer, NODE_NAME, RequestContext};
use super::service::{CHECK, HealthCheck, SERVICE, ServiceInstance};

const REGISTER: JsonMessage = JsonMessage(&[
    ("ID", JsonFieldKind::Text),
    ("Node", JsonFieldKind::Text),
    ("Address", JsonFieldKind::Text),
    ("Datacenter", JsonFieldKind::Text),
    ("TaggedAddresses", JsonFieldKind::TextMap),
    ("NodeMeta", JsonFieldKind::TextMap),
    ("Service", JsonFieldKind::Message(&SERVICE)),
    ("Check", JsonFieldKind::Message(&CHECK)),
    ("Checks", JsonFieldKind::Messages(&CHECK)),
    ("SkipNodeUpdate", JsonFieldKind::Bool),
]);
const DEREGISTER: JsonMessage = JsonMessage(&[
    ("Node", JsonFieldKind::Text),
    ("Datacenter", JsonFieldKind::Text),
    ("ServiceID", JsonFieldKind::Text),
]);

/// A valid registration.
struct CatalogRegistration<'a> {
    node: &'a str,
    spec: NodeSpec,
    skips_node: bool,
    service: Option<ServiceInstance>,
    checks: Vec<HealthCheck>,
}

impl ConsulServer {
    pub(super) fn register(&mut self, call: &RequestContext<'_>) -> HandlerResult {
        let body = decode::body(&REGISTER, &call.request.body, UnknownFields::Dropped);
        let body = body
            .map_err(|what| ConsulErrorResponse::malformed(format!("decoding the registration: {what}")))?;
        self.check_datacenter(text(&body, "Datacenter"))?;
        let caller = self.caller(call.secret)?;
        let registration = registration(&body).map_err(ConsulErrorResponse::invalid)?;
        self.may_register(&caller, &registration)?;
        self.apply(call, &caller, registration)
    }

    fn apply(
        &mut self,
        call: &RequestContext<'_>,
        caller: &AclCaller,
        registration: CatalogRegistration<'_>,
    ) -> HandlerResult {
        let node = registration.node;
        let known = registration.service.as_ref().map(|service| service.id.as_str());
        let has = |id: &str| {
            Some(id) == known
                || self.catalog.nodes.get(node).is_some_and(|node| node.services.contains_key(id))
        };
        if let Some(check) =
            registration.checks.iter().find(|c| !c.service_id.is_empty() && !has(&c.service_id))
        {
            let text = format!("the check {:?} is of a service that is not registered", check.id);
            return Err(ConsulErrorResponse::invalid(text));
        }
        let index = self.commit();
        if !registration.skips_node || !self.catalog.nodes.contains_key(node) {
            self.write_node(call, caller, index, node, registration.spec);
        }
        if let Some(service) = registration.service {
            self.write_service(call, caller, index, node, service);
        }
        for check in registration.checks {
            let id = format!("{node} {}", check.id);
            if let Some((before, after)) = self.catalog.put_check(index, node, check) {
                let before = before.map(|before| before.shown());
                self.record(call, caller, "check", &id, before, Some(after.shown()));
            }
        }
        Ok(HandlerResponse::done())
    }

    pub(super) fn write_node(
        &mut self,
        call: &RequestContext<'_>,
        caller: &AclCaller,
        index: u64,
        node: &str,
        spec: NodeSpec,
    ) {
        let before = self.shown_node(node);
        self.catalog.put_node(index, node, spec);
        let after = self.shown_node(node);
        self.record(call, caller, "node", node, before, after);
    }

    pub(super) fn write_service(
        &mut self,
        call: &RequestContext<'_>,
        caller: &AclCaller,
        index: u64,
        node: &str,
        service: ServiceInstance,
    ) {
        let id = format!("{node} {}", service.id);
        if let Some((before, after)) = self.catalog.put_service(index, node, service) {
            let before = before.map(|before| before.shown());
            self.record(call, caller, "service", &id, before, Some(after.shown()));
        }
    }

    pub(super) fn shown_node(&self, name: &str) -> Option<Value> {
        self.catalog.nodes.get(name).map(|node| node.shown(name, &self.config.datacenter))
    }

    /// Checks the permissions of a registration. An unchanged node needs no permission for it.
    fn may_register(
        &self,
        caller: &AclCaller,
        registration: &CatalogRegistration<'_>,
    ) -> Result<(), ConsulErrorResponse> {
        let write_service = |name: &str| caller.require(Resource::Service, name, AccessLevel::Write);
        if let Some(service) = &registration.service {
            write_service(&service.name)?;
            if service.kind == "connect-proxy" {
                write_service(&service.destination)?;
            }
        }
        let node = self.catalog.nodes.get(registration.node);
        let changes = |spec: &NodeSpec| !registration.skips_node && *spec != registration.spec;
        if node.is_none_or(|node| changes(&node.spec)) {
            caller.require(Resource::Node, registration.node, AccessLevel::Write)?;
        }
        let stored = |id: &str| node.and_then(|node| node.services.get(id));
        if let Some(other) = registration.service.as_ref().and_then(|service| stored(&service.id)) {
            write_service(&other.name)?;
        }
        for check in &registration.checks {
            let own = registration.service.as_ref().filter(|service| service.id == check.service_id);
            match own.map(|service| &service.name).or(stored(&check.service_id).map(|service| &service.name))
            {
                Some(name) => write_service(name)?,
                None => caller.require(Resource::Node, registration.node, AccessLevel::Write)?,
            }
        }
        Ok(())
    }

    pub(super) fn deregister(&mut self, call: &RequestContext<'_>) -> HandlerResult {
        let body = decode::body(&DEREGISTER, &call.request.body, UnknownFields::Dropped);
        let body =
            body.map_err(|what| ConsulErrorResponse::malformed(format!("decoding the request: {what}")))?;
        self.check_datacenter(text(&body, "Datacenter"))?;
        let (node, service) = (text(&body, "Node"), text(&body, "ServiceID"));
        if node.is_empty() {
            return Err(ConsulErrorResponse::invalid("a node must be named in Node"));
        }
        let caller = self.caller(call.secret)?;
        self.may_deregister(&caller, node, service)?;
        let index = self.commit();
        if service.is_empty() {
            self.drop_node(call, &caller, index, node);
        } else {
            self.drop_service(call, &caller, index, node, service);
        }
        Ok(HandlerResponse::done())
    }

    /// Checks the permissions of a deregistration: `node:write` suffices for everything on the node, `service:write`
    /// for the service.
    fn may_deregister(
        &self,
        caller: &AclCaller,
        node: &str,
        service: &str,
    ) -> Result<(), ConsulErrorResponse> {
        let on_node = caller.require(Resource::Node, node, AccessLevel::Write);
        if on_node.is_ok() || service.is_empty() {
            return on_node;
        }
        let stored = self.catalog.nodes.get(node).and_then(|node| node.services.get(service));
        match stored {
            Some(service) => caller.require(Resource::Service, &service.name, AccessLevel::Write),
            None => Err(ConsulErrorResponse::invalid(format!("there is no service {service:?} on the node"))),
        }
    }

    pub(super) fn drop_service(
        &mut self,
        call: &RequestContext<'_>,
        caller: &AclCaller,
        index: u64,
        node: &str,
        id: &str,
    ) {
        if let Some(removed) = self.catalog.remove_service(index, node, id) {
            self.record(call, caller, "service", &format!("{node} {id}"), Some(removed.shown()), None);
        }
    }

    pub(super) fn drop_node(
        &mut self,
        call: &RequestContext<'_>,
        caller: &AclCaller,
        index: u64,
        name: &str,
    ) {
        let before = self.shown_node(name);
        let Some(node) = self.catalog.remove_node(index, name) else { return };
        for service in node.services.values() {
            let id = format!("{name} {}", service.id);
            self.record(call, caller, "service", &id, Some(service.shown()), None);
        }
        self.record(call, caller, "node", name, before, None);
        self.end_sessions_of(call.now, index, name);
    }

    /// Registers the server's own node, as every agent does.
    pub(super) fn register_own_node(&mut self) {
        let index = self.commit();
        let id = self.node_id.clone();
        let local = "127.0.0.1";
        let tagged = ["lan", "lan_ipv4", "wan", "wan_ipv4"];
        let spec = NodeSpec {
            id,
            address: local.to_owned(),
            tagged: tagged.into_iter().map(|tag| (tag.to_owned(), Value::from(local))).collect(),
            meta: serde_json::json!({"consul-network-segment": "", "consul-version": super::server::VERSION}),
        };
        self.catalog.put_node(index, NODE_NAME, spec);
        let fields = serde_json::json!({"ID": "consul", "Service": "consul", "Port": 8300});
        let check =
            serde_json::json!({"CheckID": "serfHealth", "Name": "Serf Health Status", "Status": "passing"});
        let empty = Map::new();
        if let Ok(service) = ServiceInstance::read(fields.as_object().unwrap_or(&empty)) {
            self.catalog.put_service(index, NODE_NAME, service);
        }
        if let Ok(check) = HealthCheck::read(NODE_NAME, check.as_object().unwrap_or(&empty)) {
            self.catalog.put_check(index, NODE_NAME, check);
        }
    }
}

fn registration(body: &Map<String, Value>) -> Result<CatalogRegistration<'_>, String> {
    let node = text(body, "Node");
    if node.is_empty() {
        return Err("a node must be named in Node".to_owned());
    }
    let skips_node = flag(body, "SkipNodeUpdate");
    let (id, address) = (text(body, "ID"), text(body, "Address"));
    if !id.is_empty() && !ids::is_uuid(id) {
        return Err(format!("the ID {id:?} of the node is not a UUID"));
    }
    if address.is_empty() && !skips_node {
        return Err("the node needs an Address, unless SkipNodeUpdate is set".to_owned());
    }
    let service = match body.get("Service").and_then(Value::as_object) {
        Some(fields) => Some(ServiceInstance::read(fields)?),
        None => None,
    };
    let single = body.get("Check").and_then(Value::as_object);
    let checks = single.into_iter().chain(objects(body, "Checks"));
    let checks = checks.map(|fields| HealthCheck::read(node, fields)).collect::<Result<_, _>>()?;
    Ok(CatalogRegistration { node, spec: node_spec(body, "NodeMeta"), skips_node, service, checks })
}

pub(super) fn node_spec(body: &Map<String, Value>, meta: &str) -> NodeSpec {
    NodeSpec {
        id: text(body, "ID").to_owned(),
        address: text(body, "Address").to_owned(),
        tagged: body.get("TaggedAddresses").cloned().unwrap_or_default(),
        meta: body.get(meta).cloned().unwrap_or_default(),
    }
}

//! Registration and deregistration in the catalog, and who may.

use serde_json::{Map, Value};

use super::acl::Caller;
use super::answer::{Answer, Outcome, Refusal};
use super::catalog::NodeSpec;
use super::decode::{self, Kind, Message, Unknown, flag, objects, text};
use super::ids;
use super::powers::{Level, Resource};
use super::server::{Call, ConsulServer};
use super::service::{CHECK, Check, SERVICE, Service};

const REGISTER: Message = Message(&[
    ("ID", Kind::Text),
    ("Node", Kind::Text),
    ("Address", Kind::Text),
    ("Datacenter", Kind::Text),
    ("TaggedAddresses", Kind::TextMap),
    ("NodeMeta", Kind::TextMap),
    ("Service", Kind::Message(&SERVICE)),
    ("Check", Kind::Message(&CHECK)),
    ("Checks", Kind::Messages(&CHECK)),
    ("SkipNodeUpdate", Kind::Bool),
]);
const DEREGISTER: Message = Message(&[
    ("Node", Kind::Text),
    ("Datacenter", Kind::Text),
    ("ServiceID", Kind::Text),
    ("CheckID", Kind::Text),
]);

/// A registration that keeps the rules.
struct Registration<'a> {
    node: &'a str,
    spec: NodeSpec,
    skips_node: bool,
    service: Option<Service>,
    checks: Vec<Check>,
}

impl ConsulServer {
    pub(super) fn register(&mut self, call: &Call<'_>) -> Outcome {
        let body = decode::body(&REGISTER, &call.request.body, Unknown::Dropped);
        let body =
            body.map_err(|what| Refusal::malformed(format!("the registration can't be read: {what}")))?;
        self.here(text(&body, "Datacenter"))?;
        let caller = self.caller(call.secret)?;
        let registration = registration(&body, self.config.strict_service_names).map_err(Refusal::invalid)?;
        self.may_register(&caller, &registration)?;
        self.apply(call, &caller, registration)
    }

    fn apply(&mut self, call: &Call<'_>, caller: &Caller, registration: Registration<'_>) -> Outcome {
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
            return Err(Refusal::invalid(text));
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
                self.record(call, caller, "check", &id, before, Some(&after.shown()));
            }
        }
        Ok(Answer::done())
    }

    pub(super) fn write_node(
        &mut self,
        call: &Call<'_>,
        caller: &Caller,
        index: u64,
        node: &str,
        spec: NodeSpec,
    ) {
        let before = self.shown_node(node);
        self.catalog.put_node(index, node, spec);
        let after = self.shown_node(node);
        self.record(call, caller, "node", node, before, after.as_ref());
    }

    pub(super) fn write_service(
        &mut self,
        call: &Call<'_>,
        caller: &Caller,
        index: u64,
        node: &str,
        service: Service,
    ) {
        let id = format!("{node} {}", service.id);
        if let Some((before, after)) = self.catalog.put_service(index, node, service) {
            let before = before.map(|before| before.shown());
            self.record(call, caller, "service", &id, before, Some(&after.shown()));
        }
    }

    pub(super) fn shown_node(&self, name: &str) -> Option<Value> {
        self.catalog.nodes.get(name).map(|node| node.shown(name, &self.config.datacenter))
    }

    /// Services may say again what their node is without power over it.
    fn may_register(&self, caller: &Caller, registration: &Registration<'_>) -> Result<(), Refusal> {
        let write_service = |name: &str| caller.require(Resource::Service, name, Level::Write);
        if let Some(service) = &registration.service {
            write_service(&service.name)?;
            if service.kind == "connect-proxy" {
                write_service(&service.destination)?;
            }
        }
        let node = self.catalog.nodes.get(registration.node);
        let changes = |spec: &NodeSpec| !registration.skips_node && *spec != registration.spec;
        if node.is_none_or(|node| changes(&node.spec)) {
            caller.require(Resource::Node, registration.node, Level::Write)?;
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
                None => caller.require(Resource::Node, registration.node, Level::Write)?,
            }
        }
        Ok(())
    }

    pub(super) fn deregister(&mut self, call: &Call<'_>) -> Outcome {
        let body = decode::body(&DEREGISTER, &call.request.body, Unknown::Dropped);
        let body = body.map_err(|what| Refusal::malformed(format!("the request can't be read: {what}")))?;
        self.here(text(&body, "Datacenter"))?;
        let (node, service, check) = (text(&body, "Node"), text(&body, "ServiceID"), text(&body, "CheckID"));
        if node.is_empty() {
            return Err(Refusal::invalid("a node must be named in Node"));
        }
        let caller = self.caller(call.secret)?;
        self.may_deregister(&caller, node, service, check)?;
        let index = self.commit();
        if !service.is_empty() {
            self.drop_service(call, &caller, index, node, service);
        } else if !check.is_empty() {
            if let Some(gone) = self.catalog.remove_check(index, node, check) {
                let id = format!("{node} {check}");
                self.record(call, &caller, "check", &id, Some(gone.shown()), None);
            }
        } else {
            self.drop_node(call, &caller, index, node);
        }
        Ok(Answer::done())
    }

    /// Whoever may write the node may remove all that is on it; others what belongs to their services.
    fn may_deregister(&self, caller: &Caller, node: &str, service: &str, check: &str) -> Result<(), Refusal> {
        let whole = caller.require(Resource::Node, node, Level::Write);
        if whole.is_ok() || (service.is_empty() && check.is_empty()) {
            return whole;
        }
        let stored = self.catalog.nodes.get(node);
        let of_check = || Some(stored?.checks.get(check)?.service_id.as_str());
        let id = if service.is_empty() { of_check() } else { Some(service) };
        match id.and_then(|id| stored?.services.get(id)) {
            Some(service) => caller.require(Resource::Service, &service.name, Level::Write),
            None if service.is_empty() => whole,
            None => Err(Refusal::invalid(format!("there is no service {service:?} on the node"))),
        }
    }

    pub(super) fn drop_service(
        &mut self,
        call: &Call<'_>,
        caller: &Caller,
        index: u64,
        node: &str,
        id: &str,
    ) {
        if let Some(gone) = self.catalog.remove_service(index, node, id) {
            self.record(call, caller, "service", &format!("{node} {id}"), Some(gone.shown()), None);
        }
    }

    pub(super) fn drop_node(&mut self, call: &Call<'_>, caller: &Caller, index: u64, name: &str) {
        let before = self.shown_node(name);
        let Some(node) = self.catalog.remove_node(index, name) else { return };
        for service in node.services.values() {
            let id = format!("{name} {}", service.id);
            self.record(call, caller, "service", &id, Some(service.shown()), None);
        }
        self.record(call, caller, "node", name, before, None);
        self.end_sessions_of(call.now, index, name);
    }

    /// The server's own node, as every agent registers itself.
    pub(super) fn make_own_node(&mut self) {
        let index = self.commit();
        let (name, id) = (self.config.node_name.clone(), self.node_id.clone());
        let local = "127.0.0.1";
        let tagged = ["lan", "lan_ipv4", "wan", "wan_ipv4"];
        let spec = NodeSpec {
            id,
            address: local.to_owned(),
            tagged: tagged.into_iter().map(|tag| (tag.to_owned(), Value::from(local))).collect(),
            meta: serde_json::json!({"consul-network-segment": "", "consul-version": super::server::VERSION}),
        };
        self.catalog.put_node(index, &name, spec);
        let fields = serde_json::json!({"ID": "consul", "Service": "consul", "Port": 8300});
        let check =
            serde_json::json!({"CheckID": "serfHealth", "Name": "Serf Health Status", "Status": "passing"});
        let empty = Map::new();
        if let Ok(service) = Service::read(fields.as_object().unwrap_or(&empty), false) {
            self.catalog.put_service(index, &name, service);
        }
        if let Ok(check) = Check::read(&name, check.as_object().unwrap_or(&empty)) {
            self.catalog.put_check(index, &name, check);
        }
    }
}

fn registration(body: &Map<String, Value>, strict_names: bool) -> Result<Registration<'_>, String> {
    let node = text(body, "Node");
    if node.is_empty() {
        return Err("a node must be named in Node".to_owned());
    }
    let skips_node = flag(body, "SkipNodeUpdate");
    let (id, address) = (text(body, "ID"), text(body, "Address"));
    if !id.is_empty() && !ids::is_uuid(id) {
        return Err(format!("the ID {id:?} of the node is no UUID"));
    }
    if address.is_empty() && !skips_node {
        return Err("the node needs an Address, unless SkipNodeUpdate is set".to_owned());
    }
    let service = match body.get("Service").and_then(Value::as_object) {
        Some(fields) => Some(Service::read(fields, strict_names)?),
        None => None,
    };
    let single = body.get("Check").and_then(Value::as_object);
    let checks = single.into_iter().chain(objects(body, "Checks"));
    let checks = checks.map(|fields| Check::read(node, fields)).collect::<Result<_, _>>()?;
    Ok(Registration { node, spec: node_spec(body, "NodeMeta"), skips_node, service, checks })
}

pub(super) fn node_spec(body: &Map<String, Value>, meta: &str) -> NodeSpec {
    NodeSpec {
        id: text(body, "ID").to_owned(),
        address: text(body, "Address").to_owned(),
        tagged: body.get("TaggedAddresses").cloned().unwrap_or_default(),
        meta: body.get(meta).cloned().unwrap_or_default(),
    }
}

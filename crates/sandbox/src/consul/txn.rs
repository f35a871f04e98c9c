//! Transactions of up to 128 operations.

use serde_json::{Map, Value, json};

use super::acl::AclCaller;
use super::decode::{self, JsonFieldKind, JsonMessage, UnknownFields, number, text};
use super::ids;
use super::kv::Condition;
use super::permissions::{AccessLevel, Resource};
use super::register::node_spec;
use super::response::{ConsulErrorResponse, HandlerResponse, HandlerResult};
use super::server::{ConsulServer, RequestContext};
use super::service::{SERVICE, ServiceInstance};

const MOST: usize = 128;

const SERVICE_OP: JsonMessage = JsonMessage(&[
    ("Verb", JsonFieldKind::Text),
    ("Node", JsonFieldKind::Text),
    ("Service", JsonFieldKind::Message(&SERVICE)),
]);
const NODE: JsonMessage = JsonMessage(&[
    ("ID", JsonFieldKind::Text),
    ("Node", JsonFieldKind::Text),
    ("Address", JsonFieldKind::Text),
    ("Datacenter", JsonFieldKind::Text),
    ("TaggedAddresses", JsonFieldKind::TextMap),
    ("Meta", JsonFieldKind::TextMap),
    ("ModifyIndex", JsonFieldKind::Number),
]);
const NODE_OP: JsonMessage =
    JsonMessage(&[("Verb", JsonFieldKind::Text), ("Node", JsonFieldKind::Message(&NODE))]);
const KV_OP: JsonMessage = JsonMessage(&[
    ("Verb", JsonFieldKind::Text),
    ("Key", JsonFieldKind::Text),
    ("Value", JsonFieldKind::Text),
    ("Flags", JsonFieldKind::Number),
    ("Index", JsonFieldKind::Number),
    ("Session", JsonFieldKind::Text),
]);
const OP: JsonMessage = JsonMessage(&[
    ("KV", JsonFieldKind::Message(&KV_OP)),
    ("Node", JsonFieldKind::Message(&NODE_OP)),
    ("Service", JsonFieldKind::Message(&SERVICE_OP)),
]);

/// The verb of an operation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Get,
    Set,
    Cas,
    Delete,
    DeleteCas,
    Lock,
    Unlock,
}

const VERBS: [(&str, Verb); 7] = [
    ("get", Verb::Get),
    ("set", Verb::Set),
    ("cas", Verb::Cas),
    ("delete", Verb::Delete),
    ("delete-cas", Verb::DeleteCas),
    ("lock", Verb::Lock),
    ("unlock", Verb::Unlock),
];

enum Op {
    ServiceInstance { verb: Verb, node: String, service: Box<ServiceInstance>, index: u64 },
    Node { verb: Verb, name: String, fields: Map<String, Value>, index: u64 },
    Kv { verb: Verb, key: String, value: Vec<u8>, fields: Map<String, Value> },
}

type OpResult = Result<Option<Value>, String>;

impl ConsulServer {
    pub(super) fn transact(&mut self, call: &RequestContext<'_>) -> HandlerResult {
        let malformed =
            |what: String| ConsulErrorResponse::malformed(format!("decoding the transaction: {what}"));
        let body: Value =
            serde_json::from_slice(&call.request.body).map_err(|error| malformed(error.to_string()))?;
        let Value::Array(given) = body else { return Err(malformed("it is not a list".to_owned())) };
        if given.len() > MOST {
            return Err(ConsulErrorResponse::too_large(format!(
                "{} operations; at most {MOST} are allowed",
                given.len()
            )));
        }
        let ops = given.iter().map(|op| decode::object(&OP, op, UnknownFields::Dropped));
        let ops = ops.collect::<Result<Vec<_>, _>>().map_err(malformed)?;
        let caller = self.caller(call.secret)?;
        let mut errors = TxnErrorList::default();
        let mut checked = Vec::new();
        for (at, op) in ops.iter().enumerate() {
            match self.checked_op(&caller, op) {
                Ok(op) => checked.push(op),
                Err(what) => errors.add(at, &what),
            }
        }
        if !errors.0.is_empty() {
            return Ok(errors.answer());
        }
        let before = (self.catalog.clone(), self.locks.clone(), self.journal.len());
        let index = self.commit();
        let mut results = Vec::new();
        for (at, op) in checked.into_iter().enumerate() {
            match self.perform(call, &caller, index, op) {
                Ok(result) => results.extend(result),
                Err(what) => errors.add(at, &what),
            }
        }
        if errors.0.is_empty() {
            return Ok(HandlerResponse::Plain(json!({"Results": results, "Errors": null})));
        }
        self.catalog = before.0;
        self.locks = before.1;
        self.journal.truncate(before.2);
        Ok(errors.answer())
    }

    fn checked_op(&self, caller: &AclCaller, op: &Map<String, Value>) -> Result<Op, String> {
        let part = |name: &str| op.get(name).and_then(Value::as_object);
        let level = |verb| if verb == Verb::Get { AccessLevel::Read } else { AccessLevel::Write };
        let empty = Map::new();
        let op = match (part("Service"), part("Node"), part("KV")) {
            (Some(op), None, None) => {
                let verb = verb(op, false)?;
                let fields = op.get("Service").and_then(Value::as_object).unwrap_or(&empty);
                let node = text(op, "Node").to_owned();
                if node.is_empty() {
                    return Err("the operation on a service names no Node".to_owned());
                }
                let service = Box::new(ServiceInstance::read(fields, self.config.strict_service_names)?);
                let required = caller.require(Resource::Service, &service.name, level(verb));
                required.map_err(|refusal| refusal.text)?;
                Op::ServiceInstance { verb, node, service, index: index_of(fields, "ModifyIndex") }
            }
            (None, Some(op), None) => {
                let verb = verb(op, false)?;
                let fields = op.get("Node").and_then(Value::as_object).unwrap_or(&empty).clone();
                let name = text(&fields, "Node").to_owned();
                let required = caller.require(Resource::Node, &name, level(verb));
                required.map_err(|refusal| refusal.text)?;
                let index = index_of(&fields, "ModifyIndex");
                Op::Node { verb, name, fields, index }
            }
            (None, None, Some(op)) => {
                let (verb, key) = (verb(op, true)?, text(op, "Key").to_owned());
                let value = ids::from_base64(text(op, "Value"));
                let value = value.ok_or_else(|| format!("the Value of {key:?} is not base64"))?;
                let required = caller.require(Resource::Key, &key, level(verb));
                required.map_err(|refusal| refusal.text)?;
                Op::Kv { verb, key, value, fields: op.clone() }
            }
            _ => return Err("an operation is one of Service, Node and KV".to_owned()),
        };
        Ok(op)
    }

    fn perform(&mut self, call: &RequestContext<'_>, caller: &AclCaller, index: u64, op: Op) -> OpResult {
        match op {
            Op::ServiceInstance { verb, node, service, index: wanted } => {
                self.on_service(call, caller, index, (verb, wanted), &node, *service)
            }
            Op::Node { verb, name, fields, index: wanted } => {
                self.on_node(call, caller, index, (verb, wanted), &name, &fields)
            }
            Op::Kv { verb, key, value, fields } => {
                self.on_key(call, caller, index, verb, &key, value, &fields)
            }
        }
    }

    fn on_service(
        &mut self,
        call: &RequestContext<'_>,
        caller: &AclCaller,
        index: u64,
        (verb, wanted): (Verb, u64),
        node: &str,
        service: ServiceInstance,
    ) -> OpResult {
        let id = service.id.clone();
        let stored = |server: &Self| server.catalog.nodes.get(node)?.services.get(&id).cloned();
        let found = stored(self).map(|service| service.modified);
        let stale = match verb {
            Verb::Cas => found.unwrap_or(0) != wanted,
            Verb::DeleteCas => found != Some(wanted),
            _ => false,
        };
        if stale {
            return Err(format!("the service {id:?} on {node:?} is not at index {wanted}"));
        }
        match verb {
            Verb::Delete | Verb::DeleteCas => {
                self.drop_service(call, caller, index, node, &id);
                return Ok(None);
            }
            Verb::Get => {}
            _ if !self.catalog.nodes.contains_key(node) => return Err(format!("there is no node {node:?}")),
            _ => self.write_service(call, caller, index, node, service),
        }
        match stored(self) {
            Some(service) => Ok(Some(json!({"Service": service.shown()}))),
            None => Err(format!("there is no service {id:?} on {node:?}")),
        }
    }

    fn on_node(
        &mut self,
        call: &RequestContext<'_>,
        caller: &AclCaller,
        index: u64,
        (verb, wanted): (Verb, u64),
        name: &str,
        fields: &Map<String, Value>,
    ) -> OpResult {
        let found = self.catalog.nodes.get(name).map(|node| node.modified);
        let stale = match verb {
            Verb::Cas => found.unwrap_or(0) != wanted,
            Verb::DeleteCas => found != Some(wanted),
            _ => false,
        };
        if stale {
            return Err(format!("the node {name:?} is not at index {wanted}"));
        }
        match verb {
            Verb::Delete | Verb::DeleteCas => {
                self.drop_node(call, caller, index, name);
                return Ok(None);
            }
            Verb::Get => {}
            _ => self.write_node(call, caller, index, name, node_spec(fields, "Meta")),
        }
        match self.shown_node(name) {
            Some(node) => Ok(Some(json!({"Node": node}))),
            None => Err(format!("there is no node {name:?}")),
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn on_key(
        &mut self,
        call: &RequestContext<'_>,
        caller: &AclCaller,
        index: u64,
        verb: Verb,
        key: &str,
        value: Vec<u8>,
        fields: &Map<String, Value>,
    ) -> OpResult {
        let (wanted, session) = (index_of(fields, "Index"), text(fields, "Session").to_owned());
        let condition = match verb {
            Verb::Cas => Condition::Index(wanted),
            Verb::Lock => Condition::Acquire(session),
            Verb::Unlock => Condition::Release(session),
            _ => Condition::None,
        };
        let before = self.locks.entries.get(key).map(|entry| entry.shown(key, false));
        let done = match verb {
            Verb::Get => true,
            Verb::Delete => self.locks.remove(index, key, None),
            Verb::DeleteCas => self.locks.remove(index, key, Some(wanted)),
            _ => {
                let flags = index_of(fields, "Flags");
                self.locks.put(call.now, index, key, (value, flags), &condition)?
            }
        };
        if !done {
            return Err(format!("{key:?} is not as the operation needs it"));
        }
        let after = self.locks.entries.get(key).map(|entry| entry.shown(key, verb == Verb::Get));
        match verb {
            Verb::Get => match after {
                Some(entry) => Ok(Some(json!({"KV": entry}))),
                None => Err(format!("there is no key {key:?}")),
            },
            _ => {
                self.record(call, caller, "kv", key, before, after.as_ref());
                Ok(after.map(|entry| json!({"KV": entry})))
            }
        }
    }
}

fn verb(op: &Map<String, Value>, of_key: bool) -> Result<Verb, String> {
    let word = text(op, "Verb");
    let found = VERBS.into_iter().find(|(known, _)| *known == word).map(|(_, verb)| verb);
    found
        .filter(|verb| of_key || !matches!(verb, Verb::Lock | Verb::Unlock))
        .ok_or_else(|| format!("the Verb {word:?} is not known here"))
}

fn index_of(fields: &Map<String, Value>, name: &str) -> u64 {
    u64::try_from(number(fields, name)).unwrap_or(0)
}

#[derive(Default)]
struct TxnErrorList(Vec<Value>);

impl TxnErrorList {
    fn add(&mut self, at: usize, what: &str) {
        self.0.push(json!({"OpIndex": at, "What": what}));
    }

    fn answer(self) -> HandlerResponse {
        HandlerResponse::Status(409, json!({"Results": null, "Errors": self.0}))
    }
}

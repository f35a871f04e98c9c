//! Transactions of up to 128 removals of services and checks of a lock. Other operations are not emulated.

use serde_json::{Map, Value, json};

use super::acl::AclCaller;
use super::decode::{self, JsonFieldKind, JsonMessage, UnknownFields, number, text};
use super::permissions::{AccessLevel, Resource};
use super::response::{ConsulErrorResponse, HandlerResponse, HandlerResult};
use super::server::{ConsulServer, RequestContext};
use super::service::{SERVICE, ServiceInstance};

const MOST: usize = 128;

const SERVICE_OP: JsonMessage = JsonMessage(&[
    ("Verb", JsonFieldKind::Text),
    ("Node", JsonFieldKind::Text),
    ("Service", JsonFieldKind::Message(&SERVICE)),
]);
const KV_OP: JsonMessage = JsonMessage(&[
    ("Verb", JsonFieldKind::Text),
    ("Key", JsonFieldKind::Text),
    ("Session", JsonFieldKind::Text),
]);
const OP: JsonMessage =
    JsonMessage(&[("KV", JsonFieldKind::Message(&KV_OP)), ("Service", JsonFieldKind::Message(&SERVICE_OP))]);

/// An operation of a transaction.
enum TxnOp {
    Remove(ServiceRemoval),
    CheckSession { key: String, session: String },
}

/// The removal of a service from a node.
struct ServiceRemoval {
    node: String,
    id: String,
    /// The required `ModifyIndex` of `delete-cas`.
    index: Option<u64>,
}

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
            match Self::checked(&caller, op) {
                Ok(op) => checked.push(op),
                Err(what) => errors.add(at, &what),
            }
        }
        if !errors.0.is_empty() {
            return Ok(errors.answer());
        }
        let before = (self.catalog.clone(), self.journal.len());
        let index = self.commit();
        for (at, op) in checked.into_iter().enumerate() {
            let result = match &op {
                TxnOp::Remove(removal) => self.remove(call, &caller, index, removal),
                TxnOp::CheckSession { key, session } => self.locks.check_session(key, session),
            };
            if let Err(what) = result {
                errors.add(at, &what);
            }
        }
        if errors.0.is_empty() {
            return Ok(HandlerResponse::Plain(json!({"Results": [], "Errors": null})));
        }
        self.catalog = before.0;
        self.journal.truncate(before.1);
        Ok(errors.answer())
    }

    fn checked(caller: &AclCaller, op: &Map<String, Value>) -> Result<TxnOp, String> {
        if let Some(op) = op.get("KV").and_then(Value::as_object) {
            return checked_kv(caller, op);
        }
        let Some(op) = op.get("Service").and_then(Value::as_object) else {
            return Err("the operation is not one on a service".to_owned());
        };
        let empty = Map::new();
        let fields = op.get("Service").and_then(Value::as_object).unwrap_or(&empty);
        let index = match text(op, "Verb") {
            "delete" => None,
            "delete-cas" => Some(u64::try_from(number(fields, "ModifyIndex")).unwrap_or(0)),
            verb => return Err(format!("the Verb {verb:?} is not known here")),
        };
        let node = text(op, "Node").to_owned();
        if node.is_empty() {
            return Err("the operation on a service names no Node".to_owned());
        }
        let service = ServiceInstance::read(fields)?;
        let required = caller.require(Resource::Service, &service.name, AccessLevel::Write);
        required.map_err(|refusal| refusal.text)?;
        Ok(TxnOp::Remove(ServiceRemoval { node, id: service.id, index }))
    }

    fn remove(
        &mut self,
        call: &RequestContext<'_>,
        caller: &AclCaller,
        index: u64,
        ServiceRemoval { node, id, index: required }: &ServiceRemoval,
    ) -> Result<(), String> {
        let found = self.catalog.nodes.get(node).and_then(|node| node.services.get(id));
        if let Some(required) =
            required.filter(|required| found.map(|found| found.modified) != Some(*required))
        {
            return Err(format!("the service {id:?} on {node:?} is not at index {required}"));
        }
        self.drop_service(call, caller, index, node, id);
        Ok(())
    }
}

fn checked_kv(caller: &AclCaller, op: &Map<String, Value>) -> Result<TxnOp, String> {
    let (verb, key) = (text(op, "Verb"), text(op, "Key").to_owned());
    if verb != "check-session" {
        return Err(format!("the Verb {verb:?} is not known here"));
    }
    let required = caller.require(Resource::Key, &key, AccessLevel::Read);
    required.map_err(|refusal| refusal.text)?;
    Ok(TxnOp::CheckSession { key, session: text(op, "Session").to_owned() })
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

//! Ownership markers: `[ecs-mesh:OPERATOR]` in an object's description, or the operator's id in a node's metadata; and beside
//! it the process that wrote the object last, which no comparison looks at.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Value, json};

use ecs_mesh_consul::{NODE_MARK, NODE_WRITER};
use ecs_mesh_control_plane::WriterId;
use ecs_mesh_core::plan::report::ObjectKind;
use ecs_mesh_model::OperatorId;

const MARK_PREFIX: &str = "[ecs-mesh:";
const WRITER_PREFIX: &str = "[ecs-mesh-process:";

/// The owner of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectOwner {
    /// This operator.
    Ours,
    /// Another operator.
    Other(String),
    /// No marker.
    Unmarked,
}

/// The operator ids whose objects are owned: the operator's own, and the one that it had before.
#[derive(Clone, Debug)]
pub struct OperatorIds {
    current: OperatorId,
    previous: Option<OperatorId>,
    /// Objects of the previous id that belong to a process which still runs.
    left: BTreeSet<ExistingObject>,
}

/// An existing object: its kind, and its name or, of a binding rule, Consul's id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExistingObject {
    kind: ObjectKind,
    name: String,
}

impl ExistingObject {
    /// The identity of a listed object.
    pub fn of(kind: ObjectKind, body: &Value) -> Self {
        let field = match kind {
            ObjectKind::Node => "Node",
            ObjectKind::BindingRule => "ID",
            _ => "Name",
        };
        let name = body.get(field).and_then(Value::as_str).unwrap_or_default();
        Self { kind, name: name.to_owned() }
    }
}

impl fmt::Display for ExistingObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.name)
    }
}

impl OperatorIds {
    /// An operator that had no other id.
    pub fn new(current: OperatorId) -> Self {
        Self { current, previous: None, left: BTreeSet::new() }
    }

    /// The same operator, which had this id before.
    #[must_use]
    pub fn with_previous(self, previous: Option<OperatorId>) -> Self {
        Self { previous: previous.filter(|previous| *previous != self.current), ..self }
    }

    /// The same ids, without these objects of the previous one.
    #[must_use]
    pub fn without(self, left: BTreeSet<ExistingObject>) -> Self {
        Self { left, ..self }
    }

    /// The id that marks what is written.
    pub fn current(&self) -> &OperatorId {
        &self.current
    }

    /// Whether the object has a marker of the previous id and none of a third operator.
    pub fn is_of_previous(&self, kind: ObjectKind, body: &Value) -> bool {
        let Some(previous) = &self.previous else { return false };
        marks(kind, body).contains(&previous.as_str()) && is_ours(kind, body, self)
    }

    fn owns(&self, mark: &str, kind: ObjectKind, body: &Value) -> bool {
        let is_previous = || self.previous.as_ref().is_some_and(|previous| *mark == *previous.as_str());
        *mark == *self.current.as_str()
            || is_previous() && !self.left.contains(&ExistingObject::of(kind, body))
    }
}

/// The text with the operator's marker appended.
pub fn with_mark(text: &str, operator: &OperatorId) -> String {
    format!("{text} {MARK_PREFIX}{operator}]")
}

/// The text without markers.
pub fn strip_marks(text: &str) -> &str {
    text.split(MARK_PREFIX).next().unwrap_or_default().trim_end()
}

/// The owner of an object. The anonymous token and namespaces never have one.
pub fn owner(kind: ObjectKind, body: &Value, operators: &OperatorIds) -> ObjectOwner {
    let marks = marks(kind, body);
    if let Some(other) = marks.iter().find(|mark| !operators.owns(mark, kind, body)) {
        return ObjectOwner::Other((*other).to_owned());
    }
    if marks.is_empty() { ObjectOwner::Unmarked } else { ObjectOwner::Ours }
}

/// Whether the object has this operator's marker and no other. Checked on the server's current copy before each write.
pub fn is_ours(kind: ObjectKind, body: &Value, operators: &OperatorIds) -> bool {
    owner(kind, body, operators) == ObjectOwner::Ours
}

fn marks(kind: ObjectKind, body: &Value) -> Vec<&str> {
    match kind {
        ObjectKind::Node => node_meta(body, NODE_MARK).into_iter().collect(),
        ObjectKind::AnonymousToken | ObjectKind::Namespace => Vec::new(),
        // A truncated marker: the owner is unknown.
        _ => description(body)
            .split(MARK_PREFIX)
            .skip(1)
            .map(|rest| rest.split(']').next().unwrap_or_default())
            .collect(),
    }
}

/// The owned object with the marker of the current id in the place of that of the previous one.
pub fn taken_over(kind: ObjectKind, body: &Value, operators: &OperatorIds) -> Value {
    let mut body = body.clone();
    if kind == ObjectKind::Node {
        let field = if body.get("NodeMeta").is_some() { "NodeMeta" } else { "Meta" };
        body[field][NODE_MARK] = operators.current.as_str().into();
    } else if let Some(previous) = &operators.previous {
        let mark = |id: &OperatorId| format!("{MARK_PREFIX}{id}]");
        body["Description"] = description(&body).replace(&mark(previous), &mark(&operators.current)).into();
    }
    body
}

/// The process that wrote the object last, if it has an owner.
pub fn writer(kind: ObjectKind, body: &Value) -> Option<&str> {
    match kind {
        ObjectKind::Node => node_meta(body, NODE_WRITER),
        ObjectKind::AnonymousToken | ObjectKind::Namespace => None,
        _ => description(body).split_once(WRITER_PREFIX)?.1.split_once(']').map(|(writer, _)| writer),
    }
}

/// Names the process that writes the request body. Objects without an owner stay unchanged.
pub fn sign(kind: ObjectKind, body: &mut Value, writer: &WriterId) {
    match kind {
        ObjectKind::Node => body["NodeMeta"][NODE_WRITER] = writer.as_str().into(),
        ObjectKind::AnonymousToken | ObjectKind::Namespace => {}
        _ => body["Description"] = json!(format!("{} {WRITER_PREFIX}{writer}]", unsigned(description(body)))),
    }
}

/// The description without the process that wrote the object.
pub fn unsigned(description: &str) -> String {
    let Some((text, rest)) = description.split_once(WRITER_PREFIX) else { return description.to_owned() };
    let (_, rest) = rest.split_once(']').unwrap_or_default();
    format!("{}{rest}", text.strip_suffix(' ').unwrap_or(text))
}

fn node_meta<'b>(body: &'b Value, key: &str) -> Option<&'b str> {
    body.get("Meta").or_else(|| body.get("NodeMeta"))?.get(key)?.as_str()
}

fn description(body: &Value) -> &str {
    body.get("Description").and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(current: &str) -> OperatorIds {
        OperatorIds::new(OperatorId::parse(current).unwrap())
    }

    #[test]
    fn one_foreign_marker_makes_an_object_foreign() {
        let ours = ids("prod");
        let other = |id: &str| ObjectOwner::Other(id.to_owned());
        for (text, expected) in [
            ("", ObjectOwner::Unmarked),
            ("Mesh gateways", ObjectOwner::Unmarked),
            ("Mesh gateways [ecs-mesh:prod]", ObjectOwner::Ours),
            ("[ecs-mesh:prod] edited by hand", ObjectOwner::Ours),
            ("Mesh gateways [ecs-mesh:prod-2]", other("prod-2")),
            ("Mesh gateways [ecs-mesh:prod] [ecs-mesh:stage]", other("stage")),
            ("Mesh gateways [ecs-mesh:pro", other("pro")),
            ("Mesh gateways [ecs-mesh:]", other("")),
        ] {
            let body = json!({ "Description": text });
            assert_eq!(owner(ObjectKind::Role, &body, &ours), expected, "{text:?}");
        }
    }

    #[test]
    fn node_has_its_marker_in_its_metadata() {
        let ours = ids("prod");
        let node = |meta: Value| owner(ObjectKind::Node, &json!({ "Meta": meta }), &ours);
        assert_eq!(node(json!({ "ecs-mesh-operator": "prod" })), ObjectOwner::Ours);
        assert_eq!(node(json!({ "ecs-mesh-operator": "stage" })), ObjectOwner::Other("stage".into()));
        assert_eq!(node(json!({ "synthetic-node": "true" })), ObjectOwner::Unmarked);
        assert_eq!(node(Value::Null), ObjectOwner::Unmarked);
    }

    #[test]
    fn objects_of_the_previous_id_are_owned() {
        let previous = OperatorId::parse("prod").unwrap();
        let ours = ids("prod-2").with_previous(Some(previous));
        let role = |name: &str, text: &str| json!({ "Name": name, "Description": text });
        let old = role("r", "Mesh gateways [ecs-mesh:prod] [ecs-mesh-process:0a]");
        assert!(is_ours(ObjectKind::Role, &old, &ours) && ours.is_of_previous(ObjectKind::Role, &old));
        let new = taken_over(ObjectKind::Role, &old, &ours);
        assert_eq!(new["Description"], "Mesh gateways [ecs-mesh:prod-2] [ecs-mesh-process:0a]");
        assert!(is_ours(ObjectKind::Role, &new, &ours) && !ours.is_of_previous(ObjectKind::Role, &new));
        let node = json!({ "Node": "n", "Meta": { "ecs-mesh-operator": "prod", "a": "b" } });
        assert!(ours.is_of_previous(ObjectKind::Node, &node));
        let meta = &taken_over(ObjectKind::Node, &node, &ours)["Meta"];
        assert_eq!(*meta, json!({ "ecs-mesh-operator": "prod-2", "a": "b" }));
        let third = role("r", "Mesh gateways [ecs-mesh:prod] [ecs-mesh:stage]");
        assert_eq!(owner(ObjectKind::Role, &third, &ours), ObjectOwner::Other("stage".into()));
        let ours = ours.without([ExistingObject::of(ObjectKind::Role, &old)].into());
        assert_eq!(owner(ObjectKind::Role, &old, &ours), ObjectOwner::Other("prod".into()));
        assert!(is_ours(ObjectKind::Role, &role("s", "[ecs-mesh:prod]"), &ours));
    }

    #[test]
    fn signature_names_the_last_writer_and_nothing_else() {
        let (one, other) = (WriterId::generate(), WriterId::generate());
        for (kind, body) in [
            (ObjectKind::Role, json!({ "Description": "Mesh gateways [ecs-mesh:prod]" })),
            (ObjectKind::Node, json!({ "NodeMeta": { "ecs-mesh-operator": "prod" } })),
        ] {
            let mut signed = body.clone();
            assert_eq!(writer(kind, &signed), None, "{kind:?}");
            for id in [&one, &other] {
                sign(kind, &mut signed, id);
                assert_eq!(writer(kind, &signed), Some(id.as_str()), "{kind:?}");
                assert!(is_ours(kind, &signed, &ids("prod")), "{kind:?}");
            }
        }
        let mut signed = json!({ "Description": "a [ecs-mesh:prod]" });
        sign(ObjectKind::Policy, &mut signed, &one);
        let text = signed["Description"].as_str().unwrap();
        assert_eq!(unsigned(text), "a [ecs-mesh:prod]");
        assert_eq!(unsigned(&format!("{text} edited")), "a [ecs-mesh:prod] edited");
        let mut token = json!({ "Description": "Anonymous Token" });
        sign(ObjectKind::AnonymousToken, &mut token, &one);
        assert_eq!(token, json!({ "Description": "Anonymous Token" }));
    }
}

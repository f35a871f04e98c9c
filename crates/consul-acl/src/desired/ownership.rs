//! Ownership markers: `[ecs-mesh:OPERATOR]` in an object's description, or the operator's id in a node's metadata.

use serde_json::Value;

use ecs_mesh_consul::NODE_MARK;
use ecs_mesh_core::plan::report::ObjectKind;
use ecs_mesh_model::OperatorId;

const MARK_PREFIX: &str = "[ecs-mesh:";

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

/// The text with the operator's marker appended.
pub fn with_mark(text: &str, operator: &OperatorId) -> String {
    format!("{text} {MARK_PREFIX}{operator}]")
}

/// The text without markers.
pub fn strip_marks(text: &str) -> &str {
    text.split(MARK_PREFIX).next().unwrap_or_default().trim_end()
}

/// The owner of an object. The anonymous token and namespaces never have one.
pub fn owner(kind: ObjectKind, body: &Value, operator: &OperatorId) -> ObjectOwner {
    let marks: Vec<&str> = match kind {
        ObjectKind::Node => {
            let meta = body.get("Meta").or_else(|| body.get("NodeMeta"));
            meta.and_then(|meta| meta.get(NODE_MARK)).and_then(Value::as_str).into_iter().collect()
        }
        ObjectKind::AnonymousToken | ObjectKind::Namespace => Vec::new(),
        _ => {
            let text = body.get("Description").and_then(Value::as_str).unwrap_or_default();
            // A truncated marker: the owner is unknown.
            text.split(MARK_PREFIX).skip(1).map(|rest| rest.split(']').next().unwrap_or_default()).collect()
        }
    };
    if let Some(other) = marks.iter().find(|mark| **mark != operator.as_str()) {
        return ObjectOwner::Other((*other).to_owned());
    }
    if marks.is_empty() { ObjectOwner::Unmarked } else { ObjectOwner::Ours }
}

/// Whether the object has this operator's marker and no other. Checked on the server's current copy before each write.
pub fn is_ours(kind: ObjectKind, body: &Value, operator: &OperatorId) -> bool {
    owner(kind, body, operator) == ObjectOwner::Ours
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_foreign_marker_makes_an_object_foreign() {
        let ours = OperatorId::parse("prod").unwrap();
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
        let ours = OperatorId::parse("prod").unwrap();
        let node = |meta: Value| owner(ObjectKind::Node, &json!({ "Meta": meta }), &ours);
        assert_eq!(node(json!({ "ecs-mesh-operator": "prod" })), ObjectOwner::Ours);
        assert_eq!(node(json!({ "ecs-mesh-operator": "stage" })), ObjectOwner::Other("stage".into()));
        assert_eq!(node(json!({ "synthetic-node": "true" })), ObjectOwner::Unmarked);
        assert_eq!(node(Value::Null), ObjectOwner::Unmarked);
    }
}

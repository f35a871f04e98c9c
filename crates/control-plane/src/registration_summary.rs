//! The summary of a listed registration: owner and content hash without the body, since lists are long.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use serde_json::Value;

use super::{Registration, RegistrationOwner};
use ecs_mesh_core::intent::RegistrationId;
use ecs_mesh_core::plan::DrainReason;

/// A registration in a list, without its body.
#[derive(Clone, Debug, PartialEq)]
pub struct RegistrationSummary {
    /// Mesh and name.
    pub id: RegistrationId,
    /// The owner.
    pub owner: RegistrationOwner,
    /// The name of its task's cluster, where it carries one.
    pub cluster_name: Option<Arc<str>>,
    /// The service that it registers, for reports.
    pub service: Option<Arc<str>>,
    /// The reason if this operator drained the registration.
    pub drained: Option<DrainReason>,
    /// Whether it gets traffic; `None` where the registration does not say so.
    pub ready: Option<bool>,
    /// Whether it carries the mark of the operator as its writer.
    pub has_writer_mark: bool,
    /// The hash of its normal form.
    pub content_hash: ContentHash,
}

impl From<&Registration> for RegistrationSummary {
    fn from(registration: &Registration) -> Self {
        Self {
            id: registration.id.clone(),
            owner: registration.owner.clone(),
            cluster_name: registration.cluster_name.clone(),
            service: registration.service.clone(),
            drained: registration.drained,
            ready: registration.ready,
            has_writer_mark: registration.has_writer_mark,
            content_hash: ContentHash::of(&registration.normal),
        }
    }
}

/// The hash of a normal form: equal bodies have equal hashes within one process. Do not store it: the hash may differ
/// between builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentHash(u64);

impl ContentHash {
    /// Hashes a body in normal form.
    pub fn of(normal: &Value) -> Self {
        let mut hasher = DefaultHasher::new();
        hash_value(normal, &mut hasher);
        Self(hasher.finish())
    }
}

fn hash_value(value: &Value, hasher: &mut DefaultHasher) {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            (0_u8, sorted.len()).hash(hasher);
            for (key, value) in sorted {
                key.hash(hasher);
                hash_value(value, hasher);
            }
        }
        Value::Array(items) => {
            (1_u8, items.len()).hash(hasher);
            for item in items {
                hash_value(item, hasher);
            }
        }
        other => (2_u8, other.to_string()).hash(hasher),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn content_hash_ignores_the_order_of_fields() {
        let a = ContentHash::of(&json!({"a": 1, "b": [1, 2]}));
        assert_eq!(a, ContentHash::of(&json!({"b": [1, 2], "a": 1})));
        for other in [json!({"a": 1, "b": [2, 1]}), json!({"a": 1}), json!({"a": "1", "b": [1, 2]})] {
            assert_ne!(a, ContentHash::of(&other), "{other}");
        }
    }
}

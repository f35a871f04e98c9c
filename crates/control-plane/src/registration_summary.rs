//! What is kept of a registration that a list showed: whose it is and a fingerprint, never its body. Lists are long.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use serde_json::Value;

use super::{RegistrationOwner, Registration};
use ecs_mesh_core::intent::RegistrationId;
use ecs_mesh_core::plan::DrainReason;

/// A registration as a list showed it.
#[derive(Clone, Debug, PartialEq)]
pub struct RegistrationSummary {
    /// Where it is.
    pub id: RegistrationId,
    /// Whose it is.
    pub owner: RegistrationOwner,
    /// The service that it says it is, for reports.
    pub service: Option<Arc<str>>,
    /// Why this operator drained it, if it did.
    pub drained: Option<DrainReason>,
    /// Of its normal form.
    pub content_hash: ContentHash,
}

impl From<&Registration> for RegistrationSummary {
    fn from(found: &Registration) -> Self {
        Self {
            id: found.id.clone(),
            owner: found.owner.clone(),
            service: found.service.clone(),
            drained: found.drained,
            content_hash: ContentHash::of(&found.normal),
        }
    }
}

/// Stands for a normal form: within this process equal bodies have equal fingerprints. Not for keeping: the hash may
/// differ from one build to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentHash(u64);

impl ContentHash {
    /// Of a body in normal form.
    pub fn of(normal: &Value) -> Self {
        let mut hasher = DefaultHasher::new();
        feed(normal, &mut hasher);
        Self(hasher.finish())
    }
}

fn feed(value: &Value, hasher: &mut DefaultHasher) {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            (0_u8, sorted.len()).hash(hasher);
            for (key, value) in sorted {
                key.hash(hasher);
                feed(value, hasher);
            }
        }
        Value::Array(items) => {
            (1_u8, items.len()).hash(hasher);
            for item in items {
                feed(item, hasher);
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
    fn equal_bodies_have_equal_fingerprints_whatever_their_order() {
        let a = ContentHash::of(&json!({"a": 1, "b": [1, 2]}));
        assert_eq!(a, ContentHash::of(&json!({"b": [1, 2], "a": 1})));
        for other in [json!({"a": 1, "b": [2, 1]}), json!({"a": 1}), json!({"a": "1", "b": [1, 2]})] {
            assert_ne!(a, ContentHash::of(&other), "{other}");
        }
    }
}

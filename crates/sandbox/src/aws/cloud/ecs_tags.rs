//! The wire form of tags of ECS resources.

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use ecs_mesh_model::Tags;

/// Deserialises `[{"key": …, "value": …}]`.
pub(crate) fn from_pairs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Tags, D::Error> {
    #[derive(Deserialize)]
    struct Pair {
        key: String,
        #[serde(default)]
        value: String,
    }
    let pairs: Option<Vec<Pair>> = Option::deserialize(deserializer)?;
    Ok(pairs.into_iter().flatten().map(|pair| (pair.key, pair.value)).collect())
}

/// Reads tags from a value; `null` means no tags.
pub(crate) fn tags_from(value: &Value) -> Result<Tags, serde_json::Error> {
    from_pairs(value)
}

pub(crate) fn tags_json(tags: &Tags) -> Value {
    tags.iter().map(|(key, value)| json!({"key": key, "value": value})).collect()
}

//! YAML as every reader takes it: what YAML 1.1 would take for something else, such as `off`, is quoted.

use serde_json::Value;

/// The value as one document.
pub(super) fn text(value: &Value) -> String {
    // Writing to a String cannot fail, and every key of JSON is a text.
    serde_saphyr::to_string(value).unwrap_or_default()
}

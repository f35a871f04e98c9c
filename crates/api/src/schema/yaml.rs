//! YAML that every version reads alike: values that YAML 1.1 would convert, such as `off`, are quoted.

use serde_json::Value;

/// The value as one document.
pub(super) fn text(value: &Value) -> String {
    // Writing to a String cannot fail, and JSON keys are strings.
    serde_saphyr::to_string(value).unwrap_or_default()
}

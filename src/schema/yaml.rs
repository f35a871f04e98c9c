//! YAML for people to read: the order of a definition's fields is that of the field's own documents.

use serde_json::Value;

/// The value as one document.
pub(super) fn text(value: &Value) -> String {
    let options = serde_saphyr::ser_options! { quote_all: false };
    // Writing to a String cannot fail, and every key of JSON is a text.
    serde_saphyr::to_string_with_options(value, options).unwrap_or_default()
}

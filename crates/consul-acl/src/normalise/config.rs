//! The `Config` of an auth method as Consul reads it: keys are case-insensitive, a text counts as a list of one, and
//! `"true"` as true. A literal comparison of keys would miss effective settings.

use serde_json::{Map, Value, json};

#[derive(Clone, Copy)]
enum ConfigValueKind {
    Texts,
    Text,
    Truth,
    /// Never declared, so the value is sent unchanged.
    AsItIs,
}

/// The keys of auth methods of type `aws-iam`.
const KEYS: [(&str, ConfigValueKind); 9] = [
    ("BoundIAMPrincipalARNs", ConfigValueKind::Texts),
    ("EnableIAMEntityDetails", ConfigValueKind::Truth),
    ("IAMEntityTags", ConfigValueKind::Texts),
    ("ServerIDHeaderValue", ConfigValueKind::Text),
    ("MaxRetries", ConfigValueKind::AsItIs),
    ("IAMEndpoint", ConfigValueKind::Text),
    ("STSEndpoint", ConfigValueKind::Text),
    ("STSRegion", ConfigValueKind::Text),
    ("AllowedSTSHeaderValues", ConfigValueKind::Texts),
];

/// The object with its `Config` as Consul reads it, and the values of keys that occur again in another spelling, which a
/// strict server would have refused.
pub(super) fn normalise_config(body: &Value) -> (Value, Map<String, Value>) {
    let mut object = body.clone();
    let mut twice = Map::new();
    if let Some(Value::Object(config)) = object.get_mut("Config") {
        let mut read = Map::new();
        // As in Consul, the exact spelling takes precedence.
        let (exact, others): (Vec<_>, Vec<_>) =
            std::mem::take(config).into_iter().partition(|(name, _)| KEYS.iter().any(|(key, _)| key == name));
        for (name, value) in exact.into_iter().chain(others) {
            match KEYS.iter().find(|(key, _)| eq_ignore_case_unicode(key, &name)) {
                None => drop(read.insert(name, value)),
                Some((key, _)) if read.contains_key(*key) => drop(twice.insert(name, value)),
                Some((key, reads)) => drop(read.insert((*key).to_owned(), reads.of(value))),
            }
        }
        *config = read;
    }
    (object, twice)
}

/// Whether both names are equal without case, for all of Unicode.
fn eq_ignore_case_unicode(a: &str, b: &str) -> bool {
    let folded = |text: &str| -> Vec<char> {
        let fold = |letter| match letter {
            'ſ' => 's',
            '\u{212a}' => 'k',
            letter => letter.to_ascii_lowercase(),
        };
        text.chars().map(fold).collect()
    };
    folded(a) == folded(b)
}

impl ConfigValueKind {
    /// An unreadable value stays unchanged and equals no declared value.
    fn of(self, value: Value) -> Value {
        match (self, value) {
            (Self::AsItIs, value) => value,
            (Self::Texts, Value::Null) => json!([]),
            (Self::Texts, Value::Array(changes)) => changes.into_iter().map(text).collect(),
            (Self::Texts, Value::Object(fields)) => Value::Object(fields),
            (Self::Texts, one) => json!([text(one)]),
            (Self::Text, value) => text(value),
            (Self::Truth, value) => truth(value),
        }
    }
}

fn text(value: Value) -> Value {
    match value {
        Value::Null => json!(""),
        Value::Bool(value) => json!(if value { "1" } else { "0" }),
        Value::Number(number) => json!(number.to_string()),
        Value::Array(changes) => one_of(changes, text),
        value => value,
    }
}

fn truth(value: Value) -> Value {
    match value {
        Value::Null => json!(false),
        Value::Number(number) => json!(number.as_f64() != Some(0.0)),
        Value::String(text) => match text.as_str() {
            "" | "0" | "f" | "F" | "false" | "False" | "FALSE" => json!(false),
            "1" | "t" | "T" | "true" | "True" | "TRUE" => json!(true),
            _ => json!(text),
        },
        Value::Array(changes) => one_of(changes, truth),
        value => value,
    }
}

/// A list of one counts as its item, an empty list as absent.
fn one_of(mut changes: Vec<Value>, read: fn(Value) -> Value) -> Value {
    match changes.len() {
        0 => read(Value::Null),
        1 => read(changes.remove(0)),
        _ => Value::Array(changes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_is_recognised_in_any_case() {
        for name in ["STSEndpoint", "stsendpoint", "stsEndpoint", "ſtſendpoint"] {
            let (read, twice) = normalise_config(&json!({ "Config": { name: "https://sts" } }));
            assert_eq!(read, json!({ "Config": { "STSEndpoint": "https://sts" } }), "{name}");
            assert!(twice.is_empty());
        }
        let (read, twice) =
            normalise_config(&json!({ "Config": { "maxretries": "3", "JWKSURL": "x", "a": 1 } }));
        assert_eq!(read["Config"], json!({ "MaxRetries": "3", "JWKSURL": "x", "a": 1 }));
        assert!(twice.is_empty());
        let (_, twice) =
            normalise_config(&json!({ "Config": { "IAMEndpoint": "", "iamendpoint": "https://iam.evil" } }));
        assert_eq!(twice.keys().collect::<Vec<_>>(), ["iamendpoint"]);
    }

    #[test]
    fn value_is_read_like_consul_does() {
        for (name, value, expected) in [
            ("EnableIAMEntityDetails", json!("true"), json!(true)),
            ("EnableIAMEntityDetails", json!(1), json!(true)),
            ("EnableIAMEntityDetails", json!(["t"]), json!(true)),
            ("EnableIAMEntityDetails", json!(""), json!(false)),
            ("EnableIAMEntityDetails", json!(0), json!(false)),
            ("EnableIAMEntityDetails", Value::Null, json!(false)),
            ("EnableIAMEntityDetails", json!("maybe"), json!("maybe")),
            ("BoundIAMPrincipalARNs", json!("a"), json!(["a"])),
            ("BoundIAMPrincipalARNs", json!([["a"], 7]), json!(["a", "7"])),
            ("IAMEntityTags", Value::Null, json!([])),
            ("STSEndpoint", json!(["https://sts"]), json!("https://sts")),
            ("STSEndpoint", json!([]), json!("")),
            ("ServerIDHeaderValue", json!(7), json!("7")),
            ("ServerIDHeaderValue", json!(true), json!("1")),
        ] {
            let (read, _) = normalise_config(&json!({ "Config": { name: value } }));
            assert_eq!(read["Config"][name], expected, "{name} {value}");
        }
    }
}

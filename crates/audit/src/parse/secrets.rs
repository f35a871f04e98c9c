//! Finds probable tokens and keys in plain text. Returns the kind, never the value.

/// Names of variables and fields whose values are secrets.
const SECRET_NAMES: [&str; 8] =
    ["TOKEN", "SECRET", "PASSWORD", "PASSWD", "GOSSIP", "ENCRYPTION_KEY", "PRIVATE_KEY", "LICENSE"];
/// Suffixes of names whose values refer to a secret instead of containing it.
const NOT_SECRET: [&str; 9] = ["_FILE", "_PATH", "_ARN", "_URL", "_NAME", "_TTL", "_DIR", "_TYPE", "_METHOD"];

/// The kind of secret in a variable, if its name and value look like one.
pub(crate) fn in_variable(name: &str, value: &str) -> Option<&'static str> {
    let name = name.to_uppercase();
    let is_named = SECRET_NAMES.iter().any(|part| name.contains(part))
        && !NOT_SECRET.iter().any(|end| name.ends_with(end));
    match shape(value) {
        Some(SecretShape::Key(kind)) => Some(kind),
        Some(SecretShape::Uuid) if is_named => Some("a token in UUID form"),
        Some(SecretShape::Base64) if is_named => Some("a key in base64"),
        _ if name == "CONSUL_HTTP_TOKEN" && !is_reference(value) => Some("a token"),
        _ => None,
    }
}

/// The kind of secret in a longer text, such as a script or a configuration.
pub(crate) fn in_text(text: &str) -> Option<&'static str> {
    if text.contains("PRIVATE KEY-----") {
        return Some("a private key");
    }
    let mut before = "";
    for word in text.split(|c: char| c.is_whitespace() || "\"'`=,;:{}[]()".contains(c)) {
        if word.is_empty() {
            continue;
        }
        let is_named = |name: &str| {
            let name = name.to_lowercase().replace('-', "_");
            [
                "token",
                "secret",
                "agent",
                "default",
                "encrypt",
                "gossip",
                "password",
                "key",
                "initial_management",
            ]
            .iter()
            .any(|part| name.contains(part))
        };
        match shape(word) {
            Some(SecretShape::Key(kind)) => return Some(kind),
            Some(SecretShape::Uuid) if is_named(before) => return Some("a token in UUID form"),
            Some(SecretShape::Base64) if is_named(before) => return Some("a key in base64"),
            _ => {}
        }
        before = word;
    }
    // The loop above splits at `=`, with which base64 texts end.
    let lower = text.to_lowercase();
    let mentions_keys = ["encrypt", "gossip", "_key"].iter().any(|word| lower.contains(word));
    let padded = text.split(['"', '\'', ' ', '\n']).any(|part| part.ends_with('=') && shape(part).is_some());
    (mentions_keys && padded).then_some("a key in base64")
}

enum SecretShape {
    Uuid,
    Base64,
    /// Unambiguous without a name.
    Key(&'static str),
}

fn shape(text: &str) -> Option<SecretShape> {
    let text = text.trim();
    let bytes = text.as_bytes();
    let dashes = [8, 13, 18, 23];
    if bytes.len() == 36
        && bytes
            .iter()
            .enumerate()
            .all(|(location, b)| if dashes.contains(&location) { *b == b'-' } else { b.is_ascii_hexdigit() })
    {
        // Ids of built-in tokens are public.
        return (!text.starts_with("00000000-0000-0000-0000-")).then_some(SecretShape::Uuid);
    }
    if text.contains("PRIVATE KEY-----") {
        return Some(SecretShape::Key("a private key"));
    }
    if bytes.len() == 20
        && ["AKIA", "ASIA"].iter().any(|start| text.starts_with(start))
        && bytes.iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
    {
        return Some(SecretShape::Key("an AWS access key"));
    }
    if text.starts_with("eyJ") && text.split('.').count() == 3 && bytes.len() > 60 {
        return Some(SecretShape::Key("a JSON web token"));
    }
    // Gossip keys have 16, 24 or 32 bytes.
    let is_base64 = [24, 32, 44].contains(&bytes.len())
        && text.ends_with('=')
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(b));
    is_base64.then_some(SecretShape::Base64)
}

fn is_reference(value: &str) -> bool {
    value.is_empty() || value.starts_with('$') || value.starts_with('<') || value.contains("{{")
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "3f2a9c0d-5e6b-4a71-8293-a4b5c6d7e8f9";
    const GOSSIP: &str = "pUqJrVyVRj5jsiYEkM/tFQYfWyJIv4s3XkvDwy7Cu5s=";

    #[test]
    fn secret_in_variable_is_found_by_name_and_shape() {
        for (name, value, is_secret) in [
            ("CONSUL_HTTP_TOKEN", UUID, true),
            ("CONSUL_HTTP_TOKEN", "anything", true),
            ("CONSUL_HTTP_TOKEN", "${TOKEN}", false),
            ("CONSUL_HTTP_TOKEN_FILE", "/consul/token", false),
            ("REQUEST_ID", UUID, false),
            ("CONSUL_GOSSIP_ENCRYPTION_KEY", GOSSIP, true),
            ("ANYTHING", "AKIAIOSFODNN7EXAMPLE", true),
            ("TOKEN", "00000000-0000-0000-0000-000000000002", false),
            ("CA", "-----BEGIN CERTIFICATE-----", false),
            ("KEY", "-----BEGIN EC PRIVATE KEY-----\nabc", true),
        ] {
            assert_eq!(in_variable(name, value).is_some(), is_secret, "{name}={value}");
        }
    }

    #[test]
    fn secret_in_script_or_configuration_is_found() {
        for (text, is_secret) in [
            (format!("consul login -token={UUID}"), true),
            (format!("acl {{ tokens {{ agent = \"{UUID}\" }} }}"), true),
            (format!("encrypt = \"{GOSSIP}\""), true),
            ("tokens { agent = \"$AGENT_TOKEN\" }".to_owned(), false),
            (format!("{{\"service\": {{\"meta\": {{\"build\": \"{UUID}\"}}}}}}"), false),
            (format!("{{\"token\": \"{UUID}\"}}"), true),
        ] {
            assert_eq!(in_text(&text).is_some(), is_secret, "{text}");
        }
    }
}

//! Reads the settings of an auth method of type `aws-iam`. Consul reads keys without case, a text for a list of one, and
//! words and numbers for truth.

use ecs_mesh_api::{HumanDuration, TokenLocality};
use ecs_mesh_model::GoDuration;

use crate::cursor::Cursor;
use crate::tree::SourceValue;

/// The settings that are read.
const KEYS: [&str; 6] = [
    "BoundIAMPrincipalARNs",
    "EnableIAMEntityDetails",
    "IAMEntityTags",
    "STSEndpoint",
    "IAMEndpoint",
    "AllowedSTSHeaderValues",
];

/// The settings of a method that a `ConsulAuth` declares.
pub(super) struct ReadMethod {
    pub(super) principals: Vec<String>,
    pub(super) entity_details: bool,
    pub(super) token_ttl: Option<HumanDuration>,
    pub(super) locality: TokenLocality,
    pub(super) sts_endpoint: Option<String>,
    pub(super) iam_endpoint: Option<String>,
    pub(super) headers: Vec<String>,
}

pub(super) fn read(cursor: &Cursor<'_>, is_service: bool) -> ReadMethod {
    for key in ["Name", "Type"] {
        cursor.text_of(key);
    }
    let config = cursor.get("Config");
    let setting = |name: &str| {
        let entries = config.as_ref().map(Cursor::entries).unwrap_or_default();
        entries.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, setting)| setting)
    };
    for (key, cursor) in config.as_ref().map(Cursor::entries).unwrap_or_default() {
        if let Some(name) = KEYS.iter().find(|name| **name != key && name.eq_ignore_ascii_case(key)) {
            cursor.carried(format!("as {name}, which Consul reads without case"));
        }
    }
    let details = setting("EnableIAMEntityDetails");
    let entity_details = details.as_ref().is_some_and(is_true);
    if let Some(details) = details
        && is_service
        && !entity_details
    {
        let reason = "services' logins need the role's tags, so the operator turns it on";
        details.changed("ConsulAuth.spec.serviceTokens", reason, true);
    }
    if let Some(tags) = setting("IAMEntityTags") {
        tags.mark_used();
    }
    ReadMethod {
        principals: setting("BoundIAMPrincipalARNs").map(|setting| texts(&setting)).unwrap_or_default(),
        entity_details,
        token_ttl: cursor.get("MaxTokenTTL").and_then(|ttl| read_ttl(&ttl)),
        locality: read_locality(cursor),
        sts_endpoint: setting("STSEndpoint").and_then(|setting| filled(&setting)),
        iam_endpoint: setting("IAMEndpoint").and_then(|setting| filled(&setting)),
        headers: setting("AllowedSTSHeaderValues").map(|setting| texts(&setting)).unwrap_or_default(),
    }
}

fn read_ttl(cursor: &Cursor<'_>) -> Option<HumanDuration> {
    let text = cursor.text()?;
    if text.is_empty() {
        return None;
    }
    let nanoseconds = GoDuration::parse(&text).and_then(|ttl| u64::try_from(ttl.0).ok());
    if nanoseconds.is_none() {
        cursor.lost("tokenTtl", format!("{text:?} is no duration"));
    }
    let ttl = std::time::Duration::from_nanos(nanoseconds?);
    (!ttl.is_zero()).then_some(HumanDuration(ttl))
}

fn read_locality(cursor: &Cursor<'_>) -> TokenLocality {
    match cursor.text_of("TokenLocality").as_deref() {
        Some("global") => TokenLocality::Global,
        _ => TokenLocality::Local,
    }
}

fn filled(cursor: &Cursor<'_>) -> Option<String> {
    texts(cursor).into_iter().find(|text| !text.is_empty())
}

fn texts(cursor: &Cursor<'_>) -> Vec<String> {
    cursor.mark_used();
    match &cursor.node.value {
        SourceValue::List(items) => {
            items.iter().filter_map(super::super::tree::SourceNode::as_text).collect()
        }
        _ => cursor.node.as_text().into_iter().collect(),
    }
}

fn is_true(cursor: &Cursor<'_>) -> bool {
    cursor.mark_used();
    let texts = texts(cursor);
    let [text] = texts.as_slice() else { return false };
    match &cursor.node.value {
        SourceValue::Number(_) => text != "0",
        _ => ["1", "t", "T", "true", "True", "TRUE"].contains(&text.as_str()),
    }
}

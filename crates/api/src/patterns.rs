//! What the values that people write as texts look like, for the schemas.
//!
//! A pattern never refuses what loading accepts. Where a rule cannot be said in a pattern, loading is the stricter.
//! Three keywords are ours, and never leave [`crate::schema`]: `x-allowed` says in words what is allowed, for people;
//! `x-unquoted` marks texts that loading also takes from what YAML calls a number, such as `version: 1.10`; and
//! `x-enum-descriptions` (made there) says what each of the allowed words means.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::HumanDuration;
use crate::manifests::{CONSUL_NAME_RULE, DNS_LABEL};
use ecs_mesh_model::ServiceName;

/// Any number of units, each once, the largest first; the length refuses the empty text.
const DURATION: &str = "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$";
const ADDRESS: &str = r"^[Hh][Tt][Tt][Pp][Ss]?://[^/?#@\s]+(/[^?#\s]*)?$";
const LABEL: &str = "^[a-z]([-a-z0-9]*[a-z0-9])?$";
const VARIABLE: &str = "^[A-Za-z_][A-Za-z0-9_]*$";
const CLUSTER: &str = r"[*?:/]";
const SECRET_ARN: &str = "^arn:[a-z0-9-]+:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[^\\s]+$";
const DATACENTER: &str = "^[a-z0-9_-]+$";
const NAMESPACE: &str = "^([a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?|[*])$";
const CONSUL_NAME: &str = "^[A-Za-z0-9_-]+$";
const CONSUL_POLICY: &str = "^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]*)?$";
const BOUND_PRINCIPAL: &str = r"^arn:aws[a-z0-9-]*:iam::[0-9]{12}:role/([^*\s]+\*?|\*)$";
const HEADER_NAME: &str = "^[A-Za-z0-9_-]+$";
const HEADER_VALUE: &str = "^([!-~]([ -~]*[!-~])?)?$";
const ACCOUNT: &str = "^[0-9]{12}$";
/// A placeholder that is a task's own, among others and plain characters; no `-` or `.` at either end.
const DATAPLANE_NAME: &str = concat!(
    r"^(([a-z0-9]|\{service\})([a-z0-9.-]|\{service\})*)?",
    r"(\{taskId\}|\{hostname\})",
    r"(([a-z0-9.-]|\{(taskId|hostname|service)\})*([a-z0-9]|\{(taskId|hostname|service)\}))?$"
);

impl JsonSchema for HumanDuration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": DURATION, "minLength": 2, "x-allowed": "duration" })
    }
}

pub(super) fn clusters(_: &mut SchemaGenerator) -> Schema {
    let cluster = json!({ "type": "string", "pattern": CLUSTER, "x-allowed": "*pattern* over cluster ARNs" });
    json_schema!({ "type": "array", "items": cluster })
}

pub(super) fn accounts(_: &mut SchemaGenerator) -> Schema {
    let account =
        json!({ "type": "string", "pattern": ACCOUNT, "x-allowed": "12 digits", "x-unquoted": true });
    json_schema!({ "type": "array", "items": account })
}

pub(super) fn api_address(_: &mut SchemaGenerator) -> Schema {
    let allowed = "`http://` or `https://` URL, without credentials, `?` and `#`";
    json_schema!({ "type": "string", "pattern": ADDRESS, "x-allowed": allowed })
}

pub(super) fn dataplane_name(_: &mut SchemaGenerator) -> Schema {
    let allowed = "`{taskId}`, `{hostname}`, `{service}`, and `a-z 0-9 - .` around them";
    json_schema!({ "type": "string", "pattern": DATAPLANE_NAME, "x-allowed": allowed })
}

pub(super) fn dns_label(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": LABEL, "maxLength": 63, "x-allowed": DNS_LABEL })
}

pub(super) fn variable(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": VARIABLE, "x-allowed": "variable's name" })
}

pub(super) fn path(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "minLength": 1, "x-allowed": "path" })
}

pub(super) fn secret_arn(_: &mut SchemaGenerator) -> Schema {
    let allowed = "ARN of a Secrets Manager secret";
    json_schema!({ "type": "string", "pattern": SECRET_ARN, "x-allowed": allowed })
}

pub(super) fn datacenter(_: &mut SchemaGenerator) -> Schema {
    let allowed = "lower-case letters, digits, '-' and '_'";
    json_schema!({ "type": "string", "pattern": DATACENTER, "maxLength": 63, "x-allowed": allowed })
}

pub(super) fn namespaces(_: &mut SchemaGenerator) -> Schema {
    let name =
        json!({ "type": "string", "pattern": NAMESPACE, "maxLength": 64, "x-allowed": "name, or `*`" });
    json_schema!({ "type": "array", "items": name })
}

pub(super) fn bound_principals(_: &mut SchemaGenerator) -> Schema {
    let allowed = "role's ARN, with `*` at the end or none";
    let principal = json!({ "type": "string", "pattern": BOUND_PRINCIPAL, "x-allowed": allowed });
    json_schema!({ "type": "array", "items": principal })
}

pub(super) fn consul_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": CONSUL_NAME, "maxLength": 128, "x-allowed": CONSUL_NAME_RULE })
}

pub(super) fn consul_policies(_: &mut SchemaGenerator) -> Schema {
    let policy =
        json!({ "type": "string", "pattern": CONSUL_POLICY, "maxLength": 128, "x-allowed": "policy's name" });
    json_schema!({ "type": "array", "items": policy })
}

pub(super) fn header_names(_: &mut SchemaGenerator) -> Schema {
    let name = json!({ "type": "string", "pattern": HEADER_NAME, "x-allowed": "header's name" });
    json_schema!({ "type": "array", "items": name })
}

pub(super) fn header_value(_: &mut SchemaGenerator) -> Schema {
    let allowed = "ASCII text without spaces at its ends";
    json_schema!({ "type": "string", "pattern": HEADER_VALUE, "x-allowed": allowed })
}

pub(super) fn time(_: &mut SchemaGenerator) -> Schema {
    let allowed = "RFC 3339 time, such as `2026-01-31T12:00:00Z`";
    json_schema!({ "type": "string", "format": "date-time", "x-allowed": allowed })
}

pub(super) fn ip_address(_: &mut SchemaGenerator) -> Schema {
    let versions = json!([{ "format": "ipv4" }, { "format": "ipv6" }]);
    json_schema!({ "type": "string", "anyOf": versions, "x-allowed": "IP address" })
}

pub(super) fn texts_by_key(_: &mut SchemaGenerator) -> Schema {
    let text = json!({ "type": "string", "x-unquoted": true });
    json_schema!({ "type": "object", "additionalProperties": text, "x-allowed": "key: value" })
}

pub(super) fn inbound_tags(_: &mut SchemaGenerator) -> Schema {
    let value = json!({ "type": "string", "pattern": ServiceName::PATTERN, "x-unquoted": true });
    json_schema!({ "type": "object", "additionalProperties": value, "x-allowed": "Kuma tags" })
}

/// Of the types of a control plane: each with the block of its name.
pub(super) fn block_of_type<const N: usize>(kinds: [&str; N]) -> Value {
    kinds
        .map(|kind| json!({ "properties": { "type": { "enum": [kind] } }, "required": [kind] }))
        .to_vec()
        .into()
}

/// Fields of which at most one may be given.
pub(super) fn not_both<const N: usize>(pairs: [(&str, &str); N]) -> Value {
    pairs.map(|(one, other)| json!({ "not": { "required": [one, other] } })).to_vec().into()
}

/// A field that must be given, unless the part it is of is to be removed.
pub(super) fn needed_unless_absent(field: &str) -> Value {
    json!([
        { "required": [field] },
        { "properties": { "state": { "enum": ["absent"] } }, "required": ["state"] }
    ])
}

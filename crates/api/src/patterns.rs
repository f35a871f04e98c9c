//! Schema patterns of the values that manifests hold as text.
//!
//! A pattern accepts every text that loading accepts. Where a pattern cannot express a rule, loading is the stricter.
//! Four keywords are internal and removed from what [`crate::schema`] writes: `x-allowed` is the rule in words, as
//! errors have it; `x-format` is its short name, as the reference has it; `x-unquoted` marks texts that loading also
//! accepts from what YAML calls a number, such as `version: 1.10`; and `x-enum-descriptions` (added there) describes each
//! allowed word.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::HumanDuration;
use super::limits::{CONSUL_NAME_RULE, DNS_LABEL_RULE, EXTERNAL_ID_RULE, KMS_KEY_RULE, TOKEN_PATH_RULE};
use ecs_mesh_model::ServiceName;

/// Units, each at most once, the largest first. The minimum length excludes the empty text.
const DURATION: &str = "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$";
const ADDRESS: &str = r"^[Hh][Tt][Tt][Pp][Ss]?://[^/?#@\s]+(/[^?#\s]*)?$";
const LABEL: &str = "^[a-z]([-a-z0-9]*[a-z0-9])?$";
const VARIABLE: &str = "^[A-Za-z_][A-Za-z0-9_]*$";
const CLUSTER: &str = r"[*?:/]";
const CLUSTER_ARN: &str = r"^arn:aws[!-9;-~]*:ecs:[!-9;-~]+:[0-9]{12}:cluster/[!-.0-~]+$";
const DATACENTER: &str = "^[a-z0-9_-]+$";
const NAMESPACE: &str = "^([a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?|[*])$";
const CONSUL_NAME: &str = "^[A-Za-z0-9_-]+$";
const CONSUL_POLICY: &str = "^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]*)?$";
const BOUND_PRINCIPAL: &str = r"^arn:aws[a-z0-9-]*:iam::[0-9]{12}:role/([^*\s]+\*?|\*)$";
const HEADER_NAME: &str = "^[A-Za-z0-9_-]+$";
const HEADER_VALUE: &str = "^([!-~]([ -~]*[!-~])?)?$";
const ACCOUNT: &str = "^[0-9]{12}$";
const ROLE_ARN: &str = r"^arn:aws[a-z0-9-]*:iam::[0-9]{12}:role/([!-~]*[!-.0-~])$";
const EXTERNAL_ID: &str = "^[A-Za-z0-9_+=,.@:/-]+$";
const REGION: &str = "^[a-z]+(-[a-z]+){1,3}-[0-9]{1,2}$";
const ROLE_PATH: &str = "^[/*]";
const TOKEN_PATH: &str = "^(/[A-Za-z0-9_.-]+){1,8}$";
const KMS_KEY: &str = "^[A-Za-z0-9:/_-]+$";
/// At least one placeholder that differs for each task, with others and plain characters around; no `-` or `.` at either
/// end.
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
        json_schema!({ "type": "string", "pattern": DURATION, "minLength": 2, "x-allowed": "duration", "x-format": "duration" })
    }
}

pub(super) fn clusters(_: &mut SchemaGenerator) -> Schema {
    let cluster = json!({ "type": "string", "pattern": CLUSTER, "x-allowed": "*pattern* over cluster ARNs" });
    json_schema!({ "type": "array", "items": cluster, "x-format": "list of cluster ARN *patterns*" })
}

pub(super) fn cluster_arns(_: &mut SchemaGenerator) -> Schema {
    let cluster = json!({ "type": "string", "pattern": CLUSTER_ARN, "x-allowed": "an ECS cluster's ARN" });
    json_schema!({ "type": "array", "items": cluster, "x-format": "list of cluster ARNs" })
}

pub(super) fn role_path(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": ROLE_PATH, "x-allowed": "*pattern* over role paths and names" })
}

pub(super) fn accounts(_: &mut SchemaGenerator) -> Schema {
    let account =
        json!({ "type": "string", "pattern": ACCOUNT, "x-allowed": "12 digits", "x-unquoted": true });
    json_schema!({ "type": "array", "items": account, "x-format": "list of account ids" })
}

pub(super) fn account(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "pattern": ACCOUNT, "x-allowed": "12 digits", "x-format": "account id", "x-unquoted": true
    })
}

pub(super) fn role_arn(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": ROLE_ARN, "x-allowed": "role's ARN", "x-format": "role's ARN" })
}

pub(super) fn external_id(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "pattern": EXTERNAL_ID, "minLength": 2, "maxLength": 1224, "x-allowed": EXTERNAL_ID_RULE,
        "x-format": "external id", "x-unquoted": true
    })
}

pub(super) fn regions(_: &mut SchemaGenerator) -> Schema {
    let region = json!({ "type": "string", "pattern": REGION, "x-allowed": "Region, such as `eu-west-1`" });
    json_schema!({ "type": "array", "items": region, "x-format": "list of Regions" })
}

pub(super) fn token_path(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": TOKEN_PATH, "maxLength": 200, "x-allowed": TOKEN_PATH_RULE, "x-format": "path" })
}

pub(super) fn kms_key(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": KMS_KEY, "x-allowed": KMS_KEY_RULE, "x-format": "KMS key" })
}

pub(super) fn api_address(_: &mut SchemaGenerator) -> Schema {
    let allowed = "`http://` or `https://` URL, without credentials, `?` and `#`";
    json_schema!({ "type": "string", "pattern": ADDRESS, "x-allowed": allowed, "x-format": "URL" })
}

pub(super) fn dataplane_name(_: &mut SchemaGenerator) -> Schema {
    let allowed = "`{taskId}`, `{hostname}`, `{service}`, and `a-z 0-9 - .` around them";
    json_schema!({ "type": "string", "pattern": DATAPLANE_NAME, "x-allowed": allowed, "x-format": "name template" })
}

pub(super) fn dns_label(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "pattern": LABEL, "maxLength": 63, "x-allowed": DNS_LABEL_RULE, "x-format": "DNS label"
    })
}

pub(super) fn variable(_: &mut SchemaGenerator) -> Schema {
    let allowed = "variable's name";
    json_schema!({ "type": "string", "pattern": VARIABLE, "x-allowed": allowed, "x-format": "environment variable" })
}

pub(super) fn path(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "minLength": 1, "x-allowed": "path", "x-format": "path" })
}

pub(super) fn datacenter(_: &mut SchemaGenerator) -> Schema {
    let allowed = "lower-case letters, digits, '-' and '_'";
    json_schema!({
        "type": "string", "pattern": DATACENTER, "maxLength": 63, "x-allowed": allowed, "x-format": "datacenter name"
    })
}

pub(super) fn namespaces(_: &mut SchemaGenerator) -> Schema {
    let name =
        json!({ "type": "string", "pattern": NAMESPACE, "maxLength": 64, "x-allowed": "name, or `*`" });
    json_schema!({ "type": "array", "items": name, "x-format": "list of names, or `*`" })
}

pub(super) fn bound_principals(_: &mut SchemaGenerator) -> Schema {
    let allowed = "role's ARN, with `*` at the end or none";
    let principal = json!({ "type": "string", "pattern": BOUND_PRINCIPAL, "x-allowed": allowed });
    json_schema!({ "type": "array", "items": principal, "x-format": "list of role ARNs" })
}

pub(super) fn consul_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "pattern": CONSUL_NAME,
        "maxLength": 128,
        "x-allowed": CONSUL_NAME_RULE,
        "x-format": "Consul object name",
    })
}

pub(super) fn consul_policies(_: &mut SchemaGenerator) -> Schema {
    let policy =
        json!({ "type": "string", "pattern": CONSUL_POLICY, "maxLength": 128, "x-allowed": "policy's name" });
    json_schema!({ "type": "array", "items": policy, "x-format": "list of policy names" })
}

pub(super) fn header_names(_: &mut SchemaGenerator) -> Schema {
    let name = json!({ "type": "string", "pattern": HEADER_NAME, "x-allowed": "header's name" });
    json_schema!({ "type": "array", "items": name, "x-format": "list of header names" })
}

pub(super) fn header_value(_: &mut SchemaGenerator) -> Schema {
    let allowed = "ASCII text without spaces at its ends";
    json_schema!({ "type": "string", "pattern": HEADER_VALUE, "x-allowed": allowed, "x-format": "ASCII text" })
}

pub(super) fn time(_: &mut SchemaGenerator) -> Schema {
    let allowed = "RFC 3339 time, such as `2026-01-31T12:00:00Z`";
    json_schema!({ "type": "string", "format": "date-time", "x-allowed": allowed, "x-format": "time" })
}

pub(super) fn ip_address(_: &mut SchemaGenerator) -> Schema {
    let versions = json!([{ "format": "ipv4" }, { "format": "ipv6" }]);
    json_schema!({ "type": "string", "anyOf": versions, "x-allowed": "IP address", "x-format": "IP address" })
}

pub(super) fn texts_by_key(_: &mut SchemaGenerator) -> Schema {
    let text = json!({ "type": "string", "x-unquoted": true });
    json_schema!({ "type": "object", "additionalProperties": text, "x-allowed": "key: value", "x-format": "map of text" })
}

pub(super) fn inbound_tags(_: &mut SchemaGenerator) -> Schema {
    let value = json!({ "type": "string", "pattern": ServiceName::PATTERN, "x-unquoted": true });
    json_schema!({ "type": "object", "additionalProperties": value, "x-allowed": "Kuma tags", "x-format": "map of Kuma tags" })
}

/// Requires, for each type of control plane, the block of the same name.
pub(super) fn block_of_type<const N: usize>(kinds: [&str; N]) -> Value {
    kinds
        .map(|kind| json!({ "properties": { "type": { "enum": [kind] } }, "required": [kind] }))
        .to_vec()
        .into()
}

/// Excludes pairs of fields.
pub(super) fn not_both<const N: usize>(pairs: [(&str, &str); N]) -> Value {
    pairs.map(|(one, other)| json!({ "not": { "required": [one, other] } })).to_vec().into()
}

/// Requires a field, unless `state` is `absent`.
pub(super) fn required_unless_absent(field: &str) -> Value {
    json!([
        { "required": [field] },
        { "properties": { "state": { "enum": ["absent"] } }, "required": ["state"] }
    ])
}

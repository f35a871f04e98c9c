//! JSON schemas of names and patterns in manifests.
//!
//! A schema accepts every text that parsing accepts. `x-allowed` holds the rule for error messages, and
//! `x-format` its short name for the reference. `x-unquoted` marks texts that loading also accepts as YAML numbers. The
//! schema generator of the manifests removes these keywords.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::{AdvertisedAddress, Glob, MeshName, SecretRef, ServiceName, TlsServerName};

const SUBDOMAIN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
const NOT_BLANK: &str = r"\S";
/// The ARN; then a JSON key, and a version's stage or id, or neither.
const SECRET: &str = concat!(
    "^arn:[a-z0-9-]+:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@-]+",
    "(:[^:]*:([^:]*:|:[^:]{32,64}))?$"
);
/// The labels of a DNS name, or the characters of an IPv6 address. An IPv4 address has the form of a DNS name.
const DNS_NAME_OR_ADDRESS: &str = r"^([A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*|[0-9A-Fa-f:.]+)$";

impl ServiceName {
    /// The rule of service names as a regular expression.
    pub const PATTERN: &str = r"^[a-zA-Z0-9._:-]+$";
}

macro_rules! impl_schema {
    ($type:ty, $name:literal, $schema:expr) => {
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}

impl_schema!(
    MeshName,
    "MeshName",
    json_schema!({
        "type": "string", "pattern": SUBDOMAIN, "maxLength": 63, "x-allowed": Self::RULE, "x-format": "DNS name",
        "x-unquoted": true
    })
);
impl_schema!(
    ServiceName,
    "ServiceName",
    json_schema!({
        "type": "string", "pattern": Self::PATTERN, "maxLength": 253, "x-allowed": Self::RULE, "x-format": "service name",
        "x-unquoted": true
    })
);
impl_schema!(
    Glob,
    "Pattern",
    json_schema!({
        "type": "string", "pattern": NOT_BLANK, "x-allowed": "*pattern*", "x-format": "*pattern*", "x-unquoted": true
    })
);
impl_schema!(
    SecretRef,
    "SecretRef",
    json_schema!({
        "type": "string", "pattern": SECRET,
        "x-allowed": "ARN of a Secrets Manager secret, or ARN:json-key:version-stage:version-id",
        "x-format": "secret's ARN"
    })
);
impl_schema!(
    TlsServerName,
    "TlsServerName",
    json_schema!({
        "type": "string", "pattern": DNS_NAME_OR_ADDRESS, "maxLength": 253, "x-allowed": Self::RULE,
        "x-format": "DNS name or IP address", "x-unquoted": true
    })
);
impl_schema!(
    AdvertisedAddress,
    "AdvertisedAddress",
    json_schema!({
        "type": "string", "pattern": DNS_NAME_OR_ADDRESS, "maxLength": 253, "x-allowed": Self::RULE,
        "x-format": "DNS name or IP address"
    })
);

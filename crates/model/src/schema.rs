//! JSON schemas of names and patterns in manifests.
//!
//! A schema accepts every text that parsing accepts. `x-allowed` holds the rule for error messages, and
//! `x-format` its short name for the reference. `x-unquoted` marks texts that loading also accepts as YAML numbers. The
//! schema generator of the manifests removes these keywords.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::{Glob, MeshName, ServiceName};

const SUBDOMAIN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
const NOT_BLANK: &str = r"\S";

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

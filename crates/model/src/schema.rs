//! What names and patterns look like in the manifests' schemas.
//!
//! A pattern never refuses what parsing accepts. `x-allowed` says in words what is allowed, and `x-unquoted` marks texts
//! that loading also takes from what YAML calls a number: whoever makes a schema of them takes both keywords away.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::{Glob, MeshName, ServiceName};

const SUBDOMAIN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
const NOT_BLANK: &str = r"\S";

impl ServiceName {
    /// What a service's name looks like, as a regular expression.
    pub const PATTERN: &str = r"^[a-zA-Z0-9._:-]+$";
}

macro_rules! written_as {
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

written_as!(
    MeshName,
    "MeshName",
    json_schema!({
        "type": "string", "pattern": SUBDOMAIN, "maxLength": 63, "x-allowed": Self::RULE, "x-unquoted": true
    })
);
written_as!(
    ServiceName,
    "ServiceName",
    json_schema!({
        "type": "string", "pattern": Self::PATTERN, "maxLength": 253, "x-allowed": Self::RULE, "x-unquoted": true
    })
);
written_as!(
    Glob,
    "Pattern",
    json_schema!({ "type": "string", "pattern": NOT_BLANK, "x-allowed": "*pattern*", "x-unquoted": true })
);

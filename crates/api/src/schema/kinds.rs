//! Names and printer columns of each kind's `CustomResourceDefinition`.

use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema};

use crate::{
    AwsAccountSpec, ConsulAuthSpec, ControlPlaneSpec, MeshBindingSpec, OutboundListSpec, WorkloadSpec,
};

/// A kind of manifest.
pub(super) struct SchemaKind {
    pub(super) name: &'static str,
    pub(super) plural: &'static str,
    pub(super) short_name: &'static str,
    pub(super) columns: &'static [Column],
    pub(super) spec: fn(&mut SchemaGenerator) -> Schema,
}

/// A column of `kubectl get`.
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) path: &'static str,
    /// Shown with `-o wide` only.
    pub(super) wide: bool,
}

const fn shown(name: &'static str, path: &'static str) -> Column {
    Column { name, kind: "string", path, wide: false }
}

const fn wide(name: &'static str, path: &'static str) -> Column {
    Column { name, kind: "string", path, wide: true }
}

const AGE: Column = Column { name: "Age", kind: "date", path: ".metadata.creationTimestamp", wide: false };

/// The kinds in the order of the reference. Short names start with `em`, since other projects have kinds of these names.
pub(super) const KINDS: [SchemaKind; 6] = [
    SchemaKind {
        name: "ControlPlane",
        plural: "controlplanes",
        short_name: "emcp",
        columns: &[
            shown("Type", ".spec.type"),
            // A column has one path, so each type has a column of its own.
            shown("Kuma", ".spec.kuma.address"),
            shown("Consul", ".spec.consul.address"),
            wide("Partition", ".spec.consul.partition"),
            AGE,
        ],
        spec: ControlPlaneSpec::json_schema,
    },
    SchemaKind {
        name: "MeshBinding",
        plural: "meshbindings",
        short_name: "emb",
        columns: &[
            shown("Control plane", ".spec.controlPlane"),
            shown("Mesh", ".spec.mesh"),
            shown("Policy", ".spec.policy"),
            Column { name: "Paused", kind: "boolean", path: ".spec.paused", wide: false },
            wide("Role tags", ".spec.roleTags.mode"),
            wide("Discovery", ".spec.discovery"),
            AGE,
        ],
        spec: MeshBindingSpec::json_schema,
    },
    SchemaKind {
        name: "Workload",
        plural: "workloads",
        short_name: "emw",
        columns: &[
            shown("Service", ".spec.service"),
            wide("Bindings", ".spec.bindings"),
            wide("Probe", ".spec.probe"),
            AGE,
        ],
        spec: WorkloadSpec::json_schema,
    },
    SchemaKind {
        name: "OutboundList",
        plural: "outboundlists",
        short_name: "emol",
        columns: &[shown("Workloads", ".spec.workloads"), AGE],
        spec: OutboundListSpec::json_schema,
    },
    SchemaKind {
        name: "ConsulAuth",
        plural: "consulauths",
        short_name: "emca",
        columns: &[
            shown("Control plane", ".spec.controlPlane"),
            shown("State", ".spec.state"),
            shown("Service tokens", ".spec.serviceTokens.authMethod"),
            shown("Client tokens", ".spec.clientTokens.authMethod"),
            wide("Principals", ".spec.serviceTokens.boundPrincipals"),
            wide("Token TTL", ".spec.serviceTokens.tokenTtl"),
            AGE,
        ],
        spec: ConsulAuthSpec::json_schema,
    },
    SchemaKind {
        name: "AwsAccount",
        plural: "awsaccounts",
        short_name: "emaa",
        columns: &[
            shown("Account", ".spec.account"),
            shown("Regions", ".spec.regions"),
            wide("Role", ".spec.assumeRole"),
            AGE,
        ],
        spec: AwsAccountSpec::json_schema,
    },
];

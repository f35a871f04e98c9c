//! Imports what other tools declare into manifests: AWS App Mesh, Kuma's Dataplane templates, and Consul's ACL objects.
//!
//! Each import is a pure function: files or objects in, manifests and a report out. The report has a line for every field of the
//! input: carried over, changed, or without a counterpart. Equal input gives equal output, byte by byte.
//!
//! ```
//! use ecs_mesh_import::{FieldFate, ImportOptions, SourceFile, import_app_mesh};
//!
//! let text = r#"{"virtualNode": {
//!     "meshName": "demo", "virtualNodeName": "kv",
//!     "spec": {"listeners": [{"portMapping": {"port": 5050, "protocol": "http"}, "timeout": {"http": {}}}]}
//! }}"#;
//! let imported = import_app_mesh(&[SourceFile::new("kv.json", text)], &ImportOptions::default()).unwrap();
//! let workload = imported.manifests.iter().find(|manifest| manifest.kind == "Workload").unwrap();
//! assert!(workload.text.contains("containerPort: 5050"));
//! let timeout = imported.report.of_fate(FieldFate::NoCounterpart).find(|entry| entry.target == "MeshTimeout");
//! assert_eq!(timeout.unwrap().path, "virtualNode.spec.listeners[0].timeout");
//! ```

#![forbid(unsafe_code)]

mod app_mesh;
mod cloudformation;
mod consul;
mod cursor;
mod dataplanes;
mod import;
mod json;
mod names;
mod output;
mod place;
mod report;
mod source;
mod tree;
mod yaml;

pub use app_mesh::import_app_mesh;
pub use consul::{ConsulAuthPart, ConsulSetUp, FoundAclObject, import_consul};
pub use dataplanes::import_dataplanes;
pub use import::{ImportFailure, ImportOptions, Imported};
pub use output::ImportedManifest;
pub use place::{DocumentPlace, ImportError};
pub use report::{FieldFate, FieldRule, ImportEntry, ImportReport, ResourceRules};
pub use source::SourceFile;

/// The fields of all resources that are imported, and their fate.
pub fn resource_rules() -> Vec<ResourceRules> {
    app_mesh::RULES.iter().chain(&dataplanes::RULES).chain(&consul::RULES).copied().collect()
}

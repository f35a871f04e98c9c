//! The common parts of all imports: options, the result, and its validation.

use std::fmt;

use ecs_mesh_api::manifests::ManifestScope;
use ecs_mesh_api::{ControlPlaneSpec, ControlPlaneType, KumaConnection};
use ecs_mesh_model::{Glob, MeshName, Tags};

use crate::output::{self, ImportedManifest};
use crate::place::ImportError;
use crate::report::ImportReport;

/// Facts that the input does not have.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// Name of the `ControlPlane`.
    pub control_plane: String,
    /// Address of Kuma's API. Without it, the manifest has one that a person replaces.
    pub address: Option<String>,
    /// The mesh at Kuma; default: that of the input.
    pub mesh: Option<MeshName>,
    /// Clusters of the tasks. Without them, the binding selects all clusters of the accounts that the input names.
    pub clusters: Vec<Glob>,
    /// Tags that tasks must have, so that those that still run in the other mesh are left alone.
    pub task_tags: Tags,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self {
            control_plane: "kuma".to_owned(),
            address: None,
            mesh: None,
            clusters: Vec::new(),
            task_tags: Tags::default(),
        }
    }
}

/// The address that a person replaces: of a domain that never exists.
pub(crate) const PLACEHOLDER_ADDRESS: &str = "https://kuma-cp.invalid:5682";

impl ImportOptions {
    /// The manifest of the control plane.
    pub(crate) fn control_plane(&self) -> ImportedManifest {
        let address = self.address.clone().unwrap_or_else(|| PLACEHOLDER_ADDRESS.to_owned());
        let comment =
            if self.address.is_some() { "" } else { "Replace the address, and add the CA and the token." };
        let kuma = KumaConnection::new(address);
        let spec = ControlPlaneSpec {
            kind: ControlPlaneType::Kuma,
            kuma: Some(kuma),
            consul: None,
            writes_per_second: 500,
        };
        ImportedManifest::control_plane(&self.control_plane, comment, &spec)
    }
}

/// The result of an import.
#[derive(Clone, Debug)]
pub struct Imported {
    /// Valid manifests, by kind and name.
    pub manifests: Vec<ImportedManifest>,
    /// The fate of each field.
    pub report: ImportReport,
}

impl Imported {
    /// Validates the manifests as `validate` does.
    pub(crate) fn validated(
        mut manifests: Vec<ImportedManifest>,
        mut report: ImportReport,
        scope: ManifestScope,
    ) -> Result<Self, ImportFailure> {
        const ORDER: [&str; 5] = ["ControlPlane", "MeshBinding", "ConsulAuth", "Workload", "OutboundList"];
        manifests.sort_by_key(|manifest| {
            (ORDER.iter().position(|kind| *kind == manifest.kind), manifest.name.clone())
        });
        match output::validate(&manifests, scope) {
            Ok(warnings) => {
                report.warnings = warnings.iter().map(ToString::to_string).collect();
                Ok(Self { manifests, report })
            }
            Err(findings) => {
                let findings = findings.iter().map(ToString::to_string).collect();
                Err(ImportFailure::InvalidManifests { findings, report: Box::new(report) })
            }
        }
    }
}

/// Why nothing is imported.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ImportFailure {
    /// Input that cannot be read, or contradicts itself.
    Input(Vec<ImportError>),
    /// The importer made manifests that are invalid.
    InvalidManifests {
        /// The errors, with the place in the manifest.
        findings: Vec<String>,
        /// The report, which has the place in the input.
        report: Box<ImportReport>,
    },
}

impl fmt::Display for ImportFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = match self {
            Self::Input(errors) => {
                f.write_str("reading the input: nothing is imported")?;
                errors.iter().map(ToString::to_string).collect()
            }
            Self::InvalidManifests { findings, .. } => {
                f.write_str(
                    "validating the imported manifests: the import is at fault, and nothing is written; help: report \
                     these lines, with the resources that they name",
                )?;
                findings.clone()
            }
        };
        lines.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

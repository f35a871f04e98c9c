//! What lists showed, and which parts of them failed: of a part that failed nothing is known, and the rest counts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::{ControlPlane, MeshError, Sighting};
use ecs_mesh_core::intent::RegistrationId;
use ecs_mesh_model::ClusterArn;

/// A part of what is registered that is listed by itself. It is displayed as a person would name it.
pub trait Part: fmt::Display + fmt::Debug + Send + Sync {
    /// Whether a registration of this name would be in it.
    fn holds(&self, id: &RegistrationId) -> bool;
}

/// A part that could not be listed.
#[derive(Clone, Debug)]
pub struct FailedPart {
    /// Which.
    pub part: Arc<dyn Part>,
    /// Why not.
    pub error: MeshError,
}

/// What lists showed.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// What was seen, each once.
    pub seen: Vec<Sighting>,
    /// The parts that failed: what is not seen of them may be there.
    pub failed: Vec<FailedPart>,
}

impl AsRef<[FailedPart]> for Listed {
    fn as_ref(&self) -> &[FailedPart] {
        &self.failed
    }
}

/// All that a control plane hands over of what is registered, each once. It holds the whole list: for where that is
/// short.
pub async fn owned(mesh: &dyn ControlPlane, clusters: &BTreeSet<ClusterArn>) -> Result<Listed, MeshError> {
    let mut seen = BTreeMap::new();
    let failed = mesh.owned(clusters, &mut |one| drop(seen.insert(one.id.clone(), one))).await?;
    Ok(Listed { seen: seen.into_values().collect(), failed })
}

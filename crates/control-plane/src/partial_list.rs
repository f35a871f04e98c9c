//! What lists showed, and which parts of them failed: of a part that failed nothing is known, and the rest counts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::{ControlPlane, MeshError, RegistrationSummary};
use ecs_mesh_core::intent::RegistrationId;
use ecs_mesh_model::ClusterArn;

/// A part of what is registered that is listed by itself. It is displayed as a person would name it.
pub trait ListSegment: fmt::Display + fmt::Debug + Send + Sync {
    /// Whether a registration of this name would be in it.
    fn contains(&self, id: &RegistrationId) -> bool;
}

/// A part that could not be listed.
#[derive(Clone, Debug)]
pub struct FailedSegment {
    /// Which.
    pub segment: Arc<dyn ListSegment>,
    /// Why not.
    pub error: MeshError,
}

/// What lists showed.
#[derive(Clone, Debug, Default)]
pub struct PartialList {
    /// What was seen, each once.
    pub seen: Vec<RegistrationSummary>,
    /// The parts that failed: what is not seen of them may be there.
    pub failed: Vec<FailedSegment>,
}

impl AsRef<[FailedSegment]> for PartialList {
    fn as_ref(&self) -> &[FailedSegment] {
        &self.failed
    }
}

/// All that a control plane hands over of what is registered, each once. It holds the whole list: for where that is
/// short.
pub async fn list_owned(mesh: &dyn ControlPlane, clusters: &BTreeSet<ClusterArn>) -> Result<PartialList, MeshError> {
    let mut read_cache = BTreeMap::new();
    let failed = mesh.list_owned(clusters, &mut |one| drop(read_cache.insert(one.id.clone(), one))).await?;
    Ok(PartialList { seen: read_cache.into_values().collect(), failed })
}

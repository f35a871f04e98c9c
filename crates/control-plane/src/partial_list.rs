//! Results of lists of which parts may fail: nothing is known of a failed segment, and the other segments are valid.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::{ControlPlane, MeshError, RegistrationSummary};
use ecs_mesh_api::ZoneProxyKind;
use ecs_mesh_core::intent::RegistrationId;
use ecs_mesh_model::ClusterArn;

/// A part of the registrations that has a list of its own. Its `Display` is for messages.
pub trait ListSegment: fmt::Display + fmt::Debug + Send + Sync {
    /// Whether a registration with this id belongs to the segment.
    fn contains(&self, id: &RegistrationId) -> bool;

    /// The type of zone proxy that the segment has, if it has nothing else.
    fn zone_proxies(&self) -> Option<ZoneProxyKind> {
        None
    }
}

/// A segment that could not be listed.
#[derive(Clone, Debug)]
pub struct FailedSegment {
    /// The segment.
    pub segment: Arc<dyn ListSegment>,
    /// The error of its list.
    pub error: MeshError,
}

/// The registrations that lists returned, with the segments that failed.
#[derive(Clone, Debug, Default)]
pub struct PartialList {
    /// The listed registrations, each once.
    pub seen: Vec<RegistrationSummary>,
    /// The segments that failed: a registration in one of them may exist without being listed.
    pub failed: Vec<FailedSegment>,
}

impl AsRef<[FailedSegment]> for PartialList {
    fn as_ref(&self) -> &[FailedSegment] {
        &self.failed
    }
}

/// Collects the owned registrations of a control plane, each once. Holds the complete list in memory, so use this for
/// short lists only.
pub async fn list_owned(
    mesh: &dyn ControlPlane,
    clusters: &BTreeSet<ClusterArn>,
) -> Result<PartialList, MeshError> {
    let mut seen = BTreeMap::new();
    let failed =
        mesh.list_owned(clusters, &mut |summary| drop(seen.insert(summary.id.clone(), summary))).await?;
    Ok(PartialList { seen: seen.into_values().collect(), failed })
}

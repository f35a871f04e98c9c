//! The settings and observers that all parts of the client share.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;

use ecs_mesh_control_plane::skipped_items::{SkipReason, SkippedItemLog};
use ecs_mesh_control_plane::{MeshCallObserver, UnattributedTokenCount};
use ecs_mesh_model::{MeshName, OperatorId};

/// The settings and observers that all parts of the client share.
pub(super) struct ClientContext {
    pub(super) operator: OperatorId,
    /// The partition.
    pub(super) mesh: MeshName,
    /// The auth methods whose login tokens are managed.
    pub(super) methods: ArcSwap<BTreeSet<Arc<str>>>,
    pub(super) observer: Arc<dyn MeshCallObserver>,
    pub(super) skipped_items: SkippedItemLog,
    /// Tokens that name no task, as of the last complete list.
    pub(super) unattributed_tokens: ArcSwap<Vec<UnattributedTokenCount>>,
}

/// The reason for skipping an unreadable token.
pub(super) const UNREADABLE_TOKEN: SkipReason = SkipReason {
    kind: "token",
    problem: "no readable accessor",
    fix: "check whether a proxy at the control plane's address changes Consul's responses",
};

/// The reason for skipping an oversized token.
pub(super) const TOO_LARGE_TOKEN: SkipReason = SkipReason {
    kind: "token",
    problem: "larger than 1 MiB",
    fix: "its task is unknown; find the token with an oversized description or too many policies",
};

/// The reason for skipping a service.
pub(super) fn skipped_service(problem: &'static str) -> SkipReason {
    SkipReason { kind: "service", problem, fix: "its task is unknown; deregister it if it is a leftover" }
}

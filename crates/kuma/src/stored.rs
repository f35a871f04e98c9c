//! The common part of registrations of all types: Dataplanes, and zone proxies as resources.

use serde_json::Value;

use super::labels::{self, DISPLAY_NAME_LABEL};
use super::normalise::normalise;
use ecs_mesh_control_plane::{Registration, RenderedRegistration};

/// The display name of a stored registration, which updates must carry forward.
pub(super) fn display_name(current: &Registration) -> Option<(String, Value)> {
    labels::label(&current.stored, DISPLAY_NAME_LABEL)
        .map(|name| (DISPLAY_NAME_LABEL.to_owned(), name.into()))
}

/// A stored registration is unreadable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MalformedRegistration {
    /// The readable part of `mesh/name`.
    pub(super) id: String,
    /// The problem.
    pub(super) problem: &'static str,
}

/// A body with its normal form.
pub(super) fn rendered(body: Value) -> RenderedRegistration {
    let normal = normalise(&body);
    RenderedRegistration { body, normal }
}

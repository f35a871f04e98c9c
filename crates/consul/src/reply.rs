//! The response to a call, before it is parsed.

use std::borrow::Cow;

use ecs_mesh_control_plane::http::ResponseHead;

/// A response of any status.
pub(super) struct ApiReply {
    pub(super) head: ResponseHead,
    /// The complete body; for a list that was split into items, the text around the items.
    pub(super) body: Vec<u8>,
}

impl ApiReply {
    pub(super) fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    pub(super) fn is_ok(&self) -> bool {
        (200..300).contains(&self.head.status)
    }
}

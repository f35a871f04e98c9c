//! A request body that repeats the check of the lease right before its bytes are sent.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use ecs_mesh_controller::{WriteObstacle, WritePermit};

/// The body of a write. Hyper asks for it once there is a connection, and sends it with the request's head in one piece. With
/// an obstacle nothing is sent.
pub(super) struct PermittedBody {
    bytes: Option<Bytes>,
    permit: WritePermit,
}

impl PermittedBody {
    pub(super) fn new(bytes: Vec<u8>, permit: WritePermit) -> Self {
        Self { bytes: Some(bytes.into()), permit }
    }
}

impl Body for PermittedBody {
    type Data = Bytes;
    type Error = WriteObstacle;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, WriteObstacle>>> {
        let checked = self.permit.check();
        Poll::Ready(self.bytes.take().map(|bytes| checked.map(|()| Frame::data(bytes))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }
}

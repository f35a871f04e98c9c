//! One exchange with Consul: sent in the scope, judged by its status, read into a type. "Not found" is also the answer
//! to a token of our own that the server does not know, so it counts only once it is confirmed.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use serde::de::{DeserializeOwned, IgnoredAny};

use super::errors::{self, ConsulCall};
use super::own_token::TokenCheck;
use super::scope::ConsulScope;
use ecs_mesh_control_plane::http::{ItemHandler, ResponseHead, ItemStream, HttpMethod, BodySink, StreamTransport};
use ecs_mesh_control_plane::MeshError;
use ecs_mesh_controller::Lease;

/// Beyond the lists that are taken apart as they come, answers are small.
const MAX_RESPONSE_BYTES: usize = 64 * 1024 * 1024;

/// The API of one part of Consul.
pub(super) struct ConsulApi<T> {
    transport: T,
    pub(super) scope: ConsulScope,
    pub(super) token_check: TokenCheck,
    lease: OnceLock<Arc<dyn Lease>>,
}

/// An answer of any status.
pub(super) struct ApiReply {
    pub(super) head: ResponseHead,
    /// All of it; of a list that was taken apart what is around the items.
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

/// Which list of an answer is taken apart.
#[derive(Clone, Copy)]
pub(super) enum ListLocation {
    /// The answer is the list.
    Whole,
    /// The lists are fields of the answer.
    Fields,
}

impl<T: StreamTransport> ConsulApi<T> {
    pub(super) fn new(transport: T, scope: ConsulScope) -> Self {
        Self { transport, scope, token_check: TokenCheck::default(), lease: OnceLock::new() }
    }

    /// From now on nothing is written without the lease, which only the first caller gives.
    pub(super) fn set_lease(&self, lease: Arc<dyn Lease>) {
        self.transport.set_lease(Arc::clone(&lease));
        let _ = self.lease.set(lease);
    }

    /// Sends, and takes the answer whole.
    pub(super) async fn send(&self, call: &ConsulCall<'_>, body: Option<Vec<u8>>) -> Result<ApiReply, MeshError> {
        // Removals wait for their turn and for one another, after whoever wants them has asked.
        if call.is_write() && self.lease.get().is_some_and(|lease| !lease.holds()) {
            return Err(call.without_lease());
        }
        let mut whole = WholeBody::default();
        let head = self.transport.stream(call.method, call.path, body, &mut whole).await;
        let head = head.map_err(|error| call.unanswered(&error))?;
        Ok(ApiReply { head, body: whole.0 })
    }

    /// Takes a list apart as it comes. The list is whole if this goes well: an answer that leaves something out, for
    /// whatever reason, is an error; of an item that is too large only that is said. `R` is what is around the items.
    pub(super) async fn list<R: DeserializeOwned>(
        &self,
        call: &ConsulCall<'_>,
        listed: ListLocation,
        each: ItemHandler<'_>,
    ) -> Result<R, MeshError> {
        let mut items = match listed {
            ListLocation::Whole => ItemStream::of_list(each),
            ListLocation::Fields => ItemStream::of_fields(each),
        };
        let head = self.transport.stream(call.method, call.path, None, &mut items).await;
        let head = head.map_err(|error| call.unanswered(&error))?;
        call.read(&ApiReply { head, body: items.rest() })
    }

    /// Asks for something that must be there.
    pub(super) async fn get<R: DeserializeOwned>(
        &self,
        path: &str,
        needs: &'static str,
    ) -> Result<R, MeshError> {
        let call = ConsulCall { method: HttpMethod::Get, path, needs };
        let reply = self.send(&call, None).await?;
        call.read(&reply)
    }

    /// Asks for something that may be missing. `None` is also what a server answers that does not know our own token: the
    /// caller confirms it.
    pub(super) async fn get_unconfirmed<R: DeserializeOwned>(
        &self,
        path: &str,
        needs: &'static str,
    ) -> Result<Option<R>, MeshError> {
        let call = ConsulCall { method: HttpMethod::Get, path, needs };
        let reply = self.send(&call, None).await?;
        if errors::is_not_found(&reply) { Ok(None) } else { call.read(&reply).map(Some) }
    }

    /// Asks for something that may be missing, and would be made then.
    pub(super) async fn get_optional<R: DeserializeOwned>(
        &self,
        path: &str,
        needs: &'static str,
    ) -> Result<Option<R>, MeshError> {
        let found = self.get_unconfirmed(path, needs).await?;
        if found.is_none() {
            self.check_own_token_cached().await?;
        }
        Ok(found)
    }

    /// Writes, and gives what the server says about it.
    pub(super) async fn put<R: DeserializeOwned>(
        &self,
        path: &str,
        needs: &'static str,
        body: Vec<u8>,
    ) -> Result<R, MeshError> {
        let call = ConsulCall { method: HttpMethod::Put, path, needs };
        let reply = self.send(&call, Some(body)).await?;
        call.read(&reply)
    }

    /// Removes. `false`: the answer is that it was not there (servers before 1.9 never answer that), which is also what a
    /// server answers that does not know our own token: the caller confirms it.
    pub(super) async fn delete_unconfirmed(
        &self,
        path: &str,
        needs: &'static str,
    ) -> Result<bool, MeshError> {
        let call = ConsulCall { method: HttpMethod::Delete, path, needs };
        let reply = self.send(&call, None).await?;
        if errors::is_not_found(&reply) {
            return Ok(false);
        }
        call.read::<IgnoredAny>(&reply).map(|_| true)
    }

    /// Removes what the next look lists anyway; `false` when it was not there.
    pub(super) async fn delete(&self, path: &str, needs: &'static str) -> Result<bool, MeshError> {
        if self.delete_unconfirmed(path, needs).await? {
            return Ok(true);
        }
        self.check_own_token().await?;
        // Another object may have this name by now, so the removal is not repeated.
        if self.get_unconfirmed::<IgnoredAny>(path, needs).await?.is_some() {
            return Err(errors::found_again(&ConsulCall { method: HttpMethod::Delete, path, needs }));
        }
        // The check before the last answer proves nothing about that answer.
        self.check_own_token().await?;
        Ok(false)
    }
}

#[derive(Default)]
struct WholeBody(Vec<u8>);

impl BodySink for WholeBody {
    fn take(&mut self, _head: &ResponseHead, segment: &[u8]) -> bool {
        let fits = self.0.len() + segment.len() <= MAX_RESPONSE_BYTES;
        if fits {
            self.0.extend_from_slice(segment);
        }
        fits
    }
}

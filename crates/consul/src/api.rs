//! Sends calls to Consul in the configured scope, checks their status and parses their responses.
//!
//! A server that does not know the operator's own token also responds "not found", so this response proves absence only
//! after it is confirmed.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use serde::de::{DeserializeOwned, IgnoredAny};
use tokio::time::Instant;

use super::errors::{self, ConsulCall};
use super::reply::ApiReply;
use super::scope::ConsulScope;
use ecs_mesh_api::ConsulConnection;
use ecs_mesh_control_plane::MeshError;
use ecs_mesh_control_plane::http::{
    BodySink, HttpMethod, ItemHandler, ItemStream, ResponseHead, StreamTransport,
};
use ecs_mesh_controller::{FencingToken, Lease};
use ecs_mesh_model::Timestamp;

/// The maximum size of a buffered response; long lists are split into items as they arrive.
const MAX_RESPONSE_BYTES: usize = 64 * 1024 * 1024;

/// The API of one scope of Consul.
pub(super) struct ConsulApi<T> {
    transport: T,
    pub(super) scope: ConsulScope,
    pub(super) token_check: TokenCheck,
    lease: OnceLock<Arc<dyn Lease>>,
    /// Distinguishes these servers and this scope from others, for fencing.
    store: Arc<str>,
}

/// The state of the own token's checks.
#[derive(Default)]
pub(super) struct TokenCheck {
    pub(super) begun: AtomicU64,
    /// The number and start of the last successful check.
    pub(super) last: tokio::sync::Mutex<Option<(u64, Instant)>>,
    /// When the token that was read last expires.
    pub(super) expiry: std::sync::Mutex<Option<Timestamp>>,
}

/// The location of the list that a response contains.
#[derive(Clone, Copy)]
pub(super) enum ListLocation {
    /// The response is the list.
    Root,
    /// The lists are fields of the response.
    Fields,
}

impl<T: StreamTransport> ConsulApi<T> {
    pub(super) fn new(transport: T, spec: &ConsulConnection) -> Self {
        let scope = ConsulScope::of(spec);
        let parts = [Some(spec.address.as_str()), scope.datacenter(), scope.partition()];
        let store = parts.map(Option::unwrap_or_default).join(" ").into();
        Self { transport, scope, token_check: TokenCheck::default(), lease: OnceLock::new(), store }
    }

    /// The name of these servers and this scope, for fencing.
    pub(super) fn store(&self) -> &Arc<str> {
        &self.store
    }

    /// The condition that writes can have: the lease, if it is kept here.
    pub(super) fn fencing_token(&self) -> Option<FencingToken> {
        let token = self.lease.get()?.term().fencing_token();
        token.filter(|token| token.store == self.store)
    }

    /// Sets the lease that is checked before each write. Only the first call has an effect.
    pub(super) fn set_lease(&self, lease: Arc<dyn Lease>) {
        self.transport.set_lease(Arc::clone(&lease));
        let _ = self.lease.set(lease);
    }

    /// Sends a call and buffers its response.
    pub(super) async fn send(
        &self,
        call: &ConsulCall<'_>,
        body: Option<Vec<u8>>,
    ) -> Result<ApiReply, MeshError> {
        // Removals wait for permits and for each other after their caller has checked the lease.
        if call.is_write()
            && let Some(obstacle) = self.lease.get().and_then(|lease| lease.obstacle())
        {
            return Err(call.obstructed(obstacle));
        }
        let mut buffer = BufferedBody::default();
        let head = self.transport.stream(call.method, call.path, body, &mut buffer).await;
        let head = head.map_err(|error| call.transport_error(error))?;
        Ok(ApiReply { head, body: buffer.0 })
    }

    /// Splits a list into items while it arrives. On success the list is complete: a filtered or truncated response is
    /// an error, and an oversized item is reported without its content. `R` is the text around the items.
    pub(super) async fn list<R: DeserializeOwned>(
        &self,
        call: &ConsulCall<'_>,
        location: ListLocation,
        on_item: ItemHandler<'_>,
    ) -> Result<R, MeshError> {
        let mut items = match location {
            ListLocation::Root => ItemStream::of_list(on_item),
            ListLocation::Fields => ItemStream::of_fields(on_item),
        };
        let head = self.transport.stream(call.method, call.path, None, &mut items).await;
        let head = head.map_err(|error| call.transport_error(error))?;
        call.read(&ApiReply { head, body: items.rest() })
    }

    /// Reads a resource that must exist.
    pub(super) async fn get<R: DeserializeOwned>(
        &self,
        path: &str,
        needs: &'static str,
    ) -> Result<R, MeshError> {
        let call = ConsulCall { method: HttpMethod::Get, path, needs };
        let reply = self.send(&call, None).await?;
        call.read(&reply)
    }

    /// Reads a resource that may be missing. `None` also results from a server that does not know the own token, so the
    /// caller must confirm it.
    pub(super) async fn get_unconfirmed<R: DeserializeOwned>(
        &self,
        path: &str,
        needs: &'static str,
    ) -> Result<Option<R>, MeshError> {
        let call = ConsulCall { method: HttpMethod::Get, path, needs };
        let reply = self.send(&call, None).await?;
        if errors::is_not_found(&reply) { Ok(None) } else { call.read(&reply).map(Some) }
    }

    /// Reads a resource that may be missing. `None` is confirmed by a recent check of the own token, which is sufficient
    /// before a create.
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

    /// Writes a resource and returns the server's response.
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

    /// Removes a resource; `false` if the server responds that it does not exist (servers before 1.9 never do). A server
    /// that does not know the own token responds the same, so the caller must confirm it.
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

    /// Removes a resource that the next pass lists anyway; `false` if it did not exist.
    pub(super) async fn delete(&self, path: &str, needs: &'static str) -> Result<bool, MeshError> {
        if self.delete_unconfirmed(path, needs).await? {
            return Ok(true);
        }
        self.check_own_token().await?;
        // Another object may have taken this name, so the removal is not repeated.
        if self.get_unconfirmed::<IgnoredAny>(path, needs).await?.is_some() {
            return Err(errors::found_again(&ConsulCall { method: HttpMethod::Delete, path, needs }));
        }
        // The earlier check proves nothing about the last response.
        self.check_own_token().await?;
        Ok(false)
    }
}

#[derive(Default)]
struct BufferedBody(Vec<u8>);

impl BodySink for BufferedBody {
    fn write(&mut self, _head: &ResponseHead, chunk: &[u8]) -> bool {
        let fits = self.0.len() + chunk.len() <= MAX_RESPONSE_BYTES;
        if fits {
            self.0.extend_from_slice(chunk);
        }
        fits
    }
}

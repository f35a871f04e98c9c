//! Sessions and the lock of one key, for a lease.
//!
//! Its calls take no part in the lease that they keep, so this client has a transport of its own, and no lease.
//!
//! Source: <https://developer.hashicorp.com/consul/docs/dynamic-app-config/sessions>.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

use super::api::ConsulApi;
use super::errors::{self, ConsulCall};
use super::reply::ApiReply;
use ecs_mesh_api::ConsulConnection;
use ecs_mesh_control_plane::MeshError;
use ecs_mesh_control_plane::http::{HttpMethod, StreamTransport, segment};
use ecs_mesh_controller::FencingToken;

const NEEDS_SESSION: &str = "session_prefix \"\" { policy = \"write\" }";
const NEEDS_KEY: &str = "key \"KEY\" { policy = \"write\" }";

/// In the text of a 500: the session has ended.
const INVALID_SESSION: &str = "invalid session";

/// The lock of one key.
pub struct ConsulSessionLock<T> {
    api: ConsulApi<T>,
    key: Arc<str>,
    /// The encoded path of the key.
    path: String,
}

/// A key and who has locked it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockedKey {
    /// The session that has locked it; `None` if it is free.
    pub session: Option<String>,
    /// The key's version.
    pub modify_index: u64,
    /// The key's value.
    pub value: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StoredKey {
    #[serde(default)]
    session: Option<String>,
    modify_index: u64,
    /// Base64; `null` without a value.
    value: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CreatedSession {
    #[serde(rename = "ID")]
    id: String,
}

impl<T: StreamTransport> ConsulSessionLock<T> {
    /// The lock of `key`. Of `spec`, the connection's own settings are not used. `transport` must not be shared with a client
    /// whose writes need the lease.
    pub fn new(transport: T, spec: &ConsulConnection, key: &str) -> Self {
        let segments: Vec<_> = key.split('/').map(segment).collect();
        Self {
            api: ConsulApi::new(transport, spec),
            key: key.into(),
            path: format!("/v1/kv/{}", segments.join("/")),
        }
    }

    /// The condition that writes to these servers can have while this session has the lock.
    pub fn fencing_token(&self, session: &str) -> FencingToken {
        let (store, lock) = (Arc::clone(self.api.store()), Arc::clone(&self.key));
        FencingToken { store, lock, holder: session.into() }
    }

    /// Creates a session that ends when it was not renewed for `ttl` (10 s to 24 h), at the latest after twice that. A lock
    /// that it leaves cannot be taken for `lock_delay`.
    ///
    /// The session has no health checks: those of the server that it was created at would end it with that server.
    ///
    /// # Errors
    /// As Consul responds.
    pub async fn create_session(
        &self,
        name: &str,
        ttl: Duration,
        lock_delay: Duration,
    ) -> Result<String, MeshError> {
        let path = self.api.scope.path("/v1/session/create", &[]);
        let body = json!({
            "Name": name,
            "TTL": format!("{}ms", ttl.as_millis()),
            "LockDelay": format!("{}ms", lock_delay.as_millis()),
            "Behavior": "release",
            // `Checks` for servers before 1.7, `NodeChecks` since.
            "Checks": [],
            "NodeChecks": [],
        });
        let created: CreatedSession =
            self.api.put(&path, NEEDS_SESSION, body.to_string().into_bytes()).await?;
        Ok(created.id)
    }

    /// Renews a session; `false` if it has ended.
    ///
    /// # Errors
    /// As Consul responds.
    pub async fn renew_session(&self, session: &str) -> Result<bool, MeshError> {
        let path = self.api.scope.path(&format!("/v1/session/renew/{session}"), &[]);
        let call = ConsulCall { method: HttpMethod::Put, path: &path, needs: NEEDS_SESSION };
        let reply = self.api.send(&call, None).await?;
        if errors::is_not_found(&reply) {
            return Ok(false);
        }
        call.read::<IgnoredAny>(&reply).map(|_| true)
    }

    /// Ends a session. A lock that it still has is freed after the lock-delay.
    ///
    /// # Errors
    /// As Consul responds.
    pub async fn destroy_session(&self, session: &str) -> Result<(), MeshError> {
        let path = self.api.scope.path(&format!("/v1/session/destroy/{session}"), &[]);
        let call = ConsulCall { method: HttpMethod::Put, path: &path, needs: NEEDS_SESSION };
        let reply = self.api.send(&call, None).await?;
        call.read::<IgnoredAny>(&reply).map(drop)
    }

    /// Locks the key and sets its value; `false` if another session has the lock, or its lock-delay is not over, or the own
    /// session has ended.
    ///
    /// # Errors
    /// As Consul responds.
    pub async fn acquire(&self, session: &str, value: Vec<u8>) -> Result<bool, MeshError> {
        self.put_key("acquire", session, value).await
    }

    /// Sets the key's value and frees it at once; `false` if the session does not have the lock.
    ///
    /// # Errors
    /// As Consul responds.
    pub async fn release(&self, session: &str, value: Vec<u8>) -> Result<bool, MeshError> {
        self.put_key("release", session, value).await
    }

    async fn put_key(&self, verb: &str, session: &str, value: Vec<u8>) -> Result<bool, MeshError> {
        let path = self.api.scope.path(&self.path, &[(verb, session)]);
        let call = ConsulCall { method: HttpMethod::Put, path: &path, needs: NEEDS_KEY };
        let reply = self.api.send(&call, Some(value)).await?;
        if is_invalid_session(&reply) {
            return Ok(false);
        }
        call.read(&reply)
    }

    /// Reads the key as it was after every write that was answered before. `None` if it does not exist, or if the server does
    /// not know the operator's own token.
    ///
    /// # Errors
    /// As Consul responds, or if the value cannot be read.
    pub async fn read(&self) -> Result<Option<LockedKey>, MeshError> {
        // A read by the default mode may be stale for a moment after the servers have elected another leader.
        let path = self.api.scope.path(&self.path, &[("consistent", "")]);
        let keys: Option<Vec<StoredKey>> = self.api.get_optional(&path, NEEDS_KEY).await?;
        let Some(key) = keys.and_then(|keys| keys.into_iter().next()) else { return Ok(None) };
        let value = STANDARD.decode(key.value.unwrap_or_default()).map_err(|_| {
            let call = ConsulCall { method: HttpMethod::Get, path: &path, needs: NEEDS_KEY };
            call.unreadable(b"", "the key's value is not Base64")
        })?;
        let session = key.session.filter(|session| !session.is_empty());
        Ok(Some(LockedKey { session, modify_index: key.modify_index, value }))
    }
}

fn is_invalid_session(reply: &ApiReply) -> bool {
    reply.head.status == 500 && reply.text().contains(INVALID_SESSION)
}

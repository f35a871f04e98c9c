//! Checks the operator's own token: only while the servers know it does "not found" prove absence.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use serde::Deserialize;
use tokio::time::{Duration, Instant};

use super::api::ConsulApi;
use super::errors::{self, ConsulCall};
use super::objects::ObjectLink;
use super::reply::ApiReply;
use ecs_mesh_control_plane::MeshError;
use ecs_mesh_control_plane::http::{HttpMethod, StreamTransport};
use ecs_mesh_model::Timestamp;

/// A successful check confirms empty lists for this long, since servers rarely return one to an unknown token.
const TOKEN_CHECK_TTL: Duration = Duration::from_secs(10);

const PATH: &str = "/v1/acl/token/self";
const NEEDS: &str = "no permission";

/// The operator's own token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct OwnToken {
    /// The accessor.
    #[serde(rename = "AccessorID")]
    pub accessor: String,
    /// The description.
    pub description: String,
    /// The policies.
    pub policies: Vec<ObjectLink>,
    /// The roles.
    pub roles: Vec<ObjectLink>,
    /// When the token expires (RFC 3339); `None` if it does not.
    ///
    /// Source: <https://developer.hashicorp.com/consul/api-docs/acl/tokens#read-self-token>.
    pub expiration_time: Option<String>,
}

impl OwnToken {
    /// Whether the token has all permissions.
    pub fn is_management(&self) -> bool {
        self.policies.iter().any(|policy| policy.name == "global-management")
    }

    /// When the token expires; `None` if it does not, or if its time is unreadable.
    pub fn expiry(&self) -> Option<Timestamp> {
        self.expiration_time.as_deref().and_then(Timestamp::parse)
    }
}

impl<T: StreamTransport> ConsulApi<T> {
    /// Reads the own token.
    pub(super) async fn own_token(&self) -> Result<OwnToken, MeshError> {
        let path = self.own_token_path();
        let call = ConsulCall { method: HttpMethod::Get, path: &path, needs: NEEDS };
        let reply = self.send(&call, None).await?;
        self.read_own_token(&call, &reply)
    }

    /// When the token that was read last expires; `None` if it does not.
    pub(super) fn token_expiry(&self) -> Option<Timestamp> {
        *self.token_check.expiry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_own_token(&self, call: &ConsulCall<'_>, reply: &ApiReply) -> Result<OwnToken, MeshError> {
        if errors::is_not_found(reply) {
            return Err(errors::own_token_unknown(call));
        }
        let token: OwnToken = call.read(reply)?;
        *self.token_check.expiry.lock().unwrap_or_else(PoisonError::into_inner) = token.expiry();
        Ok(token)
    }

    /// The path has neither partition nor namespace, since the secret identifies the token. It has the datacenter, since
    /// a token may be known in one datacenter and not in another.
    fn own_token_path(&self) -> String {
        self.scope.datacenter_path(PATH)
    }

    /// Fails unless the own token is valid according to a check that starts now or later: an earlier check proves nothing
    /// about a later response. Callers during a check share the next one.
    pub(super) async fn check_own_token(&self) -> Result<(), MeshError> {
        let previous = self.token_check.begun.load(Ordering::Relaxed);
        self.check_own_token_unless(|check, _| check > previous).await
    }

    /// Fails unless the own token is valid according to a recent check.
    pub(super) async fn check_own_token_cached(&self) -> Result<(), MeshError> {
        self.check_own_token_unless(|_, began| began.elapsed() < TOKEN_CHECK_TTL).await
    }

    /// Checks the own token unless the last check is sufficient. If ACLs are disabled, every token is valid.
    async fn check_own_token_unless(
        &self,
        is_sufficient: impl FnOnce(u64, Instant) -> bool,
    ) -> Result<(), MeshError> {
        // Concurrent callers wait for the result.
        let mut last = self.token_check.last.lock().await;
        if last.is_some_and(|(check, began)| is_sufficient(check, began)) {
            return Ok(());
        }
        *last = None;
        let (check, began) = (self.token_check.begun.fetch_add(1, Ordering::Relaxed) + 1, Instant::now());
        let path = self.own_token_path();
        let call = ConsulCall { method: HttpMethod::Get, path: &path, needs: NEEDS };
        let reply = self.send(&call, None).await?;
        if !errors::acls_disabled(&reply) {
            self.read_own_token(&call, &reply)?;
        }
        *last = Some((check, began));
        Ok(())
    }
}

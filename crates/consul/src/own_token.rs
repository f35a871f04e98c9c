//! Our own token, as the servers know it: only while it is known there does a missing thing prove that it is gone.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;
use tokio::time::{Duration, Instant};

use super::api::{ConsulApi, ApiReply};
use super::errors::{self, ConsulCall};
use super::objects::ObjectLink;
use ecs_mesh_control_plane::http::{HttpMethod, StreamTransport};
use ecs_mesh_control_plane::{MeshError, MeshErrorKind};

/// Empty lists, which a token that is not known seldom gets, ask once in so long.
const TOKEN_CHECK_TTL: Duration = Duration::from_secs(10);

const PATH: &str = "/v1/acl/token/self";
const NEEDS: &str = "nothing but to be valid";

/// What the servers say of our own token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct OwnToken {
    /// Its accessor.
    #[serde(rename = "AccessorID")]
    pub accessor: String,
    /// Its description.
    pub description: String,
    /// Its policies.
    pub policies: Vec<ObjectLink>,
    /// Its roles.
    pub roles: Vec<ObjectLink>,
}

impl OwnToken {
    /// Whether it may do everything.
    pub fn is_management(&self) -> bool {
        self.policies.iter().any(|policy| policy.name == "global-management")
    }
}

/// The checks of our token.
#[derive(Default)]
pub(super) struct TokenCheck {
    begun: AtomicU64,
    /// The last that found it good, by its number, and when it began.
    last: tokio::sync::Mutex<Option<(u64, Instant)>>,
}

impl<T: StreamTransport> ConsulApi<T> {
    /// Our own token.
    pub(super) async fn own_token(&self) -> Result<OwnToken, MeshError> {
        let path = self.own_token_path();
        let call = ConsulCall { method: HttpMethod::Get, path: &path, needs: NEEDS };
        own_token_in(&call, &self.send(&call, None).await?)
    }

    /// It is found by its secret, so neither partition nor namespace is asked for; but by the servers that all else is
    /// asked of, since a token may be known in one datacenter and not in another.
    fn own_token_path(&self) -> String {
        self.scope.datacenter_path(PATH)
    }

    /// An error unless our own token is good, by a check that begins now or later: one that was good a moment ago proves
    /// nothing of an answer since. Those who come while one is under way share the next.
    pub(super) async fn check_own_token(&self) -> Result<(), MeshError> {
        let asked = self.token_check.begun.load(Ordering::Relaxed);
        self.record_own_token_check(|check, _| check > asked).await
    }

    /// An error unless our own token is good, as of a short while ago at the most.
    pub(super) async fn check_own_token_cached(&self) -> Result<(), MeshError> {
        self.record_own_token_check(|_, began| began.elapsed() < TOKEN_CHECK_TTL).await
    }

    /// Where ACLs are off nothing is kept from anybody, and any is good.
    async fn record_own_token_check(
        &self,
        is_enough: impl FnOnce(u64, Instant) -> bool,
    ) -> Result<(), MeshError> {
        // Those who come meanwhile wait for the answer.
        let mut last = self.token_check.last.lock().await;
        if last.is_some_and(|(check, began)| is_enough(check, began)) {
            return Ok(());
        }
        *last = None;
        let (check, began) = (self.token_check.begun.fetch_add(1, Ordering::Relaxed) + 1, Instant::now());
        let path = self.own_token_path();
        let call = ConsulCall { method: HttpMethod::Get, path: &path, needs: NEEDS };
        let reply = self.send(&call, None).await?;
        if !errors::acls_disabled(&reply) {
            own_token_in(&call, &reply)?;
        }
        *last = Some((check, began));
        Ok(())
    }
}

fn own_token_in(call: &ConsulCall<'_>, reply: &ApiReply) -> Result<OwnToken, MeshError> {
    if errors::is_not_found(reply) {
        let message = format!("{call}: {}", errors::not_accepted());
        return Err(errors::error(MeshErrorKind::Forbidden, message));
    }
    call.read(reply)
}

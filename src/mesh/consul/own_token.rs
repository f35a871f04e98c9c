//! Our own token, as the servers know it: only while it is known there does a missing thing prove that it is gone.

use serde::Deserialize;
use tokio::time::{Duration, Instant};

use super::api::{Api, Reply};
use super::errors::{self, Call};
use super::objects::Link;
use crate::mesh::http::{Method, StreamTransport};
use crate::mesh::{MeshError, MeshErrorKind};

/// A burst of missing things asks once.
const KNOWN_GOOD_FOR: Duration = Duration::from_secs(10);

/// It is found by its secret: neither partition nor namespace is asked for.
const CALL: Call<'_> =
    Call { method: Method::Get, path: "/v1/acl/token/self", needs: "nothing but to be valid" };

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
    pub policies: Vec<Link>,
    /// Its roles.
    pub roles: Vec<Link>,
}

impl OwnToken {
    /// Whether it may do everything.
    pub fn is_management(&self) -> bool {
        self.policies.iter().any(|policy| policy.name == "global-management")
    }
}

/// When our token was last seen to be good.
#[derive(Default)]
pub(super) struct SeenGood(tokio::sync::Mutex<Option<Instant>>);

impl<T: StreamTransport> Api<T> {
    /// Our own token.
    pub(super) async fn own_token(&self) -> Result<OwnToken, MeshError> {
        own_token_in(&self.send(&CALL, None).await?)
    }

    /// An error unless our own token is good, as of a short while ago at the most. Where ACLs are off nothing is kept
    /// from anybody, and any is.
    pub(super) async fn own_token_is_good(&self) -> Result<(), MeshError> {
        // Those who come meanwhile wait for the answer.
        let mut seen = self.seen_good.0.lock().await;
        if seen.is_some_and(|seen| seen.elapsed() < KNOWN_GOOD_FOR) {
            return Ok(());
        }
        *seen = None;
        let reply = self.send(&CALL, None).await?;
        if !errors::has_no_acls(&reply) {
            own_token_in(&reply)?;
        }
        *seen = Some(Instant::now());
        Ok(())
    }
}

fn own_token_in(reply: &Reply) -> Result<OwnToken, MeshError> {
    if errors::says_missing(reply) {
        let message = format!("{CALL}: {}", errors::not_accepted());
        return Err(errors::error(MeshErrorKind::Forbidden, message));
    }
    CALL.read(reply)
}

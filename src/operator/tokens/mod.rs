//! Data plane tokens of one control plane: issues, rotates and revokes them in passes, at start, after manifests changed,
//! when a token is due, at each sweep interval, and with backoff after a failure.
//!
//! | file | part |
//! |---|---|
//! | `pass` | one pass: read stores and lists, plan, change |
//! | `apply` | one change of a stored token |
//! | `former` | stored tokens below no path |
//! | `minted` | tokens that are not stored yet |
//! | `report` | audit trail, warnings, the plan of a dry run |

mod apply;
mod former;
mod minted;
mod pass;
mod report;
#[cfg(test)]
#[cfg(feature = "sandbox")]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::control_plane_worker::ControlPlaneWorker;
use crate::telemetry::state::TokenStatus;
use ecs_mesh_api::TokenStoreKind;
use ecs_mesh_api::manifests::Binding;
use ecs_mesh_aws::metered_token_store::{MeteredTokenStore, TokenStoreRates};
use ecs_mesh_aws::sdk::AwsClients;
use ecs_mesh_aws::token_store::TokenStore;
use ecs_mesh_controller::{ActiveWarnings, Backoff, Heartbeat, PassRequests, ShutdownSummary};
use ecs_mesh_core::plan::{GuardState, RemovalGuard};
use ecs_mesh_core::tokens::EntryName;
use ecs_mesh_kuma::TokenIssuer;
use ecs_mesh_model::{MeshName, Timestamp};

use former::FormerTokens;
use minted::MintedTokens;
use pass::{PassEnd, TokenPass};

/// Time limit of each step of a pass; the pass is then cancelled and repeated later. A pass as a whole takes as long as the
/// rates of the stores need for the number of tokens.
const STEP_TIMEOUT: Duration = Duration::from_mins(2);
/// Backoff while passes fail.
const RETRY: Backoff = Backoff { min: Duration::from_secs(2), max: Duration::from_mins(5) };
/// Longest time between passes while a token is due later.
const MAX_PAUSE: Duration = Duration::from_hours(1);
/// Passes in a row that change something: what is written and not shown would be written permanently.
const MAX_CHANGED_PASSES: usize = 5;

/// Where tokens are stored. Clones share the rates of the stores.
#[derive(Clone)]
pub struct TokenStores {
    secrets_manager: MeteredTokenStore,
    parameter_store: MeteredTokenStore,
}

impl TokenStores {
    /// These stores, called below AWS's quotas.
    pub fn new(secrets_manager: Arc<dyn TokenStore>, parameter_store: Arc<dyn TokenStore>) -> Self {
        Self {
            secrets_manager: MeteredTokenStore::new(secrets_manager, TokenStoreRates::SECRETS_MANAGER),
            parameter_store: MeteredTokenStore::new(parameter_store, TokenStoreRates::PARAMETER_STORE),
        }
    }

    /// The stores of an AWS account.
    pub fn of_aws(aws: &AwsClients) -> Self {
        Self::new(Arc::new(aws.secret_store.clone()), Arc::new(aws.parameter_store.clone()))
    }

    fn of(&self, kind: TokenStoreKind) -> &MeteredTokenStore {
        match kind {
            TokenStoreKind::SecretsManager => &self.secrets_manager,
            TokenStoreKind::ParameterStore => &self.parameter_store,
        }
    }
}

/// The tokens of one control plane, between two passes.
pub(super) struct TokenTarget {
    issuer: Arc<dyn TokenIssuer>,
    requests: PassRequests,
    /// Notified at each step of a pass.
    progress: Notify,
    warnings: ActiveWarnings<String, String>,
    state: Mutex<TokenTargetState>,
}

#[derive(Default)]
struct TokenTargetState {
    status: TokenStatus,
    /// By binding.
    guards: BTreeMap<Arc<str>, RemovalGuard<Arc<str>>>,
    /// Since when the manifests do not declare a stored token, in the time for which they were valid.
    undeclared_since: BTreeMap<EntryName, Duration>,
    /// When ids were last taken from the list of a mesh.
    pruned: BTreeMap<MeshName, Timestamp>,
    /// Tokens that could not be stored yet.
    minted: MintedTokens,
    /// The last look for tokens below no path.
    former: Option<FormerTokens>,
}

impl TokenTarget {
    pub(super) fn new(issuer: Arc<dyn TokenIssuer>) -> Self {
        Self {
            issuer,
            requests: PassRequests::default(),
            progress: Notify::new(),
            warnings: ActiveWarnings::default(),
            state: Mutex::default(),
        }
    }

    /// Requests a pass.
    pub(super) fn soon(&self) {
        self.requests.request();
    }

    /// Whether every requested pass has ended.
    pub(super) fn is_settled(&self) -> bool {
        self.requests.is_settled()
    }

    /// The status, for metrics.
    pub(super) fn status(&self) -> TokenStatus {
        self.with(|state| state.status.clone())
    }

    /// The state of a binding's guard, while it holds revocations or has admitted some.
    pub(super) fn guard_state(
        &self,
        binding: &Binding,
        released: bool,
        now: Timestamp,
    ) -> Option<GuardState> {
        let policy = &binding.spec.cleanup.guard;
        let state = self.with(|inner| Some(inner.guards.get(&binding.name)?.state(policy, released, now)))?;
        (state.held > 0 || state.admitted > 0).then_some(state)
    }

    fn with<R>(&self, work: impl FnOnce(&mut TokenTargetState) -> R) -> R {
        // Each change leaves the data consistent.
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The loop of one control plane's tokens.
pub(super) struct TokenLoop {
    pub(super) context: Arc<Context>,
    pub(super) worker: Arc<ControlPlaneWorker>,
    pub(super) target: Arc<TokenTarget>,
    pub(super) stores: TokenStores,
}

impl TokenLoop {
    /// The loop of a worker, if its control plane issues tokens.
    pub(super) fn of(context: &Arc<Context>, worker: &Arc<ControlPlaneWorker>) -> Option<Self> {
        Some(Self {
            target: Arc::clone(worker.tokens.as_ref()?),
            stores: context.process.token_stores.clone(),
            context: Arc::clone(context),
            worker: Arc::clone(worker),
        })
    }

    /// Runs passes until `stop`; a pass in progress then has `graceful_shutdown_timeout` to end.
    pub(super) async fn run(
        self,
        heartbeat: Heartbeat,
        graceful_shutdown_timeout: Duration,
        stop: CancellationToken,
    ) -> ShutdownSummary {
        let seed = self.context.process.seed.wrapping_add(7);
        let (mut retry_delays, mut changed_passes) = (None, 0);
        while !stop.is_cancelled() {
            let requested = self.target.requests.begin();
            let shutdown_timeout = async {
                stop.cancelled().await;
                tokio::time::sleep(graceful_shutdown_timeout).await;
            };
            let pass = TokenPass { of: &self, stop: &stop, in_force: self.context.manifests.in_force() };
            let ended = tokio::select! {
                biased;
                ended = pass.run() => ended,
                () = self.stalled(&heartbeat) => PassEnd::Failed,
                () = shutdown_timeout => break,
            };
            let pause = match ended {
                // The change may make the next step due.
                PassEnd::Changed if changed_passes < MAX_CHANGED_PASSES => {
                    changed_passes += 1;
                    continue;
                }
                PassEnd::Superseded => continue,
                PassEnd::Changed | PassEnd::Failed => {
                    retry_delays.get_or_insert_with(|| RETRY.start(seed)).after_failure()
                }
                PassEnd::Settled(due) => {
                    retry_delays = None;
                    let longest = self.context.manifests.sweep_interval().max(RETRY.max).min(MAX_PAUSE);
                    let until_due = due.map(|due| self.context.wall().age_at(due));
                    until_due.map_or(longest, |wait| wait.min(longest))
                }
            };
            changed_passes = 0;
            self.target.requests.complete(requested);
            heartbeat.expect_within(pause + STEP_TIMEOUT);
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = self.target.requests.wait() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        heartbeat.unregister();
        ShutdownSummary::default()
    }

    /// Ends when a step of the pass takes too long.
    async fn stalled(&self, heartbeat: &Heartbeat) {
        loop {
            heartbeat.expect_within(2 * STEP_TIMEOUT);
            if tokio::time::timeout(STEP_TIMEOUT, self.target.progress.notified()).await.is_err() {
                return;
            }
        }
    }

    fn is_dry_run(&self) -> bool {
        self.context.process.dry_run.is_some()
    }
}

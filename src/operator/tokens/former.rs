//! Stored tokens of this operator below no `tokens.path`: those from before a change of `path` or `store`, which tasks may
//! still read. They are neither rotated nor revoked, so they are reported, once until they change.

use std::collections::BTreeSet;
use std::time::Duration;

use super::pass::TokenPass;
use super::report::TokenReporter;
use ecs_mesh_api::TokenStoreKind;
use ecs_mesh_aws::aws::AwsError;
use ecs_mesh_aws::metered_token_store::MeteredTokenStore;
use ecs_mesh_core::tokens::{EntryName, OPERATOR_TAG};
use ecs_mesh_model::Timestamp;

/// The state of these tokens in metrics.
const FORMER: &str = "former";

/// Shortest time between two looks at the same manifests: each lists everything that this operator has ever stored.
const LOOK_INTERVAL: Duration = Duration::from_hours(1);

/// The last look.
#[derive(Clone, Copy, Debug)]
pub(super) struct FormerTokens {
    /// The manifests that it compared with.
    generation: u64,
    at: Timestamp,
    found: usize,
}

impl TokenPass<'_> {
    /// Looks for these tokens where a look is due. Returns their state and number.
    pub(super) async fn count_former(&self) -> Option<(&'static str, usize)> {
        let (context, set) = (&self.of.context, &self.in_force.set);
        let issuing = || set.bindings.values().filter(|binding| binding.spec.tokens.path.is_some());
        // The stores are those of the account and Region: one control plane looks for all. A manifest in error may have the
        // path.
        let looking = issuing().map(|binding| &*binding.spec.control_plane).min();
        if looking != Some(&*self.of.worker.name) || !set.complete {
            return None;
        }
        let (now, generation) = (context.now(), set.generation);
        let last = self.of.target.with(|inner| inner.former);
        let is_due =
            |last: &FormerTokens| last.generation != generation || last.at.age_at(now) >= LOOK_INTERVAL;
        if let Some(last) = last.filter(|last| !is_due(last)) {
            return Some((FORMER, last.found));
        }
        let used: BTreeSet<TokenStoreKind> = issuing().map(|binding| binding.spec.tokens.store).collect();
        let reporter = TokenReporter { of: self.of };
        let mut found = 0;
        for kind in [TokenStoreKind::SecretsManager, TokenStoreKind::ParameterStore] {
            self.of.target.progress.notify_one();
            let store = self.of.stores.of(kind);
            let subject = format!("former tokens in {}", kind.as_str());
            match self.list_of_operator(store).await {
                Ok(names) => {
                    reporter.readable(&subject);
                    let stored = names.into_iter().map(|name| EntryName { store: kind, name: name.into() });
                    let former: Vec<EntryName> =
                        stored.filter(|name| !issuing().any(|binding| name.is_of(binding))).collect();
                    reporter.former(kind, &former);
                    found += former.len();
                }
                // No binding has the store, and the operator needs no permission for it.
                Err(_) if !used.contains(&kind) => {}
                Err(error) => {
                    reporter.unreadable(&subject, &error.to_string(), false);
                    return last.map(|last| (FORMER, last.found));
                }
            }
        }
        self.of.target.with(|inner| inner.former = Some(FormerTokens { generation, at: now, found }));
        Some((FORMER, found))
    }

    /// All that is stored with the operator's id, or with the one that it had before.
    async fn list_of_operator(&self, store: &MeteredTokenStore) -> Result<BTreeSet<String>, AwsError> {
        let process = &self.of.context.process;
        let mut names = store.list_tagged(OPERATOR_TAG, process.id.as_str()).await?;
        if let Some(previous) = &process.previous_id {
            names.extend(store.list_tagged(OPERATOR_TAG, previous.as_str()).await?);
        }
        Ok(names)
    }
}

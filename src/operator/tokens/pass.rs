//! One pass over the tokens of a control plane: reads the stores and the lists of revoked tokens, plans each token, and
//! makes the changes. Writes of tokens come first, then those of the lists.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::TokenLoop;
use super::apply::{TokenApply, TokenChangeError};
use super::report::{TokenReporter, TokenSubject};
use crate::operator::context::ManifestsInForce;
use crate::operator::dry_run::TaskPlan;
use crate::telemetry::state::TokenStatus;
use ecs_mesh_api::manifests::Binding;
use ecs_mesh_aws::token_store::EntryDescription;
use ecs_mesh_control_plane::{CallError, MeshErrorKind};
use ecs_mesh_controller::WriteObstacle;
use ecs_mesh_core::intent::RegistrationId;
use ecs_mesh_core::plan::report::{BlockedBy, Change};
use ecs_mesh_core::plan::{GuardDecision, OwnedCount, RemovalBasis, RemovalRequest};
use ecs_mesh_core::tokens::{
    DesiredToken, EntryInput, EntryName, EntryPlan, IssuedToken, RevocationList, StoredEntry, TokenAction,
    TokenId, TokenOwner, TokenRecord, TokenState, WantedToken, desired_tokens, plan_entry,
};
use ecs_mesh_model::{MeshName, Timestamp};

/// The state of a token whose issue, storage or revocation failed.
const FAILED: &str = "failed";
/// Shortest time between two writes of a list that only take ids from it: each write may lose an id that another writer adds
/// at the same time.
const PRUNE_INTERVAL: Duration = Duration::from_hours(24);

/// How a pass ended.
pub(super) enum PassEnd {
    /// Something was changed: another pass is due.
    Changed,
    /// Nothing is left to do until then.
    Settled(Option<Timestamp>),
    /// Other manifests are in force.
    Superseded,
    /// Something failed, or may not be written now.
    Failed,
}

/// One pass.
pub(super) struct TokenPass<'a> {
    pub(super) of: &'a TokenLoop,
    pub(super) stop: &'a CancellationToken,
    /// The manifests of the whole pass.
    pub(super) in_force: Arc<ManifestsInForce>,
}

/// A token with what is known of it.
struct TokenEntry {
    name: EntryName,
    binding: Arc<Binding>,
    wanted: Option<WantedToken>,
    settled: bool,
    stored: StoredEntry,
}

impl TokenEntry {
    fn record(&self) -> Option<&TokenRecord> {
        self.stored.record()
    }

    fn workload(&self) -> Arc<str> {
        let owner =
            self.wanted.as_ref().map(|wanted| &wanted.owner).or(self.record().map(|record| &record.owner));
        owner.map_or_else(|| Arc::clone(&self.name.name), |owner| Arc::clone(&owner.workload))
    }
}

/// Changes of the lists of revoked tokens, and the entries that they belong to.
#[derive(Default)]
struct ListChange {
    add: BTreeMap<TokenId, (usize, bool)>,
    remove: BTreeMap<TokenId, usize>,
    /// Whether the tags of an entry need the room of the removed ids.
    makes_room: bool,
}

/// The counts of a pass.
#[derive(Default)]
struct PassState {
    status: TokenStatus,
    /// The states of the entries, which are counted once the lists are changed.
    labels: BTreeMap<usize, &'static str>,
    /// Entries with changes of the lists that failed.
    unlisted: BTreeSet<usize>,
    due: Option<Timestamp>,
    changed: bool,
    failed: bool,
    plan: TaskPlan,
}

impl PassState {
    fn count(&mut self, state: &'static str) {
        *self.status.tokens.entry(state).or_default() += 1;
    }

    fn due_at(&mut self, due: Option<Timestamp>) {
        self.due = self.due.into_iter().chain(due).min();
    }
}

impl TokenPass<'_> {
    pub(super) async fn run(&self) -> PassEnd {
        let (context, worker) = (&self.of.context, &self.of.worker);
        let set = &self.in_force.set;
        let of_control_plane = |binding: &&Arc<Binding>| *binding.spec.control_plane == *worker.name;
        let bindings = set.bindings.values().filter(of_control_plane);
        let bindings: Vec<_> =
            bindings.filter(|binding| binding.spec.tokens.path.is_some()).cloned().collect();
        let mut state = PassState::default();
        let reporter = TokenReporter { of: self.of };
        if bindings.is_empty() {
            reporter.finish(state.status, state.plan);
            return PassEnd::Settled(None);
        }
        // A copy without the lease reads nothing: the leader does.
        if !self.of.is_dry_run() && context.process.lease.obstacle() == Some(WriteObstacle::NotLeader) {
            reporter.finish(state.status, state.plan);
            return PassEnd::Failed;
        }
        if let Err(error) = worker.ensure_supported().await {
            reporter.unreadable("version", &describe(&error), !is_unsupported(&error));
            return PassEnd::Failed;
        }
        reporter.readable("version");
        let desired = desired_tokens(set, &worker.name);
        let entries = self.gather(&bindings, &desired, &mut state).await;
        let lists = self.read_lists(&entries, &mut state).await;
        let mut changes: BTreeMap<MeshName, ListChange> = BTreeMap::new();
        for (index, entry) in entries.iter().enumerate() {
            if self.stop.is_cancelled() {
                return PassEnd::Failed;
            }
            if self.is_superseded() {
                return PassEnd::Superseded;
            }
            self.of.target.progress.notify_one();
            self.step(index, entry, &entries, &lists, &mut changes, &mut state).await;
        }
        if self.change_lists(&entries, changes, &mut state).await.is_break() {
            return PassEnd::Superseded;
        }
        let names: BTreeSet<&EntryName> = entries.iter().map(|entry| &entry.name).collect();
        self.of.target.with(|inner| {
            inner.undeclared_since.retain(|name, _| names.contains(name));
            // An entry that could not be read is declared all the same; a file in error may declare others.
            inner.minted.retain(|name| !set.complete || desired.contains_key(name));
        });
        for (index, label) in std::mem::take(&mut state.labels) {
            let is_clear = !matches!(label, "conflict" | "held" | FAILED) && !state.unlisted.contains(&index);
            if let Some(entry) = entries.get(index).filter(|_| is_clear) {
                reporter.clear(&entry.name);
            }
            state.count(label);
        }
        state.status.tokens.extend(self.count_former().await);
        reporter.finish(state.status, state.plan);
        match (state.changed, state.failed) {
            (_, true) => PassEnd::Failed,
            (true, false) => PassEnd::Changed,
            (false, false) => PassEnd::Settled(state.due),
        }
    }

    /// Reads what is stored below the bindings' paths, and under the declared names.
    async fn gather(
        &self,
        bindings: &[Arc<Binding>],
        desired: &BTreeMap<EntryName, DesiredToken>,
        state: &mut PassState,
    ) -> Vec<TokenEntry> {
        let (context, worker) = (&self.of.context, &self.of.worker);
        let reporter = TokenReporter { of: self.of };
        let in_force = &self.in_force;
        let now = context.now();
        let release = self.of.target.issuer.token_release();
        let mut entries = Vec::new();
        for binding in bindings {
            let Some(path) = &binding.spec.tokens.path else { continue };
            let kind = binding.spec.tokens.store;
            let store = self.of.stores.of(kind);
            let of_binding = desired.iter().filter(|(_, token)| token.binding.name == binding.name);
            let declared: BTreeMap<&EntryName, &DesiredToken> = of_binding.collect();
            let mut names: BTreeSet<EntryName> = declared.keys().map(|name| (*name).clone()).collect();
            self.of.target.progress.notify_one();
            match store.list(path).await {
                Ok(listed) => {
                    reporter.readable(path);
                    names.extend(listed.into_iter().map(|name| EntryName { store: kind, name: name.into() }));
                }
                Err(error) => {
                    state.failed = true;
                    reporter.unreadable(path, &error.to_string(), true);
                }
            }
            // Documents that have just left count as if they were there.
            let settle = binding.spec.cleanup.settle.0;
            let retained = in_force.history.retained(&in_force.set, settle, now);
            let retained = retained.map(|set| desired_tokens(&set, &worker.name)).unwrap_or_default();
            let may_withdraw = in_force.set.complete && !in_force.history.is_starting(settle, now);
            for name in names {
                self.of.target.progress.notify_one();
                let stored = match store.describe(&name.name).await {
                    Ok(described) => stored_entry(described.as_ref()),
                    Err(error) => {
                        state.failed = true;
                        state.count(FAILED);
                        reporter.unreadable(&name.name, &error.to_string(), true);
                        continue;
                    }
                };
                reporter.readable(&name.name);
                let wanted = declared.get(&name).map(|token| WantedToken {
                    owner: TokenOwner {
                        operator: context.process.id.clone(),
                        control_plane: Arc::clone(&worker.name),
                        mesh: token.mesh().clone(),
                        workload: Arc::clone(&token.workload),
                    },
                    identity: token.identity(release),
                    terms: token.binding.spec.tokens.clone(),
                });
                let settled = may_withdraw && !retained.contains_key(&name);
                entries.push(TokenEntry { name, binding: Arc::clone(binding), wanted, settled, stored });
            }
        }
        entries
    }

    /// Reads the lists of revoked tokens of the meshes with stored tokens. One that cannot be read is missing.
    async fn read_lists(
        &self,
        entries: &[TokenEntry],
        state: &mut PassState,
    ) -> BTreeMap<MeshName, RevocationList> {
        let worker = &self.of.worker;
        let ours = entries.iter().filter_map(|entry| entry.record()).filter(|record| self.is_ours(record));
        let meshes: BTreeSet<&MeshName> = ours.map(|record| &record.owner.mesh).collect();
        let reporter = TokenReporter { of: self.of };
        let mut lists = BTreeMap::new();
        for mesh in meshes {
            self.of.target.progress.notify_one();
            let subject = format!("revoked tokens of mesh {mesh}");
            match worker.call(self.of.target.issuer.revocations(mesh)).await {
                Ok(list) => {
                    reporter.readable(&subject);
                    lists.insert(mesh.clone(), list);
                }
                Err(error) => {
                    state.failed = true;
                    reporter.unreadable(&subject, &describe(&error), true);
                }
            }
        }
        lists
    }

    /// Plans one token and makes its changes; those of the list are collected.
    async fn step(
        &self,
        index: usize,
        entry: &TokenEntry,
        entries: &[TokenEntry],
        lists: &BTreeMap<MeshName, RevocationList>,
        changes: &mut BTreeMap<MeshName, ListChange>,
        state: &mut PassState,
    ) {
        let (context, worker) = (&self.of.context, &self.of.worker);
        let empty = RevocationList::default();
        // Tokens of others need no list.
        let ours = entry.record().filter(|record| self.is_ours(record));
        let revoked = ours.map_or(Some(&empty), |record| lists.get(&record.owner.mesh));
        let planned = plan_entry(&EntryInput {
            operator: &context.process.id,
            previous: context.process.previous_id.as_ref(),
            control_plane: &worker.name,
            wanted: entry.wanted.as_ref(),
            settled: entry.settled,
            stored: &entry.stored,
            revoked,
            now: context.wall(),
        });
        let Some(planned) = planned else { return };
        if entry.wanted.is_some() {
            self.of.target.with(|inner| {
                if let Some(guard) = inner.guards.get_mut(&entry.binding.name) {
                    guard.release(&entry.name.name);
                }
            });
        }
        let subject = Self::subject(entry);
        let reporter = TokenReporter { of: self.of };
        state.due_at(planned.due);
        if entry.wanted.is_some()
            && let Some(record) = entry.record()
        {
            let expires = record.current.ends().as_secs_f64();
            let status = &mut state.status;
            status.next_expiry = Some(status.next_expiry.map_or(expires, |earlier| earlier.min(expires)));
        }
        let mut label = if planned.awaits_list { FAILED } else { planned.state.label() };
        if planned.actions.is_empty() {
            reporter.waiting(&subject, &planned, &mut state.plan);
        }
        let EntryPlan { actions, reason, .. } = &planned;
        for action in actions {
            if let Some(blocked_by) = self.blocked_by(action, entry, entries, lists) {
                reporter.blocked(&subject, action, reason, blocked_by, &mut state.plan);
                label = TokenState::Held.label();
                continue;
            }
            if self.of.is_dry_run() {
                TokenReporter::planned(&subject, action, reason, &mut state.plan);
                continue;
            }
            if let Some(change) = Self::list_change(action, entry, changes) {
                change.makes_room |= matches!(action, TokenAction::Prune(_))
                    && actions.iter().any(|other| matches!(other, TokenAction::Issue(_)));
                collect(change, action, index);
                continue;
            }
            match self.apply(action, entry, revoked).await {
                Ok(token) => {
                    state.changed = true;
                    if matches!(action, TokenAction::Issue(_)) && !planned.awaits_list {
                        label = TokenState::Issued.label();
                    }
                    reporter.changed(&subject, action, token.as_ref(), reason);
                }
                Err(error) => {
                    state.failed = true;
                    label = FAILED;
                    reporter.failed(&subject, action, reason, &error);
                    break;
                }
            }
        }
        state.labels.insert(index, label);
    }

    fn is_ours(&self, record: &TokenRecord) -> bool {
        let (process, operator) = (&self.of.context.process, &record.owner.operator);
        (*operator == process.id || process.previous_id.as_ref() == Some(operator))
            && record.owner.control_plane == self.of.worker.name
    }

    fn subject(entry: &TokenEntry) -> TokenSubject<'_> {
        let mesh = entry.record().map_or(&entry.binding.spec.mesh, |record| &record.owner.mesh);
        TokenSubject { name: &entry.name, binding: &entry.binding.name, mesh, workload: entry.workload() }
    }

    /// The list that the action changes, if it does.
    fn list_change<'c>(
        action: &TokenAction,
        entry: &TokenEntry,
        changes: &'c mut BTreeMap<MeshName, ListChange>,
    ) -> Option<&'c mut ListChange> {
        let is_of_list = matches!(
            action,
            TokenAction::RevokeReplaced(_) | TokenAction::Withdraw(_) | TokenAction::Prune(_)
        );
        let record = entry.record().filter(|_| is_of_list)?;
        Some(changes.entry(record.owner.mesh.clone()).or_default())
    }

    async fn apply(
        &self,
        action: &TokenAction,
        entry: &TokenEntry,
        revoked: Option<&RevocationList>,
    ) -> Result<Option<IssuedToken>, TokenChangeError> {
        let apply = TokenApply { of: self.of, name: &entry.name, stored: &entry.stored, revoked };
        match (action, &entry.wanted, entry.record()) {
            (TokenAction::Issue(_), Some(wanted), _) => apply.issue(wanted).await.map(Some),
            (TokenAction::TakeOver, ..) => apply.take_over().await.map(|()| None),
            (TokenAction::Forget(ids), _, Some(record)) => apply.forget(record, ids).await.map(|()| None),
            (TokenAction::Remove, _, Some(_)) => apply.remove().await.map(|()| None),
            _ => Ok(None),
        }
    }

    /// Whether sidecars can connect with the entry's token, so that the guard protects it.
    fn is_in_use(&self, entry: &TokenEntry, lists: &BTreeMap<MeshName, RevocationList>) -> bool {
        let Some(record) = entry.record().filter(|record| self.is_ours(record)) else { return false };
        let is_revoked = lists.get(&record.owner.mesh).is_some_and(|list| list.contains(&record.current.id));
        !is_revoked && !record.current.is_expired(Duration::ZERO, self.of.context.wall())
    }

    /// Why the action is not made, if it is not: pause, policy, then the guard.
    fn blocked_by(
        &self,
        action: &TokenAction,
        entry: &TokenEntry,
        entries: &[TokenEntry],
        lists: &BTreeMap<MeshName, RevocationList>,
    ) -> Option<BlockedBy> {
        let spec = &entry.binding.spec;
        if spec.paused {
            return Some(BlockedBy::Paused);
        }
        if !action.is_permitted(spec.policy) {
            return Some(BlockedBy::Policy);
        }
        if !matches!(action, TokenAction::Withdraw(_)) {
            return None;
        }
        let (context, name) = (&self.of.context, &entry.name);
        let now = context.now();
        let valid_for = self.in_force.history.valid_for(now);
        let of_binding = entries.iter().filter(|other| other.binding.name == entry.binding.name);
        let owned = of_binding.filter(|other| self.is_in_use(other, lists)).count();
        let released = entry.binding.guard_released_until.is_some_and(|until| context.wall() < until);
        let decision = self.of.target.with(|inner| {
            let since = *inner.undeclared_since.entry(name.clone()).or_insert(valid_for);
            let request = RemovalRequest {
                task: &name.name,
                id: &registration_id(entry),
                basis: RemovalBasis::Manifests { asked_for: valid_for.saturating_sub(since) },
                owned: OwnedCount::confirmed(owned),
                released,
                now,
            };
            let guard = inner.guards.entry(Arc::clone(&entry.binding.name)).or_default();
            guard.admit(&request, &spec.cleanup.guard)
        });
        (decision != GuardDecision::Admitted).then_some(BlockedBy::Guard)
    }

    /// Whether other manifests are in force than those of the pass: they may declare what this pass would revoke.
    fn is_superseded(&self) -> bool {
        !Arc::ptr_eq(&self.of.context.manifests.in_force().set, &self.in_force.set)
    }

    /// Changes the lists, each in one write. Breaks once other manifests are in force.
    async fn change_lists(
        &self,
        entries: &[TokenEntry],
        changes: BTreeMap<MeshName, ListChange>,
        state: &mut PassState,
    ) -> ControlFlow<()> {
        let reporter = TokenReporter { of: self.of };
        for (mesh, ListChange { add, remove, makes_room }) in changes {
            let now = self.of.context.now();
            let pruned = self.of.target.with(|inner| inner.pruned.get(&mesh).copied());
            let may_prune = makes_room || pruned.is_none_or(|at| at.age_at(now) >= PRUNE_INTERVAL);
            if add.is_empty() && (remove.is_empty() || !may_prune) {
                continue;
            }
            self.of.target.progress.notify_one();
            let ids: BTreeSet<TokenId> = add.keys().cloned().collect();
            let removed: BTreeSet<TokenId> = remove.keys().cloned().collect();
            self.of.worker.writes.acquire().await;
            if self.is_superseded() {
                return ControlFlow::Break(());
            }
            let changed =
                self.of.worker.call(self.of.target.issuer.change_revocations(&mesh, &ids, &removed)).await;
            let error = changed.as_ref().err().map(describe);
            for (id, (index, is_withdrawal)) in &add {
                let Some(entry) = entries.get(*index) else { continue };
                reporter.revoked(&Self::subject(entry), id, *is_withdrawal, error.as_deref());
                if error.is_none() && *is_withdrawal {
                    self.record_withdrawn(entry);
                }
            }
            for (id, index) in &remove {
                let Some(entry) = entries.get(*index) else { continue };
                reporter.pruned(&Self::subject(entry), id, error.as_deref());
            }
            if error.is_none() {
                if !remove.is_empty() {
                    self.of.target.with(|inner| inner.pruned.insert(mesh, now));
                }
                state.changed = true;
                continue;
            }
            state.failed = true;
            state.labels.extend(add.values().map(|(index, _)| (*index, FAILED)));
            state.unlisted.extend(add.values().map(|(index, _)| *index).chain(remove.into_values()));
        }
        ControlFlow::Continue(())
    }

    fn record_withdrawn(&self, entry: &TokenEntry) {
        let now = self.of.context.now();
        self.of.target.with(|inner| {
            let guard = inner.guards.entry(Arc::clone(&entry.binding.name)).or_default();
            guard.record_completed(&entry.name.name, &registration_id(entry), now);
        });
    }
}

/// The stored entry, by the store's description.
pub(super) fn stored_entry(described: Option<&EntryDescription>) -> StoredEntry {
    match described {
        Some(EntryDescription { tags, is_deleting: true }) => StoredEntry::deleting(tags),
        described => StoredEntry::of(described.map(|described| &described.tags)),
    }
}

fn registration_id(entry: &TokenEntry) -> RegistrationId {
    RegistrationId { mesh: entry.binding.spec.mesh.clone(), name: Arc::clone(&entry.name.name) }
}

fn collect(change: &mut ListChange, action: &TokenAction, index: usize) {
    match action {
        TokenAction::RevokeReplaced(tokens) => {
            change.add.extend(tokens.iter().map(|token| (token.id.clone(), (index, false))));
        }
        TokenAction::Withdraw(tokens) => {
            change.add.extend(tokens.iter().map(|token| (token.id.clone(), (index, true))));
        }
        TokenAction::Prune(ids) => change.remove.extend(ids.iter().map(|id| (id.clone(), index))),
        TokenAction::TakeOver | TokenAction::Issue(_) | TokenAction::Forget(_) | TokenAction::Remove => {}
    }
}

/// The planned change of a token.
pub(super) fn planned_change(action: &TokenAction) -> Change {
    match action {
        TokenAction::Issue(ecs_mesh_core::tokens::IssueReason::New) => Change::Create,
        TokenAction::TakeOver
        | TokenAction::Issue(_)
        | TokenAction::RevokeReplaced(_)
        | TokenAction::Prune(_)
        | TokenAction::Forget(_) => Change::Update,
        TokenAction::Withdraw(_) | TokenAction::Remove => Change::Remove,
    }
}

pub(super) fn describe(error: &CallError) -> String {
    match error {
        CallError::CircuitOpen(_) => "the control plane cannot be reached".to_owned(),
        CallError::Failed(error) => error.message.clone(),
    }
}

fn is_unsupported(error: &CallError) -> bool {
    let kind = MeshErrorKind::Obstructed(WriteObstacle::UnsupportedControlPlane);
    matches!(error, CallError::Failed(error) if error.kind == kind)
}

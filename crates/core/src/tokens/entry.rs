//! The plan of one stored token.
//!
//! | declared | stored | then |
//! |---|---|---|
//! | yes | nothing | issue |
//! | yes | without this operator's tags, or of another control plane, mesh or workload | conflict |
//! | any | of this operator's previous id | take over: the tags get the current one |
//! | yes | not stored after its tags were written | issue again: either token may have been read |
//! | yes | bound to another workload or service, valid for longer than `validFor`, revoked, or close to its end | replace |
//! | yes | else | keep; revoke replaced tokens after `overlap` |
//! | yes | scheduled for deletion | hold |
//! | no | of this operator | once settled: revoke; remove after its end |
//! | no | else | ignore |
//!
//! Ids of expired tokens leave the mesh's list first and then the tags: the tags alone say that they are this operator's.

use std::collections::BTreeMap;
use std::time::Duration;

use ecs_mesh_api::{LifecyclePolicy, TokenPolicy};
use ecs_mesh_model::{OperatorId, Timestamp};

use super::record::{
    CLOCK_SLACK, IssuedToken, NoTokenIdentity, TokenId, TokenIdentity, TokenOwner, TokenRecord,
    TokenRecordError,
};
use super::revocations::RevocationList;

/// The entry under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredEntry {
    /// Nothing.
    Absent,
    /// A secret or parameter with the tags of an operator.
    Recorded(TokenRecord),
    /// A secret or parameter whose tags are not those of an operator.
    Foreign(TokenRecordError),
    /// A secret that is scheduled for deletion, with its tags if they are those of an operator.
    Deleting(Option<TokenRecord>),
}

impl StoredEntry {
    /// The tags of an operator.
    pub fn record(&self) -> Option<&TokenRecord> {
        match self {
            Self::Recorded(record) => Some(record),
            Self::Deleting(record) => record.as_ref(),
            Self::Absent | Self::Foreign(_) => None,
        }
    }

    /// A secret that is scheduled for deletion, by its tags.
    pub fn deleting(tags: &BTreeMap<String, String>) -> Self {
        Self::Deleting(TokenRecord::read(tags).ok())
    }

    /// Reads the tags of a secret or parameter; `None` if there is none.
    pub fn of(tags: Option<&BTreeMap<String, String>>) -> Self {
        match tags.map(TokenRecord::read) {
            None => Self::Absent,
            Some(Ok(record)) => Self::Recorded(record),
            Some(Err(error)) => Self::Foreign(error),
        }
    }
}

/// A declared token, as the control plane's release can issue it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedToken {
    /// Its owner.
    pub owner: TokenOwner,
    /// Its binding, or why the control plane's release has nothing that it could be bound to.
    pub identity: Result<TokenIdentity, NoTokenIdentity>,
    /// `tokens` of the binding.
    pub terms: TokenPolicy,
}

/// The facts about one stored token.
#[derive(Clone, Copy, Debug)]
pub struct EntryInput<'a> {
    /// This operator.
    pub operator: &'a OperatorId,
    /// The id that it had before.
    pub previous: Option<&'a OperatorId>,
    /// The control plane whose tokens are planned.
    pub control_plane: &'a str,
    /// The declared token; `None` if the manifests declare none.
    pub wanted: Option<&'a WantedToken>,
    /// Whether the manifests have declared none for long enough, in complete loads.
    pub settled: bool,
    /// The stored entry.
    pub stored: &'a StoredEntry,
    /// The list of the mesh of the stored token; `None` if it cannot be read: unknown is not absent.
    pub revoked: Option<&'a RevocationList>,
    /// The wall-clock time, which the expiry of a token is compared with.
    pub now: Timestamp,
}

/// Why a token is issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IssueReason {
    /// None is stored.
    New,
    /// It expires soon.
    Rotation,
    /// The last one may not have been stored.
    Interrupted,
    /// It is bound to another workload or service.
    IdentityChanged,
    /// It is valid for longer than `validFor`.
    ValidityShortened,
    /// It is revoked.
    Revoked,
}

impl IssueReason {
    /// The reason, for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "no token is stored",
            Self::Rotation => "the stored token expires soon",
            Self::Interrupted => "the last token may not have been stored",
            Self::IdentityChanged => "the stored token is bound to another workload or service",
            Self::ValidityShortened => "the stored token is valid for longer than validFor",
            Self::Revoked => "the stored token is revoked",
        }
    }
}

/// A step. Steps are made in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenAction {
    /// Write the operator's current id into the tags, in the place of its previous one.
    TakeOver,
    /// Issue a token and store it.
    Issue(IssueReason),
    /// Add replaced tokens to the list of revoked ones.
    RevokeReplaced(Vec<IssuedToken>),
    /// Add the tokens of a withdrawn workload to the list of revoked ones. Goes through the guard.
    Withdraw(Vec<IssuedToken>),
    /// Take expired tokens from the list of revoked ones.
    Prune(Vec<TokenId>),
    /// Take expired tokens from the tags.
    Forget(Vec<TokenId>),
    /// Remove the secret or parameter, whose tokens have all expired.
    Remove,
}

impl TokenAction {
    /// Whether the lifecycle policy permits the step.
    pub fn is_permitted(&self, policy: LifecyclePolicy) -> bool {
        match policy {
            LifecyclePolicy::Sync => true,
            LifecyclePolicy::UpsertOnly => matches!(self, Self::Issue(_) | Self::TakeOver),
            LifecyclePolicy::CreateOnly => *self == Self::Issue(IssueReason::New),
        }
    }

    /// The step as a value of metric labels and log fields.
    pub fn label(&self) -> &'static str {
        match self {
            Self::TakeOver => "update",
            Self::Issue(IssueReason::New) => "create",
            Self::Issue(_) => "rotate",
            Self::RevokeReplaced(_) | Self::Withdraw(_) => "revoke",
            Self::Prune(_) | Self::Forget(_) => "prune",
            Self::Remove => "remove",
        }
    }
}

/// The state of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TokenState {
    /// Stored and valid.
    Issued,
    /// To be issued.
    Pending,
    /// Revoked, and kept until it expires.
    Withdrawn,
    /// Kept although the manifests do not declare it, or not issued: a precondition is not met.
    Held,
    /// The name belongs to another owner.
    Conflict,
}

/// All states, with that of a token whose issue, storage or revocation failed, and that of a token below no path.
pub const TOKEN_STATES: [&str; 7] =
    ["issued", "pending", "withdrawn", "held", "conflict", "failed", "former"];

impl TokenState {
    /// The state as a value of metric labels.
    pub fn label(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Pending => "pending",
            Self::Withdrawn => "withdrawn",
            Self::Held => "held",
            Self::Conflict => "conflict",
        }
    }
}

/// The plan of one stored token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryPlan {
    /// The state before the steps.
    pub state: TokenState,
    /// The reason of the state, for people.
    pub reason: String,
    /// The steps.
    pub actions: Vec<TokenAction>,
    /// When the next step is due, if time alone makes one due.
    pub due: Option<Timestamp>,
    /// Whether tokens are to be revoked, and the list cannot be read.
    pub awaits_list: bool,
}

impl EntryPlan {
    fn waiting(state: TokenState, reason: impl Into<String>) -> Self {
        Self { state, reason: reason.into(), actions: Vec::new(), due: None, awaits_list: false }
    }
}

/// Plans one stored token by the table above; `None` if it is none of this operator's business.
pub fn plan_entry(input: &EntryInput<'_>) -> Option<EntryPlan> {
    let record = match (input.stored, input.wanted) {
        (StoredEntry::Absent, None) => return None,
        (StoredEntry::Absent, Some(wanted)) => return Some(plan_first(wanted)),
        (StoredEntry::Foreign(error), wanted) => {
            let reason = format!("the name is taken: {error}");
            return wanted.map(|_| EntryPlan::waiting(TokenState::Conflict, reason));
        }
        (StoredEntry::Deleting(record), wanted) => return plan_deleting(record.as_ref(), wanted, input),
        (StoredEntry::Recorded(record), _) => record,
    };
    let owner = &record.owner;
    let is_previous = Some(&owner.operator) == input.previous;
    let current = if is_previous { input.operator } else { &owner.operator };
    match input.wanted {
        Some(wanted) if wanted.owner != (TokenOwner { operator: current.clone(), ..owner.clone() }) => {
            let TokenOwner { operator, control_plane, mesh, workload } = owner;
            let reason = format!(
                "the name is taken: its tags name operator {operator}, control plane {control_plane}, mesh {mesh} and workload \
                 {workload}"
            );
            Some(EntryPlan::waiting(TokenState::Conflict, reason))
        }
        None if !is_own(record, input) => None,
        _ if is_previous => Some(EntryPlan {
            actions: vec![TokenAction::TakeOver],
            ..EntryPlan::waiting(TokenState::Pending, "its tags name the operator's previous id")
        }),
        Some(wanted) => Some(plan_wanted(wanted, record, input)),
        None => Some(plan_withdrawn(record, input)),
    }
}

fn is_own(record: &TokenRecord, input: &EntryInput<'_>) -> bool {
    let operator = &record.owner.operator;
    (operator == input.operator || Some(operator) == input.previous)
        && *record.owner.control_plane == *input.control_plane
}

/// A secret within its recovery window can neither be read by tasks nor be written.
fn plan_deleting(
    record: Option<&TokenRecord>,
    wanted: Option<&WantedToken>,
    input: &EntryInput<'_>,
) -> Option<EntryPlan> {
    if wanted.is_some() {
        let reason = "the secret is scheduled for deletion: restore it, or delete it without recovery";
        return Some(EntryPlan::waiting(TokenState::Held, reason));
    }
    let mut plan = plan_withdrawn(record.filter(|record| is_own(record, input))?, input);
    plan.actions.retain(|action| *action != TokenAction::Remove);
    Some(plan)
}

fn plan_first(wanted: &WantedToken) -> EntryPlan {
    if let Err(missing) = wanted.identity {
        return EntryPlan::waiting(TokenState::Held, missing.as_str());
    }
    let reason = IssueReason::New;
    EntryPlan {
        state: TokenState::Pending,
        reason: reason.as_str().to_owned(),
        actions: vec![TokenAction::Issue(reason)],
        due: None,
        awaits_list: false,
    }
}

fn plan_wanted(wanted: &WantedToken, record: &TokenRecord, input: &EntryInput<'_>) -> EntryPlan {
    let identity = match &wanted.identity {
        Ok(identity) => identity,
        Err(missing) => return EntryPlan::waiting(TokenState::Held, missing.as_str()),
    };
    let TokenPolicy { valid_for, rotate_before, overlap, .. } = &wanted.terms;
    let EntryInput { revoked, now, .. } = *input;
    let is_revoked = |id: &TokenId| revoked.is_some_and(|list| list.contains(id));
    let current = &record.current;
    let issue = if !record.stored {
        Some(IssueReason::Interrupted)
    } else if record.identity != *identity {
        Some(IssueReason::IdentityChanged)
    } else if is_revoked(&current.id) {
        Some(IssueReason::Revoked)
    } else if !current.expires_within(valid_for.0 + CLOCK_SLACK, now) {
        Some(IssueReason::ValidityShortened)
    } else {
        current.expires_within(rotate_before.0, now).then_some(IssueReason::Rotation)
    };
    let mut due = vec![earlier(current.ends(), rotate_before.0)];
    let mut replaced = Vec::new();
    for prior in &record.prior {
        let revoke_at = prior.replaced.map(|replaced| replaced.plus(overlap.0));
        if prior.token.is_expired(Duration::ZERO, now) || is_revoked(&prior.token.id) {
            due.push(prior.token.ends_everywhere());
        } else if revoke_at.is_some_and(|at| at <= now) {
            replaced.push(prior.token.clone());
        } else {
            due.extend(revoke_at);
        }
    }
    let expired =
        record.prior.iter().map(|prior| &prior.token).filter(|token| token.is_expired(CLOCK_SLACK, now));
    let cleanup = revoked.and_then(|revoked| cleanup(expired, revoked));
    let awaits_list = revoked.is_none() && !replaced.is_empty();
    let mut actions = Vec::new();
    match issue {
        // Tasks that start may still read a replaced token until the newest one is stored. Issuing writes the tags without
        // those that are to be forgotten; others leave the list first, to make room.
        Some(reason) => {
            actions.extend(cleanup.filter(|action| matches!(action, TokenAction::Prune(_))));
            actions.push(TokenAction::Issue(reason));
        }
        None => {
            actions.extend(
                (!replaced.is_empty() && !awaits_list).then_some(TokenAction::RevokeReplaced(replaced)),
            );
            actions.extend(cleanup);
        }
    }
    EntryPlan {
        state: if issue.is_some() { TokenState::Pending } else { TokenState::Issued },
        reason: issue.map_or("the stored token is valid", IssueReason::as_str).to_owned(),
        actions,
        due: due.into_iter().filter(|at| *at > now).min(),
        awaits_list,
    }
}

fn plan_withdrawn(record: &TokenRecord, input: &EntryInput<'_>) -> EntryPlan {
    let EntryInput { revoked, now, settled, .. } = *input;
    if !settled {
        let reason = "not declared any more; waits until the manifests have been complete for cleanup.settle";
        return EntryPlan::waiting(TokenState::Held, reason);
    }
    let Some(revoked) = revoked else {
        let reason = "not declared any more; the list of revoked tokens cannot be read";
        return EntryPlan { awaits_list: true, ..EntryPlan::waiting(TokenState::Withdrawn, reason) };
    };
    let is_valid = |token: &&IssuedToken| !token.is_expired(CLOCK_SLACK, now);
    let valid: Vec<&IssuedToken> = record.tokens().filter(is_valid).collect();
    let to_revoke: Vec<IssuedToken> =
        valid.iter().filter(|token| !revoked.contains(&token.id)).map(|token| (*token).clone()).collect();
    let due = valid.iter().map(|token| token.ends_everywhere()).min();
    let mut actions = Vec::new();
    if !to_revoke.is_empty() {
        actions.push(TokenAction::Withdraw(to_revoke));
    }
    let expired = record.tokens().filter(|token| token.is_expired(CLOCK_SLACK, now));
    let pruned = revoked.prunable(expired.map(|token| &token.id));
    if !pruned.is_empty() {
        actions.push(TokenAction::Prune(pruned.into_iter().collect()));
    } else if valid.is_empty() {
        actions.push(TokenAction::Remove);
    }
    let reason =
        if valid.is_empty() { "all its tokens have expired" } else { "the manifests do not declare it" };
    EntryPlan { state: TokenState::Withdrawn, reason: reason.to_owned(), actions, due, awaits_list: false }
}

fn earlier(at: Timestamp, by: Duration) -> Timestamp {
    Timestamp(at.0.saturating_sub(Timestamp(0).plus(by).0))
}

/// The step after the expiry of replaced tokens: out of the list, and then out of the tags.
fn cleanup<'t>(
    expired: impl Iterator<Item = &'t IssuedToken>,
    revoked: &RevocationList,
) -> Option<TokenAction> {
    let expired: Vec<&TokenId> = expired.map(|token| &token.id).collect();
    let pruned = revoked.prunable(expired.iter().copied());
    if !pruned.is_empty() {
        return Some(TokenAction::Prune(pruned.into_iter().collect()));
    }
    (!expired.is_empty()).then(|| TokenAction::Forget(expired.into_iter().cloned().collect()))
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::{record, token};
    use super::super::record::{ClockOffset, PriorToken};
    use super::*;
    use ecs_mesh_api::HumanDuration;

    const HOUR: i64 = 3_600;
    /// The time of the tests, in seconds.
    const NOW: i64 = 1_000 * HOUR;

    fn hours(hours: i64) -> HumanDuration {
        HumanDuration(Duration::from_secs(u64::try_from(hours * HOUR).unwrap()))
    }

    fn wanted() -> WantedToken {
        let terms = TokenPolicy {
            issue: true,
            path: Some("/m".to_owned()),
            valid_for: hours(100),
            rotate_before: hours(30),
            overlap: hours(20),
            ..TokenPolicy::default()
        };
        let TokenRecord { owner, identity, .. } = record(token("a", 0));
        WantedToken { owner, identity: Ok(identity), terms }
    }

    /// A record whose newest token is `now`, and with these replaced ones: id, hours until the end, hours since the
    /// replacement.
    fn stored(hours_left: i64, prior: &[(&str, i64, i64)]) -> TokenRecord {
        let mut record = record(token("now", NOW + hours_left * HOUR));
        record.prior = prior
            .iter()
            .map(|(id, left, ago)| PriorToken {
                token: token(id, NOW + left * HOUR),
                replaced: Some(Timestamp((NOW - ago * HOUR) * 1_000)),
            })
            .collect();
        record
    }

    fn plan(
        wanted: Option<&WantedToken>,
        stored: &StoredEntry,
        revoked: impl Into<Option<&'static str>>,
        settled: bool,
    ) -> Option<EntryPlan> {
        let revoked = revoked.into().map(RevocationList::parse);
        plan_entry(&EntryInput {
            operator: &OperatorId::parse("op").unwrap(),
            previous: Some(&OperatorId::parse("op-1").unwrap()),
            control_plane: "kuma",
            wanted,
            settled,
            stored,
            revoked: revoked.as_ref(),
            now: Timestamp(NOW * 1_000),
        })
    }

    /// The plan as text: state, steps, and in how many hours the next one is due.
    fn show(plan: Option<EntryPlan>) -> String {
        let Some(EntryPlan { state, actions, due, awaits_list, .. }) = plan else { return "none".to_owned() };
        let ids = |ids: Vec<&TokenId>| ids.into_iter().map(TokenId::as_str).collect::<Vec<_>>().join("+");
        let of_tokens = |tokens: &[IssuedToken]| ids(tokens.iter().map(|token| &token.id).collect());
        let action = |action: &TokenAction| match action {
            TokenAction::TakeOver => "take over".to_owned(),
            TokenAction::Issue(reason) => format!("issue {reason:?}"),
            TokenAction::RevokeReplaced(tokens) => format!("revoke {}", of_tokens(tokens)),
            TokenAction::Withdraw(tokens) => format!("withdraw {}", of_tokens(tokens)),
            TokenAction::Prune(pruned) => format!("prune {}", ids(pruned.iter().collect())),
            TokenAction::Forget(forgotten) => format!("forget {}", ids(forgotten.iter().collect())),
            TokenAction::Remove => "remove".to_owned(),
        };
        let mut text = vec![state.label().to_owned()];
        text.extend(actions.iter().map(action));
        text.extend(awaits_list.then(|| "awaits the list".to_owned()));
        text.extend(due.map(|at| format!("due in {}h", (at.0 / 1_000 - NOW) / HOUR)));
        text.join(", ")
    }

    #[test]
    fn declared_token_is_issued_kept_or_replaced() {
        let of = |record: TokenRecord| StoredEntry::Recorded(record);
        let mut unstored = stored(100, &[]);
        unstored.stored = false;
        let mut other_identity = stored(100, &[]);
        other_identity.identity = TokenIdentity::Service("web".into());
        for (name, entry, revoked, expected) in [
            ("nothing stored", StoredEntry::Absent, "", "pending, issue New"),
            ("valid", of(stored(100, &[])), "", "issued, due in 70h"),
            ("due in an hour", of(stored(31, &[])), "", "issued, due in 1h"),
            ("due", of(stored(30, &[])), "", "pending, issue Rotation"),
            ("expired", of(stored(-5, &[])), "", "pending, issue Rotation"),
            ("not stored", of(unstored), "", "pending, issue Interrupted, due in 70h"),
            ("bound to another", of(other_identity), "", "pending, issue IdentityChanged, due in 70h"),
            ("revoked", of(stored(100, &[])), "x,now", "pending, issue Revoked, due in 70h"),
            ("valid for too long", of(stored(102, &[])), "", "pending, issue ValidityShortened, due in 72h"),
        ] {
            assert_eq!(show(plan(Some(&wanted()), &entry, revoked, true)), expected, "{name}");
            // A declared token needs no settled manifests.
            assert_eq!(show(plan(Some(&wanted()), &entry, revoked, false)), expected, "{name}");
        }
    }

    #[test]
    fn replaced_token_is_revoked_after_the_overlap_and_pruned() {
        for (name, prior, revoked, expected) in [
            ("within the overlap", &[("old", 25, 19)][..], "", "issued, due in 1h"),
            ("after the overlap", &[("old", 10, 20)], "", "issued, revoke old, due in 70h"),
            ("revoked", &[("old", 10, 20)], "x,old", "issued, due in 11h"),
            ("expired before the end of the overlap", &[("old", 0, 5)], "", "issued, due in 1h"),
            ("expired and listed", &[("old", -1, 30)], "x,old", "issued, prune old, due in 70h"),
            ("expired and no longer listed", &[("old", -1, 30)], "x", "issued, forget old, due in 70h"),
            ("expired and the last of the list", &[("old", -1, 30)], "old", "issued, forget old, due in 70h"),
            (
                "several",
                &[("a", -1, 60), ("b", 10, 21), ("c", 25, 1)],
                "x,a",
                "issued, revoke b, prune a, due in 19h",
            ),
        ] {
            let entry = StoredEntry::Recorded(stored(100, prior));
            assert_eq!(show(plan(Some(&wanted()), &entry, revoked, true)), expected, "{name}");
        }
    }

    #[test]
    fn tokens_are_rotated_and_not_revoked_without_the_list() {
        let replaced = [("old", 10, 20), ("gone", -2, 40)];
        for (name, wanted, stored, expected) in [
            ("valid", true, stored(100, &[]), "issued, due in 70h"),
            ("due", true, stored(30, &replaced), "pending, issue Rotation, awaits the list"),
            ("replaced", true, stored(100, &replaced), "issued, awaits the list, due in 70h"),
            ("undeclared", false, stored(50, &[]), "withdrawn, awaits the list"),
            ("undeclared and expired", false, stored(-2, &[]), "withdrawn, awaits the list"),
        ] {
            let wanted = wanted.then(self::wanted);
            let entry = StoredEntry::Recorded(stored);
            assert_eq!(show(plan(wanted.as_ref(), &entry, None, true)), expected, "{name}");
        }
    }

    #[test]
    fn difference_of_the_clocks_neither_rotates_nor_keeps_a_token() {
        for (ahead, left) in [(2, 31), (-80, 31), (200, 31), (-80, 30), (200, 30)] {
            let mut stored = stored(left + ahead, &[]);
            let theirs = Timestamp((NOW + ahead * HOUR) * 1_000);
            stored.current.clock = ClockOffset::between(theirs, Timestamp(NOW * 1_000));
            let expected = if left == 31 { "issued, due in 1h" } else { "pending, issue Rotation" };
            let entry = StoredEntry::Recorded(stored);
            assert_eq!(show(plan(Some(&wanted()), &entry, "", true)), expected, "{ahead} {left}");
        }
    }

    #[test]
    fn expired_tokens_leave_the_list_before_another_is_issued() {
        let prior = [("a", -1, 60), ("b", -1, 50), ("c", -1, 40), ("d", -1, 30)];
        let entry = StoredEntry::Recorded(stored(30, &prior));
        for (revoked, expected) in
            [("x,a,b,c,d", "pending, prune a+b+c+d, issue Rotation"), ("x", "pending, issue Rotation")]
        {
            assert_eq!(show(plan(Some(&wanted()), &entry, revoked, true)), expected, "{revoked}");
        }
    }

    #[test]
    fn no_replaced_token_is_revoked_before_the_new_one_is_stored() {
        let mut record = stored(100, &[("older", 10, 21), ("old", 25, 0)]);
        record.stored = false;
        record.prior[1].replaced = None;
        let entry = StoredEntry::Recorded(record.clone());
        assert_eq!(show(plan(Some(&wanted()), &entry, "", true)), "pending, issue Interrupted, due in 70h");
        let entry = StoredEntry::Recorded(record.stored(Timestamp(NOW * 1_000)));
        assert_eq!(show(plan(Some(&wanted()), &entry, "", true)), "issued, revoke older, due in 20h");
    }

    #[test]
    fn undeclared_token_is_revoked_once_settled_and_removed_at_its_end() {
        for (name, left, prior, revoked, settled, expected) in [
            ("not settled", 50, &[][..], "", false, "held"),
            ("settled", 50, &[], "x", true, "withdrawn, withdraw now, due in 51h"),
            ("with a replaced one", 50, &[("old", 5, 3)], "", true, "withdrawn, withdraw old+now, due in 6h"),
            ("lost from the list", 50, &[("old", 5, 3)], "now", true, "withdrawn, withdraw old, due in 6h"),
            ("revoked", 50, &[], "now", true, "withdrawn, due in 51h"),
            ("expired within the clock slack", 0, &[], "", true, "withdrawn, withdraw now, due in 1h"),
            ("expired and listed", -1, &[], "now,x", true, "withdrawn, prune now"),
            ("expired and pruned", -1, &[], "x", true, "withdrawn, remove"),
            ("expired and the last of the list", -1, &[], "now", true, "withdrawn, remove"),
        ] {
            let entry = StoredEntry::Recorded(stored(left, prior));
            assert_eq!(show(plan(None, &entry, revoked, settled)), expected, "{name}");
        }
    }

    #[test]
    fn entries_of_others_are_never_written() {
        let with = |change: fn(&mut TokenOwner)| {
            let mut record = stored(1, &[]);
            change(&mut record.owner);
            StoredEntry::Recorded(record)
        };
        for (name, entry, undeclared) in [
            ("no tags", StoredEntry::Foreign(TokenRecordError::NoOwner), "none"),
            ("damaged tags", StoredEntry::Foreign(TokenRecordError::Unreadable { tag: "t" }), "none"),
            ("another operator", with(|owner| owner.operator = OperatorId::parse("other").unwrap()), "none"),
            ("another control plane", with(|owner| owner.control_plane = "old".into()), "none"),
            (
                "another workload",
                with(|owner| owner.workload = "kv".into()),
                "withdrawn, withdraw now, due in 2h",
            ),
        ] {
            assert_eq!(show(plan(Some(&wanted()), &entry, "", true)), "conflict", "{name}");
            assert_eq!(show(plan(None, &entry, "", true)), undeclared, "{name}");
        }
    }

    #[test]
    fn token_of_the_previous_id_is_taken_over_first() {
        let of_previous = |hours_left: i64| {
            let mut record = stored(hours_left, &[]);
            record.owner.operator = OperatorId::parse("op-1").unwrap();
            record
        };
        // A rotation that is due, and a withdrawal, wait for the next pass: tags name one owner at a time.
        for (hours_left, wanted) in [(90, Some(wanted())), (10, Some(wanted())), (50, None)] {
            let entry = StoredEntry::Recorded(of_previous(hours_left));
            let planned = plan(wanted.as_ref(), &entry, "", true);
            assert_eq!(show(planned), "pending, take over", "{hours_left}");
        }
        let entry = StoredEntry::deleting(&of_previous(50).tags());
        assert_eq!(show(plan(None, &entry, "", true)), "withdrawn, withdraw now, due in 51h");
    }

    #[test]
    fn secret_scheduled_for_deletion_is_held_and_its_tokens_are_revoked() {
        let entry = StoredEntry::deleting(&stored(50, &[]).tags());
        assert_eq!(show(plan(Some(&wanted()), &entry, "", true)), "held");
        assert_eq!(show(plan(None, &entry, "", true)), "withdrawn, withdraw now, due in 51h");
        let expired = StoredEntry::deleting(&stored(-2, &[]).tags());
        assert_eq!(show(plan(None, &expired, "", true)), "withdrawn");
        assert_eq!(show(plan(None, &StoredEntry::deleting(&BTreeMap::new()), "", true)), "none");
    }

    #[test]
    fn token_without_an_identity_is_held() {
        let wanted = WantedToken { identity: Err(NoTokenIdentity::ZoneProxy), ..wanted() };
        for entry in [StoredEntry::Absent, StoredEntry::Recorded(stored(1, &[("old", 5, 90)]))] {
            assert_eq!(show(plan(Some(&wanted), &entry, "", true)), "held");
        }
    }

    #[test]
    fn lifecycle_policy_permits_steps() {
        let steps = [
            TokenAction::TakeOver,
            TokenAction::Issue(IssueReason::New),
            TokenAction::Issue(IssueReason::Rotation),
            TokenAction::Withdraw(Vec::new()),
            TokenAction::Prune(Vec::new()),
            TokenAction::Remove,
        ];
        for (policy, permitted) in [
            (LifecyclePolicy::Sync, &["update", "create", "rotate", "revoke", "prune", "remove"][..]),
            (LifecyclePolicy::UpsertOnly, &["update", "create", "rotate"]),
            (LifecyclePolicy::CreateOnly, &["create"]),
        ] {
            let labels = steps.iter().filter(|step| step.is_permitted(policy)).map(TokenAction::label);
            assert_eq!(labels.collect::<Vec<_>>(), permitted, "{policy:?}");
        }
    }
}

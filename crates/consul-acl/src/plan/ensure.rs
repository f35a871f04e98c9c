//! Plans objects that are declared present: create, update, adopt or report a conflict.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::actual::ListedKind;
use super::{AclAction, AclPlanner, matching};
use crate::desired::{ObjectId, ObjectOwner};
use crate::normalise;
use ecs_mesh_core::plan::FieldChange;
use ecs_mesh_core::plan::report::ObjectKind;

/// The matching objects by owner.
struct CandidatesByOwner<'a> {
    ours: Vec<&'a Value>,
    unmarked: Vec<&'a Value>,
    others: Vec<(&'a Value, String)>,
}

impl<'a> AclPlanner<'a> {
    pub(super) fn ensure(
        &mut self,
        id: &ObjectId,
        declared: &Value,
        needs: &[ObjectId],
        found: &[&'a Value],
    ) {
        if let Some(field) = found.iter().find_map(|body| missing_part(id.kind, body)) {
            return self.unknown(id, &format!("only its list entry is known, which has no {field}"));
        }
        let mut found = self.by_owner(id.kind, declared, found);
        if found.ours.is_empty() && found.unmarked.is_empty() && found.others.is_empty() {
            return self.create(id, declared, needs);
        }
        let adopts = self.desired.may_adopt(id);
        if !found.ours.is_empty() {
            let first = found.ours.remove(0);
            self.keep(id, declared, needs, first);
        } else if adopts && !found.unmarked.is_empty() {
            let first = found.unmarked.remove(0);
            self.adopt(id, declared, needs, first);
        } else {
            return self.conflict(id, declared, &found);
        }
        for duplicate in found.ours {
            if id.kind == ObjectKind::BindingRule {
                self.push_found(
                    id,
                    duplicate,
                    AclAction::Remove,
                    "a duplicate of another owned binding rule",
                );
            } else {
                // Consul has unique names. If there were two, tokens might depend on either.
                let reason = "the object exists twice: delete the unused one manually";
                self.push_found(id, duplicate, AclAction::Unmanaged, reason);
            }
        }
        for body in found.unmarked {
            if adopts {
                // Adopted first; the next pass removes it as a duplicate.
                self.adopt(id, declared, needs, body);
            } else {
                let (name, auth) = (&id.name, self.declaring_manifest());
                let whose = format!(
                    "is not owned by this operator: delete it manually, or adopt it with `adopt: [{name:?}]` in {auth}, which merges the two"
                );
                self.foreign_duplicate(id, declared, body, &whose);
            }
        }
        for (body, operator) in found.others {
            self.foreign_duplicate(id, declared, body, &format!("is owned by operator {operator:?}"));
        }
    }

    /// Groups by owner, the smallest difference first.
    fn by_owner(&self, kind: ObjectKind, declared: &Value, found: &[&'a Value]) -> CandidatesByOwner<'a> {
        let mut found = found.to_vec();
        found.sort_by_key(|body| {
            let age = body.get("CreateIndex").and_then(Value::as_u64);
            (normalise::difference(kind, body, declared).len(), age, body.get("ID").map(Value::to_string))
        });
        let mut sorted = CandidatesByOwner { ours: Vec::new(), unmarked: Vec::new(), others: Vec::new() };
        for body in found {
            match self.owner(kind, body) {
                ObjectOwner::Ours => sorted.ours.push(body),
                ObjectOwner::Unmarked => sorted.unmarked.push(body),
                ObjectOwner::Other(operator) => sorted.others.push((body, operator)),
            }
        }
        sorted
    }

    fn create(&mut self, id: &ObjectId, declared: &Value, needs: &[ObjectId]) {
        if let Some(error) = needs.iter().find_map(|need| self.blocking_dependency(need)) {
            return self.block(id, &error);
        }
        self.blocked.insert(id.clone(), None);
        let reason = match id.kind {
            ObjectKind::Node => "declared and missing; without it new tasks cannot register in this cluster",
            _ => "declared and missing",
        };
        let was_deleted = id.kind == ObjectKind::AuthMethod && self.sibling_objects_exist(id);
        let action = AclAction::Create { body: normalise::created(declared) };
        let step = self.push(id, action, reason);
        if was_deleted {
            step.warnings.push(
                "related objects exist, so it was probably deleted: all tokens that it issued were removed with it, and \
                 their tasks must be restarted to log in again"
                    .to_owned(),
            );
        }
    }

    /// Whether a role that the method's rules bind exists and is owned, which shows that the method existed before.
    fn sibling_objects_exist(&self, method: &ObjectId) -> bool {
        let rules = self.desired.objects.iter().filter_map(|object| object.rule.as_ref());
        let roles: Vec<&str> = rules
            .filter(|rule| rule.auth_method == method.name && rule.bind.0 == "role")
            .map(|rule| &*rule.bind.1)
            .collect();
        self.actual.all().any(|(kind, scope, body)| {
            let is_evidence = match kind {
                ObjectKind::Role => {
                    roles.is_empty() || roles.contains(&matching::name(ObjectKind::Role, body))
                }
                ObjectKind::Node => roles.is_empty(),
                _ => false,
            };
            is_evidence && self.desired.own.contains(scope) && self.owner(kind, body) == ObjectOwner::Ours
        })
    }

    fn block(&mut self, id: &ObjectId, error: &str) {
        self.blocked.insert(id.clone(), Some(format!("{id} is blocked")));
        self.push(id, AclAction::Hold, format!("blocked: {error}"));
    }

    fn keep(&mut self, id: &ObjectId, declared: &Value, needs: &[ObjectId], found: &'a Value) {
        let fields = normalise::difference(id.kind, found, declared);
        if fields.is_empty() {
            self.blocked.insert(id.clone(), None);
            self.push_found(id, found, AclAction::Unchanged, "as declared");
        } else {
            self.update(id, declared, needs, found, fields, "not as declared");
        }
    }

    fn adopt(&mut self, id: &ObjectId, declared: &Value, needs: &[ObjectId], found: &'a Value) {
        let fields = normalise::difference(id.kind, found, declared);
        let reason = "unmarked, and listed in `adopt`";
        self.update(id, declared, needs, found, fields, reason);
    }

    fn update(
        &mut self,
        id: &ObjectId,
        declared: &Value,
        needs: &[ObjectId],
        found: &'a Value,
        fields: Vec<FieldChange>,
        reason: &str,
    ) {
        if let Some(change) = fields.iter().find(|change| change.path == "Type") {
            let is = change.before.as_ref().map(Value::to_string).unwrap_or_default();
            let error = format!(
                "the type is {is}, which Consul never changes: delete the object, which also removes all tokens that it issued"
            );
            self.blocked.insert(id.clone(), Some(format!("{id} has another type")));
            self.push_found(id, found, AclAction::Conflict { difference: fields }, error);
            return;
        }
        let waiting = self.waiting(id.kind, needs, found);
        if waiting.is_empty() {
            return self.repair(id, declared, found, fields, reason);
        }
        // Only additions wait. Excess is removed now.
        let (now, later) = (without(id.kind, declared, &waiting), waiting.into_values().collect::<Vec<_>>());
        let fields_now = normalise::difference(id.kind, found, &now);
        let later = format!("blocked: {}", later.join("; "));
        if fields_now.is_empty() {
            self.blocked.entry(id.clone()).or_insert(None);
            self.push_found(id, found, AclAction::Drifted { difference: fields }, later);
        } else {
            let warning = format!("only partly corrected; {later}");
            self.repair(id, &now, found, fields_now, reason);
            if let Some(step) = self.steps.last_mut() {
                step.warnings.push(warning);
            }
        }
    }

    fn repair(
        &mut self,
        id: &ObjectId,
        declared: &Value,
        found: &'a Value,
        fields: Vec<FieldChange>,
        reason: &str,
    ) {
        self.blocked.entry(id.clone()).or_insert(None);
        let warning = unrepaired_effects(id.kind, &fields);
        let body = normalise::updated(id.kind, found, declared);
        let step = self.push_found(id, found, AclAction::Update { fields, body }, reason);
        step.warnings.extend(warning.map(str::to_owned));
    }

    /// New dependencies of the object that block it, with the reason. Existing ones are kept.
    fn waiting<'n>(
        &self,
        kind: ObjectKind,
        needs: &'n [ObjectId],
        found: &Value,
    ) -> BTreeMap<&'n ObjectId, String> {
        let new = needs.iter().filter(|need| !refers_to(found, need));
        let blocked = new.filter_map(|need| Some((need, self.blocking_dependency(need)?)));
        // A rule for a missing role grants nothing, and its current grant is too much.
        blocked.filter(|(need, _)| kind != ObjectKind::BindingRule || !self.is_missing(need)).collect()
    }

    fn is_missing(&self, need: &ObjectId) -> bool {
        match self.actual.of(need.kind, &need.scope) {
            ListedKind::Listed(bodies) => {
                !bodies.iter().any(|body| need.name.eq_ignore_ascii_case(matching::name(need.kind, body)))
            }
            ListedKind::Unknown(_) => false,
        }
    }

    fn conflict(&mut self, id: &ObjectId, declared: &Value, found: &CandidatesByOwner<'a>) {
        let (body, reason) = match (found.unmarked.first(), found.others.first()) {
            (Some(body), _) => {
                let (name, auth) = (&id.name, self.declaring_manifest());
                let words = format!(
                    "exists without an ownership marker: `adopt: [{name:?}]` in {auth} adopts it, with these changes"
                );
                (*body, words)
            }
            (None, Some((body, operator))) => {
                let words = format!(
                    "owned by operator {operator:?} and not changed: remove it from that operator's manifests or from {}, or \
                     remove the marker from its description",
                    self.declaring_manifest()
                );
                (*body, words)
            }
            (None, None) => return,
        };
        // Others may depend on an equivalent policy or role of another owner, but not on its auth method.
        let fits = matches!(id.kind, ObjectKind::Policy | ObjectKind::Role)
            && normalise::does_the_same(id.kind, body, declared);
        self.blocked.insert(id.clone(), (!fits).then(|| format!("{id} is not owned by this operator")));
        let difference = normalise::difference(id.kind, body, declared);
        self.push_found(id, body, AclAction::Conflict { difference }, reason);
    }

    /// The reason why others must not depend on the object.
    fn blocking_dependency(&self, need: &ObjectId) -> Option<String> {
        if let Some(reason) = self.blocked.get(need) {
            return reason.clone();
        }
        match self.actual.of(need.kind, &need.scope) {
            ListedKind::Unknown(error) => Some(format!("listing {need}: {error}")),
            ListedKind::Listed(_) => self
                .is_missing(need)
                .then(|| format!("{need} does not exist and is not declared here: create it manually")),
        }
    }

    /// Plans the policy links of an object that has no owner.
    pub(super) fn links(
        &mut self,
        id: &ObjectId,
        attach: &[ObjectId],
        detach: &[ObjectId],
        found: &[&'a Value],
    ) {
        let Some(found) = found.first() else {
            let error = format!("{} {} does not exist: create it", id.kind.as_str(), id.name);
            return self.block(id, &error);
        };
        let before = linked(id.kind, found);
        let mut after = before.clone();
        let mut waits_for = None;
        for policy in attach.iter().filter(|policy| !names(&before, policy)) {
            match self.blocking_dependency(policy) {
                Some(error) => waits_for = Some(error),
                None => after.push(json!({ "Name": &*policy.name })),
            }
        }
        // Only owned policies are detached.
        let gone: Vec<&ObjectId> =
            detach.iter().filter(|policy| self.pending_removals.contains(policy)).collect();
        after.retain(|link| !gone.iter().any(|policy| is_link_to(link, policy)));
        if let (Some(error), true) = (&waits_for, before == after) {
            return self.block(id, error);
        }
        if before == after {
            self.push_found(id, found, AclAction::Unchanged, "policies as declared");
            return;
        }
        let field = FieldChange {
            path: link_path(id.kind).join("."),
            before: Some(only_names(&before)),
            after: Some(only_names(&after)),
        };
        let mut body = normalise::sendable(id.kind, found);
        put(&mut body, link_path(id.kind), after.into());
        let action = AclAction::Update { fields: vec![field], body };
        let reason = "policies not as declared; others stay attached";
        let step = self.push_found(id, found, action, reason);
        step.warnings.extend(waits_for.map(|error| format!("only partly corrected; blocked: {error}")));
    }
}

/// The declaration without blocked additions.
fn without(kind: ObjectKind, declared: &Value, waiting: &BTreeMap<&ObjectId, String>) -> Value {
    let mut declared = declared.clone();
    match (kind, declared.as_object_mut()) {
        (ObjectKind::Role, Some(fields)) => {
            if let Some(Value::Array(links)) = fields.get_mut("Policies") {
                links.retain(|link| !waiting.keys().any(|policy| is_link_to(link, policy)));
            }
        }
        (ObjectKind::BindingRule, Some(fields)) => {
            fields.retain(|field, _| !["BindType", "BindName"].contains(&field.as_str()));
        }
        _ => {}
    }
    declared
}

/// A field that lists omit and a comparison needs.
pub(super) fn missing_part(kind: ObjectKind, body: &Value) -> Option<&'static str> {
    let field = match kind {
        ObjectKind::Policy => "Rules",
        ObjectKind::AuthMethod => "Config",
        _ => return None,
    };
    body.get(field).is_none().then_some(field)
}

pub(super) fn refers_to(found: &Value, need: &ObjectId) -> bool {
    let is = |field: &str| {
        found.get(field).and_then(Value::as_str).is_some_and(|name| name.eq_ignore_ascii_case(&need.name))
    };
    match need.kind {
        ObjectKind::Policy => names(&linked(ObjectKind::Role, found), need),
        ObjectKind::Role => is("BindName") && found.get("BindType") == Some(&json!("role")),
        ObjectKind::AuthMethod => is("AuthMethod"),
        _ => false,
    }
}

/// Effects that an update does not undo.
fn unrepaired_effects(kind: ObjectKind, fields: &[FieldChange]) -> Option<&'static str> {
    let touches =
        |names: &[&str]| fields.iter().any(|change| names.iter().any(|n| change.path.starts_with(n)));
    match kind {
        ObjectKind::AuthMethod
            if touches(&[
                "Config.BoundIAMPrincipalARNs",
                "Config.STSEndpoint",
                "Config.IAMEndpoint",
                "NamespaceRules",
            ]) =>
        {
            Some("tokens issued until now stay valid: review them with `consul acl token list`")
        }
        ObjectKind::BindingRule if touches(&["Selector", "BindType", "BindName", "BindVars"]) => Some(
            "tokens keep the permissions that this rule granted until now: review them with `consul acl token list`",
        ),
        ObjectKind::AuthMethod if touches(&["MaxTokenTTL", "TokenLocality"]) => {
            Some("applies to tokens issued from then on")
        }
        _ => None,
    }
}

fn link_path(kind: ObjectKind) -> &'static [&'static str] {
    match kind {
        ObjectKind::Namespace => &["ACLs", "PolicyDefaults"],
        _ => &["Policies"],
    }
}

pub(super) fn linked(kind: ObjectKind, body: &Value) -> Vec<Value> {
    let list = link_path(kind).iter().try_fold(body, |value, field| value.get(field));
    list.and_then(Value::as_array).cloned().unwrap_or_default()
}

pub(super) fn names(links: &[Value], policy: &ObjectId) -> bool {
    links.iter().any(|link| is_link_to(link, policy))
}

pub(super) fn is_link_to(link: &Value, policy: &ObjectId) -> bool {
    link.get("Name").and_then(Value::as_str).is_some_and(|name| name.eq_ignore_ascii_case(&policy.name))
}

fn only_names(links: &[Value]) -> Value {
    links.iter().map(|link| link.get("Name").cloned().unwrap_or_default()).collect::<Vec<_>>().into()
}

fn put(body: &mut Value, path: &[&str], value: Value) {
    match path {
        [] => *body = value,
        [first, rest @ ..] => {
            if !body.is_object() {
                *body = json!({});
            }
            put(&mut body[*first], rest, value);
        }
    }
}

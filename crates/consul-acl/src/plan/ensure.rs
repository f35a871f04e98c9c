//! An object that is to be there: made, put right, or left to whom it belongs.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::actual::ListedKind;
use super::{AclAction, AclPlanner, matching, normal};
use crate::desired::{ObjectId, ObjectOwner};
use ecs_mesh_core::plan::FieldChange;
use ecs_mesh_core::plan::report::ObjectKind;

/// The objects that one desired object may be, by whose they are.
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
            return self.unknown(id, &format!("only its entry in a list is known, which has no {field}"));
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
        for twice in found.ours {
            if id.kind == ObjectKind::BindingRule {
                self.push_found(
                    id,
                    twice,
                    AclAction::Remove,
                    "the same is there twice, and one is enough",
                );
            } else {
                // Consul has no two of one name. If one did, tokens might go with either.
                let reason = "the same is there twice: delete by hand the one that nothing rests on";
                self.push_found(id, twice, AclAction::Unmanaged, reason);
            }
        }
        for body in found.unmarked {
            if adopts {
                // It gets our mark first, and goes with the next run as one that is there twice.
                self.adopt(id, declared, needs, body);
            } else {
                let (name, auth) = (&id.name, self.declaring_manifest());
                let whose = format!(
                    "has no mark of ours: delete it by hand, or `adopt: [{name:?}]` in {auth} merges the two"
                );
                self.foreign_duplicate(id, declared, body, &whose);
            }
        }
        for (body, operator) in found.others {
            self.foreign_duplicate(id, declared, body, &format!("operator {operator:?} has marked it"));
        }
    }

    /// Those nearest to what is declared first.
    fn by_owner(&self, kind: ObjectKind, declared: &Value, found: &[&'a Value]) -> CandidatesByOwner<'a> {
        let mut found = found.to_vec();
        found.sort_by_key(|body| {
            let age = body.get("CreateIndex").and_then(Value::as_u64);
            (normal::difference(kind, body, declared).len(), age, body.get("ID").map(Value::to_string))
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
        self.standing.insert(id.clone(), None);
        let reason = match id.kind {
            ObjectKind::Node => "it is not there, and without it new tasks may not register in this cluster",
            _ => "it is declared, and not there",
        };
        let was_deleted = id.kind == ObjectKind::AuthMethod && self.sibling_objects_exist(id);
        let action = AclAction::Create { body: normal::created(declared) };
        let step = self.push(id, action, reason);
        if was_deleted {
            step.warnings.push(
                "other objects of the set-up are there, so it was most likely deleted: all tokens that it gave out \
                 went with it, and the tasks that had them must be restarted to log in again"
                    .to_owned(),
            );
        }
    }

    /// Whether a role that the method's rules bind is there and ours: then the method once was there too.
    fn sibling_objects_exist(&self, method: &ObjectId) -> bool {
        let rules = self.desired.objects.iter().filter_map(|object| object.rule.as_ref());
        let roles: Vec<&str> = rules
            .filter(|rule| rule.auth_method == method.name && rule.bind.0 == "role")
            .map(|rule| &*rule.bind.1)
            .collect();
        self.actual.all().any(|(kind, scope, body)| {
            let is_sign = match kind {
                ObjectKind::Role => {
                    roles.is_empty() || roles.contains(&matching::name(ObjectKind::Role, body))
                }
                ObjectKind::Node => roles.is_empty(),
                _ => false,
            };
            is_sign && self.desired.own.contains(scope) && self.owner(kind, body) == ObjectOwner::Ours
        })
    }

    fn block(&mut self, id: &ObjectId, error: &str) {
        self.standing.insert(id.clone(), Some(format!("{id} waits")));
        self.push(id, AclAction::Hold, format!("something must come first: {error}"));
    }

    fn keep(&mut self, id: &ObjectId, declared: &Value, needs: &[ObjectId], found: &'a Value) {
        let fields = normal::difference(id.kind, found, declared);
        if fields.is_empty() {
            self.standing.insert(id.clone(), None);
            self.push_found(id, found, AclAction::Unchanged, "it is as declared");
        } else {
            self.update(id, declared, needs, found, fields, "it is not as declared");
        }
    }

    fn adopt(&mut self, id: &ObjectId, declared: &Value, needs: &[ObjectId], found: &'a Value) {
        let fields = normal::difference(id.kind, found, declared);
        let reason = "it has no mark, and `adopt` says that it is to be ours";
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
                "it is of type {is}, which Consul never changes: delete it, and all tokens that it gave out with it"
            );
            self.standing.insert(id.clone(), Some(format!("{id} is of another type")));
            self.push_found(id, found, AclAction::Conflict { difference: fields }, error);
            return;
        }
        let waiting = self.waiting(id.kind, needs, found);
        if waiting.is_empty() {
            return self.repair(id, declared, found, fields, reason);
        }
        // Only what would be added waits. What is too much is taken away now.
        let (now, later) = (without(id.kind, declared, &waiting), waiting.into_values().collect::<Vec<_>>());
        let fields_now = normal::difference(id.kind, found, &now);
        let later = format!("something must come first: {}", later.join("; "));
        if fields_now.is_empty() {
            self.standing.entry(id.clone()).or_insert(None);
            self.push_found(id, found, AclAction::Drifted { difference: fields }, later);
        } else {
            let warning = format!("not all of it is put right, for {later}");
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
        self.standing.entry(id.clone()).or_insert(None);
        let warning = unrepaired_effects(id.kind, &fields);
        let body = normal::updated(id.kind, found, declared);
        let step = self.push_found(id, found, AclAction::Update { fields, body }, reason);
        step.warnings.extend(warning.map(str::to_owned));
    }

    /// What the object is to get and cannot have yet, and why. What it has already, it may keep.
    fn waiting<'n>(
        &self,
        kind: ObjectKind,
        needs: &'n [ObjectId],
        found: &Value,
    ) -> BTreeMap<&'n ObjectId, String> {
        let new = needs.iter().filter(|need| !refers_to(found, need));
        let in_the_way = new.filter_map(|need| Some((need, self.blocking_dependency(need)?)));
        // A rule for a role that is nowhere gives nothing, and what it gives now is too much.
        in_the_way.filter(|(need, _)| kind != ObjectKind::BindingRule || !self.is_missing(need)).collect()
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
                    "it is there without our mark: `adopt: [{name:?}]` in {auth} takes it over, with these changes"
                );
                (*body, words)
            }
            (None, Some((body, operator))) => {
                let words = format!(
                    "operator {operator:?} has marked it, so nothing is done to it: take it out of that operator's \
                     manifests or out of {}, or take the mark out of its description",
                    self.declaring_manifest()
                );
                (*body, words)
            }
            (None, None) => return,
        };
        // What does just what ours would do, ours may rest on; a method is not to get rules of ours.
        let fits = matches!(id.kind, ObjectKind::Policy | ObjectKind::Role)
            && normal::does_the_same(id.kind, body, declared);
        self.standing.insert(id.clone(), (!fits).then(|| format!("{id} is not ours")));
        let difference = normal::difference(id.kind, body, declared);
        self.push_found(id, body, AclAction::Conflict { difference }, reason);
    }

    /// Why nothing may rest on it.
    fn blocking_dependency(&self, need: &ObjectId) -> Option<String> {
        if let Some(liveness) = self.standing.get(need) {
            return liveness.clone();
        }
        match self.actual.of(need.kind, &need.scope) {
            ListedKind::Unknown(error) => Some(format!("{need} could not be looked for: {error}")),
            ListedKind::Listed(_) => self
                .is_missing(need)
                .then(|| format!("{need} is not there; it is not declared here, so make it yourself")),
        }
    }

    /// Policies that hang on what is nobody's.
    pub(super) fn links(
        &mut self,
        id: &ObjectId,
        attach: &[ObjectId],
        detach: &[ObjectId],
        found: &[&'a Value],
    ) {
        let Some(found) = found.first() else {
            let error = format!("there is no {} {}: make it", id.kind.as_str(), id.name);
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
        // Only what is ours is taken off.
        let gone: Vec<&ObjectId> = detach.iter().filter(|policy| self.pending_removals.contains(policy)).collect();
        after.retain(|link| !gone.iter().any(|policy| is_link_to(link, policy)));
        if let (Some(error), true) = (&waits_for, before == after) {
            return self.block(id, error);
        }
        if before == after {
            self.push_found(id, found, AclAction::Unchanged, "its policies are as declared");
            return;
        }
        let field = FieldChange {
            path: link_path(id.kind).join("."),
            before: Some(only_names(&before)),
            after: Some(only_names(&after)),
        };
        let mut body = normal::sendable(id.kind, found);
        put(&mut body, link_path(id.kind), after.into());
        let action = AclAction::Update { fields: vec![field], body };
        let reason = "its policies are not as declared; others stay as they are";
        let step = self.push_found(id, found, action, reason);
        step.warnings.extend(
            waits_for.map(|error| format!("not all of it is put right, for something must come first: {error}")),
        );
    }
}

/// The declaration without what must wait.
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

/// A field that the server leaves out of lists, and that a comparison needs.
fn missing_part(kind: ObjectKind, body: &Value) -> Option<&'static str> {
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

/// What a repair does not undo.
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
            Some(
                "tokens that it gave out until now stay valid: look through them with `consul acl token list`",
            )
        }
        ObjectKind::BindingRule if touches(&["Selector", "BindType", "BindName", "BindVars"]) => Some(
            "tokens keep what this rule gave them until now: look through them with `consul acl token list`",
        ),
        ObjectKind::AuthMethod if touches(&["MaxTokenTTL", "TokenLocality"]) => {
            Some("it counts for tokens that are given out from then on")
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

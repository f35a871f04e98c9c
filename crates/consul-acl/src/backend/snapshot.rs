//! What there is, as far as our token may see it: one list a kind and place, and single reads for what a list has only
//! a part of.

use serde_json::Value;

use super::{ConsulAclBackend, said};
use crate::backend::AclSnapshot;
use crate::desired::{
    DesiredObject, DesiredObjects, ObjectId, ObjectScope, AclContext, UndeclaredPolicy, DesiredState, is_ours,
};
use crate::plan::can_skip_read;
use ecs_mesh_consul::ANONYMOUS_TOKEN;
use ecs_mesh_consul::{TokenRefKind, AclObjects};
use ecs_mesh_control_plane::http::StreamTransport;
use ecs_mesh_control_plane::{MeshError, MeshErrorKind};
use ecs_mesh_core::plan::report::ObjectKind;
use ecs_mesh_model::{ClusterArn, OperatorId};

/// After so many calls that nobody answered, the rest is not asked: each would take as long as a call may. After one
/// that servers had no time for, nothing is.
const MAX_UNANSWERED: usize = 2;

impl<T: StreamTransport + 'static> ConsulAclBackend<T> {
    pub(super) async fn read_snapshot(
        &self,
        around: &AclContext<'_>,
        desired: &DesiredObjects,
    ) -> AclSnapshot {
        let mut look = SnapshotReader { backend: self, operator: around.operator, desired, looked: AclSnapshot::default() };
        for (kind, scope) in around.scopes_to_list(desired) {
            if look.needs_listing(kind, &scope) {
                look.at(kind, &scope).await;
            }
        }
        look.looked
    }

    /// How many services are on the node, where an answer with a part of them can be told from a whole one.
    pub(super) async fn services_on(
        &self,
        objects: &AclObjects<T>,
        cluster: &ClusterArn,
    ) -> Result<u64, MeshError> {
        let says_what_it_leaves_out = self.consul.version().is_some_and(|version| version.has_iam_logins());
        if !says_what_it_leaves_out && !self.consul.own_token().await?.is_management() {
            return Err(MeshError::new(
                MeshErrorKind::Forbidden,
                "these servers are older than Consul 1.12, or our token may not see which they are, so they do not say \
                 what they leave out of an answer: only a token with global-management sees all services for certain",
            ));
        }
        objects.services_on(cluster).await
    }
}

struct SnapshotReader<'a, T: StreamTransport + 'static> {
    backend: &'a ConsulAclBackend<T>,
    operator: &'a OperatorId,
    desired: &'a DesiredObjects,
    looked: AclSnapshot,
}

impl<T: StreamTransport + 'static> SnapshotReader<'_, T> {
    async fn at(&mut self, kind: ObjectKind, scope: &ObjectScope) {
        if let Some(why) = self.given_up() {
            return self.looked.actual.mark_unlisted(kind, scope.clone(), why);
        }
        let objects = self.backend.objects_in(scope);
        match self.list(kind, &objects).await {
            Err(error) => {
                self.looked.actual.mark_unlisted(kind, scope.clone(), error.message.clone());
                self.looked.errors.push(error);
            }
            Ok(mut bodies) => {
                match kind {
                    ObjectKind::Policy | ObjectKind::AuthMethod => {
                        self.read_each(kind, scope, &objects, &mut bodies).await;
                    }
                    ObjectKind::Role => self.count_token_refs(TokenRefKind::Role, scope, &objects, &bodies).await,
                    ObjectKind::Node => self.count_services(scope, &objects, &bodies).await,
                    _ => {}
                }
                if kind == ObjectKind::Policy {
                    self.count_token_refs(TokenRefKind::Policy, scope, &objects, &bodies).await;
                }
                self.looked.actual.set_listed(kind, scope.clone(), bodies);
            }
        }
    }

    /// Policies are listed first, and what they hang on last: where nothing of ours is there to be taken off, that need
    /// not be seen.
    fn needs_listing(&self, kind: ObjectKind, scope: &ObjectScope) -> bool {
        let is_here = |object: &&DesiredObject| object.id.kind == kind && object.id.scope == *scope;
        let mut here = self.desired.objects.iter().filter(is_here).peekable();
        let actual = &self.looked.actual;
        here.peek().is_none() || here.any(|object| !can_skip_read(&object.state, actual, self.operator))
    }

    /// Why nothing more is asked.
    fn given_up(&self) -> Option<String> {
        if let Some(error) = self.looked.throttled() {
            return Some(format!("not asked, since the servers have too much to do: {}", error.message));
        }
        let unanswered =
            || self.looked.errors.iter().filter(|error| error.kind == MeshErrorKind::Unreachable);
        let last = unanswered().next_back()?;
        (unanswered().count() >= MAX_UNANSWERED)
            .then(|| format!("not asked, since others got no answer: {}", last.message))
    }

    async fn list(&self, kind: ObjectKind, objects: &AclObjects<T>) -> Result<Vec<Value>, MeshError> {
        Ok(match kind {
            ObjectKind::Policy => {
                let mut stubs: Vec<Value> = objects.policies().await?.iter().map(said).collect();
                for stub in stubs.iter_mut().filter_map(Value::as_object_mut) {
                    // A list has none, whatever the policy has.
                    stub.remove("Rules");
                }
                stubs
            }
            ObjectKind::Role => objects.roles().await?.iter().map(said).collect(),
            ObjectKind::AuthMethod => objects.auth_methods().await?.iter().map(said).collect(),
            ObjectKind::BindingRule => objects.all_binding_rules().await?.iter().map(said).collect(),
            ObjectKind::Node => {
                let named = self.desired.objects.iter().filter(|object| object.id.kind == ObjectKind::Node);
                let names: Vec<&str> = named.map(|object| &*object.id.name).collect();
                objects.nodes_like(&names).await?.iter().map(said).collect()
            }
            ObjectKind::AnonymousToken => {
                let found = objects.anonymous_token().await?;
                found.iter().map(|token| anonymous(said(token))).collect()
            }
            ObjectKind::Namespace => objects.namespaces().await?.iter().map(said).collect(),
        })
    }

    /// Puts the whole object in place of the list's entry, for those that a plan needs whole.
    async fn read_each(
        &mut self,
        kind: ObjectKind,
        scope: &ObjectScope,
        objects: &AclObjects<T>,
        bodies: &mut Vec<Value>,
    ) {
        let mut whole = Vec::with_capacity(bodies.len());
        for stub in std::mem::take(bodies) {
            let name = stub["Name"].as_str().unwrap_or_default().to_owned();
            let id = self.id(kind, scope, &name);
            if !self.is_wanted(&id) && !is_ours(kind, &stub, self.operator) {
                whole.push(stub);
                continue;
            }
            let read = match self.given_up() {
                Some(why) => Err(MeshError::new(MeshErrorKind::Unreachable, why)),
                None => read(kind, objects, &name).await,
            };
            match read {
                Ok(Some(found)) => {
                    if kind == ObjectKind::AuthMethod {
                        self.count_tokens(&id, &found, objects).await;
                    }
                    whole.push(found);
                }
                // It went in between.
                Ok(None) => {}
                Err(error) => {
                    self.looked.actual.mark_unreadable(id, error.message.clone());
                    if self.given_up().is_none() {
                        self.looked.errors.push(error);
                    }
                    whole.push(stub);
                }
            }
        }
        *bodies = whole;
    }

    /// As the manifest writes it, where it does.
    fn id(&self, kind: ObjectKind, scope: &ObjectScope, name: &str) -> ObjectId {
        let found = ObjectId { kind, scope: scope.clone(), name: name.into() };
        let declared = self.desired.objects.iter().find(|object| {
            object.id.kind == kind && object.id.scope == *scope && object.id.name.eq_ignore_ascii_case(name)
        });
        declared.map_or(found, |object| object.id.clone())
    }

    fn is_wanted(&self, id: &ObjectId) -> bool {
        self.desired.objects.iter().any(|object| object.id == *id)
    }

    /// Whether a plan may remove it.
    fn may_be_removed(&self, id: &ObjectId) -> bool {
        match self.desired.objects.iter().find(|object| object.id == *id) {
            Some(object) => object.state == DesiredState::Absent,
            None => self.desired.undeclared == UndeclaredPolicy::Remove,
        }
    }

    /// How many tokens would go along; not knowing stands against nothing.
    async fn count_tokens(&mut self, id: &ObjectId, found: &Value, objects: &AclObjects<T>) {
        if self.may_be_removed(id)
            && is_ours(id.kind, found, self.operator)
            && self.given_up().is_none()
            && let Ok(count) = objects.tokens_of(&id.name).await
        {
            self.looked.actual.tokens_of(id.clone(), count);
        }
    }

    /// Which tokens would lose it; not knowing keeps the role or policy.
    async fn count_token_refs(&mut self, of: TokenRefKind, scope: &ObjectScope, objects: &AclObjects<T>, bodies: &[Value]) {
        let kind = match of {
            TokenRefKind::Role => ObjectKind::Role,
            TokenRefKind::Policy => ObjectKind::Policy,
        };
        for body in bodies.iter().filter(|body| is_ours(kind, body, self.operator)) {
            let id = self.id(kind, scope, body["Name"].as_str().unwrap_or_default());
            if !self.may_be_removed(&id) || self.given_up().is_some() {
                continue;
            }
            match objects.holders(of, body["ID"].as_str().unwrap_or_default()).await {
                Ok(holders) => self.looked.actual.held_by(id, holders),
                Err(error) => self.looked.errors.push(error),
            }
        }
    }

    /// How many services would go along; not knowing keeps the node.
    async fn count_services(&mut self, scope: &ObjectScope, objects: &AclObjects<T>, bodies: &[Value]) {
        for body in bodies.iter().filter(|body| is_ours(ObjectKind::Node, body, self.operator)) {
            let Some(cluster) = body["Node"].as_str().and_then(|name| ClusterArn::parse(name).ok()) else {
                continue;
            };
            let id = self.id(ObjectKind::Node, scope, cluster.as_str());
            if !self.may_be_removed(&id) || self.given_up().is_some() {
                continue;
            }
            match self.backend.services_on(objects, &cluster).await {
                Ok(count) => self.looked.actual.services_on(id, count),
                Err(error) => self.looked.errors.push(error),
            }
        }
    }
}

/// A policy or an auth method, whole.
pub(super) async fn read<T: StreamTransport>(
    kind: ObjectKind,
    objects: &AclObjects<T>,
    name: &str,
) -> Result<Option<Value>, MeshError> {
    if kind == ObjectKind::Policy {
        return Ok(objects.policy(name).await?.as_ref().map(said));
    }
    let mut found = objects.auth_method(name).await?.as_ref().map(said);
    if let Some(fields) = found.as_mut().and_then(Value::as_object_mut) {
        // An empty one is not said, and was read all the same.
        fields.entry("Config").or_insert_with(|| Value::Object(serde_json::Map::new()));
    }
    Ok(found)
}

/// It is known by its accessor, which its form does not keep.
pub(super) fn anonymous(mut token: Value) -> Value {
    token["AccessorID"] = ANONYMOUS_TOKEN.into();
    token
}

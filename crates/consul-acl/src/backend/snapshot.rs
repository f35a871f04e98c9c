//! Reads a snapshot: one list for each kind and scope, and single reads for objects that lists return incompletely.

use serde_json::Value;

use super::{ConsulAclBackend, to_json};
use crate::backend::AclSnapshot;
use crate::desired::{
    AclContext, DesiredObject, DesiredObjects, DesiredState, ObjectId, ObjectScope, OperatorIds,
    UndeclaredPolicy, is_ours,
};
use crate::plan::can_skip_read;
use ecs_mesh_consul::ANONYMOUS_TOKEN;
use ecs_mesh_consul::{AclObjects, TokenRefKind};
use ecs_mesh_control_plane::http::StreamTransport;
use ecs_mesh_control_plane::{MeshError, MeshErrorKind};
use ecs_mesh_core::plan::report::ObjectKind;
use ecs_mesh_model::ClusterArn;

/// Limit of unanswered calls, after which a snapshot makes no more calls. A throttling response ends it at once.
const MAX_UNANSWERED: usize = 2;

impl<T: StreamTransport + 'static> ConsulAclBackend<T> {
    pub(super) async fn read_snapshot(
        &self,
        context: &AclContext<'_>,
        desired: &DesiredObjects,
    ) -> AclSnapshot {
        let mut reader = SnapshotReader {
            backend: self,
            operators: context.operators,
            desired,
            snapshot: AclSnapshot::default(),
        };
        for (kind, scope) in context.scopes_to_list(desired) {
            if reader.needs_listing(kind, &scope) {
                reader.read_kind(kind, &scope).await;
            }
        }
        reader.snapshot
    }

    /// Number of services on the node, if the servers report filtered answers.
    pub(super) async fn services_on(
        &self,
        objects: &AclObjects<T>,
        cluster: &ClusterArn,
    ) -> Result<u64, MeshError> {
        let reports_filtering = self.consul.version().is_some_and(|version| version.has_iam_logins());
        if !reports_filtering && !self.consul.own_token().await?.is_management() {
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
    operators: &'a OperatorIds,
    desired: &'a DesiredObjects,
    snapshot: AclSnapshot,
}

impl<T: StreamTransport + 'static> SnapshotReader<'_, T> {
    async fn read_kind(&mut self, kind: ObjectKind, scope: &ObjectScope) {
        if let Some(reason) = self.stop_reason() {
            return self.snapshot.actual.mark_unlisted(kind, scope.clone(), reason);
        }
        let objects = self.backend.objects_in(scope);
        match self.list(kind, &objects).await {
            Err(error) => {
                self.snapshot.actual.mark_unlisted(kind, scope.clone(), error.message.clone());
                self.snapshot.errors.push(error);
            }
            Ok(mut bodies) => {
                match kind {
                    ObjectKind::Policy | ObjectKind::AuthMethod => {
                        self.read_each(kind, scope, &objects, &mut bodies).await;
                    }
                    ObjectKind::Role => {
                        self.count_token_refs(TokenRefKind::Role, scope, &objects, &bodies).await;
                    }
                    ObjectKind::Node => self.count_services(scope, &objects, &bodies).await,
                    _ => {}
                }
                if kind == ObjectKind::Policy {
                    self.count_token_refs(TokenRefKind::Policy, scope, &objects, &bodies).await;
                }
                self.snapshot.actual.set_listed(kind, scope.clone(), bodies);
            }
        }
    }

    /// Policies are listed first, objects with links to them last: these need no list if no owned policy could be detached.
    fn needs_listing(&self, kind: ObjectKind, scope: &ObjectScope) -> bool {
        let is_here = |object: &&DesiredObject| object.id.kind == kind && object.id.scope == *scope;
        let mut here = self.desired.objects.iter().filter(is_here).peekable();
        let actual = &self.snapshot.actual;
        here.peek().is_none() || here.any(|object| !can_skip_read(&object.state, actual, self.operators))
    }

    /// The reason for making no more calls, if any.
    fn stop_reason(&self) -> Option<String> {
        if let Some(error) = self.snapshot.throttled() {
            return Some(format!("not read, since the servers are throttling: {}", error.message));
        }
        let unanswered =
            || self.snapshot.errors.iter().filter(|error| error.kind == MeshErrorKind::Unreachable);
        let last = unanswered().next_back()?;
        (unanswered().count() >= MAX_UNANSWERED)
            .then(|| format!("not read, since other calls got no answer: {}", last.message))
    }

    async fn list(&self, kind: ObjectKind, objects: &AclObjects<T>) -> Result<Vec<Value>, MeshError> {
        Ok(match kind {
            ObjectKind::Policy => {
                let mut stubs: Vec<Value> = objects.policies().await?.iter().map(to_json).collect();
                for stub in stubs.iter_mut().filter_map(Value::as_object_mut) {
                    // Lists have no rules.
                    stub.remove("Rules");
                }
                stubs
            }
            ObjectKind::Role => objects.roles().await?.iter().map(to_json).collect(),
            ObjectKind::AuthMethod => objects.auth_methods().await?.iter().map(to_json).collect(),
            ObjectKind::BindingRule => objects.all_binding_rules().await?.iter().map(to_json).collect(),
            ObjectKind::Node => {
                let named = self.desired.objects.iter().filter(|object| object.id.kind == ObjectKind::Node);
                let names: Vec<&str> = named.map(|object| &*object.id.name).collect();
                objects.nodes_like(&names).await?.iter().map(to_json).collect()
            }
            ObjectKind::AnonymousToken => {
                let found = objects.anonymous_token().await?;
                found.iter().map(|token| anonymous(to_json(token))).collect()
            }
            ObjectKind::Namespace => objects.namespaces().await?.iter().map(to_json).collect(),
        })
    }

    /// Replaces list entries by the complete objects, for those that a plan needs.
    async fn read_each(
        &mut self,
        kind: ObjectKind,
        scope: &ObjectScope,
        objects: &AclObjects<T>,
        bodies: &mut Vec<Value>,
    ) {
        let mut complete = Vec::with_capacity(bodies.len());
        for stub in std::mem::take(bodies) {
            let name = stub["Name"].as_str().unwrap_or_default().to_owned();
            let id = self.id(kind, scope, &name);
            if !self.is_wanted(&id) && !is_ours(kind, &stub, self.operators) {
                complete.push(stub);
                continue;
            }
            let read = match self.stop_reason() {
                Some(reason) => Err(MeshError::new(MeshErrorKind::Unreachable, reason)),
                None => read(kind, objects, &name).await,
            };
            match read {
                Ok(Some(found)) => {
                    if kind == ObjectKind::AuthMethod {
                        self.count_tokens(&id, &found, objects).await;
                    }
                    complete.push(found);
                }
                // Deleted since the list.
                Ok(None) => {}
                Err(error) => {
                    self.snapshot.actual.mark_unreadable(id, error.message.clone());
                    if self.stop_reason().is_none() {
                        self.snapshot.errors.push(error);
                    }
                    complete.push(stub);
                }
            }
        }
        *bodies = complete;
    }

    /// The id, with the manifest's spelling if declared.
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

    /// Whether a plan may remove the object.
    fn may_be_removed(&self, id: &ObjectId) -> bool {
        match self.desired.objects.iter().find(|object| object.id == *id) {
            Some(object) => object.state == DesiredState::Absent,
            None => self.desired.undeclared == UndeclaredPolicy::Remove,
        }
    }

    /// Counts the tokens that would be removed too. A failure blocks nothing.
    async fn count_tokens(&mut self, id: &ObjectId, found: &Value, objects: &AclObjects<T>) {
        if self.may_be_removed(id)
            && is_ours(id.kind, found, self.operators)
            && self.stop_reason().is_none()
            && let Ok(count) = objects.tokens_of(&id.name).await
        {
            self.snapshot.actual.tokens_of(id.clone(), count);
        }
    }

    /// Which tokens would lose it; not knowing keeps the role or policy.
    async fn count_token_refs(
        &mut self,
        of: TokenRefKind,
        scope: &ObjectScope,
        objects: &AclObjects<T>,
        bodies: &[Value],
    ) {
        let kind = match of {
            TokenRefKind::Role => ObjectKind::Role,
            TokenRefKind::Policy => ObjectKind::Policy,
        };
        for body in bodies.iter().filter(|body| is_ours(kind, body, self.operators)) {
            let id = self.id(kind, scope, body["Name"].as_str().unwrap_or_default());
            if !self.may_be_removed(&id) || self.stop_reason().is_some() {
                continue;
            }
            match objects.token_refs(of, body["ID"].as_str().unwrap_or_default()).await {
                Ok(holders) => self.snapshot.actual.held_by(id, holders),
                Err(error) => self.snapshot.errors.push(error),
            }
        }
    }

    /// Number of services on the node, which its removal would deregister. The node is kept if the number is unknown.
    async fn count_services(&mut self, scope: &ObjectScope, objects: &AclObjects<T>, bodies: &[Value]) {
        for body in bodies.iter().filter(|body| is_ours(ObjectKind::Node, body, self.operators)) {
            let Some(cluster) = body["Node"].as_str().and_then(|name| ClusterArn::parse(name).ok()) else {
                continue;
            };
            let id = self.id(ObjectKind::Node, scope, cluster.as_str());
            if !self.may_be_removed(&id) || self.stop_reason().is_some() {
                continue;
            }
            match self.backend.services_on(objects, &cluster).await {
                Ok(count) => self.snapshot.actual.services_on(id, count),
                Err(error) => self.snapshot.errors.push(error),
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
        return Ok(objects.policy(name).await?.as_ref().map(to_json));
    }
    let mut found = objects.auth_method(name).await?.as_ref().map(to_json);
    if let Some(fields) = found.as_mut().and_then(Value::as_object_mut) {
        // An empty config is omitted although it was read.
        fields.entry("Config").or_insert_with(|| Value::Object(serde_json::Map::new()));
    }
    Ok(found)
}

/// The object is identified by its accessor, which the form does not contain.
pub(super) fn anonymous(mut token: Value) -> Value {
    token["AccessorID"] = ANONYMOUS_TOKEN.into();
    token
}

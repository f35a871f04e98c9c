//! Reads and writes ACL objects over Consul's API.
//!
//! A snapshot marks unreadable parts as unknown. A write is sent only while the server's copy equals the one in the plan,
//! and only to owned or adopted objects.

mod acl_backend;
mod apply;
mod datacenter;
mod snapshot;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::Value;

use crate::desired::{AclContext, DatacenterRole, DesiredObjects, ObjectScope, OperatorIds};
use crate::plan::AclStep;
pub use acl_backend::{AclBackend, AclSnapshot, WriteGate, WriteResult};
use ecs_mesh_consul::AclObjects;
use ecs_mesh_consul::ConsulControlPlane;
use ecs_mesh_control_plane::http::StreamTransport;
use ecs_mesh_control_plane::{MeshError, MeshErrorKind, WriterId};

/// ACL objects over Consul's API.
pub struct ConsulAclBackend<T: StreamTransport + 'static> {
    consul: Arc<ConsulControlPlane<T>>,
    operators: OperatorIds,
}

#[async_trait]
impl<T: StreamTransport + 'static> AclBackend for ConsulAclBackend<T> {
    fn operators(&self) -> &OperatorIds {
        &self.operators
    }

    fn writer(&self) -> Option<&WriterId> {
        self.consul.writer()
    }

    fn watch_auth_methods(&self, methods: BTreeSet<Arc<str>>) {
        self.consul.watch_auth_methods(methods);
    }

    async fn namespaces(&self) -> Result<BTreeSet<Arc<str>>, MeshError> {
        let found = self.consul.observed("acl_snapshot", self.consul.objects().namespaces()).await?;
        Ok(found.into_iter().map(|namespace| namespace.name.into()).collect())
    }

    async fn datacenter(&self) -> DatacenterRole {
        self.find_datacenter().await
    }

    async fn snapshot(&self, context: &AclContext<'_>, desired: &DesiredObjects) -> AclSnapshot {
        let mut snapshot = AclSnapshot::default();
        let read = async {
            snapshot = self.read_snapshot(context, desired).await;
            snapshot.errors.first().map_or(Ok(()), |error| Err(error.clone()))
        };
        // The snapshot has the errors.
        let _ = self.consul.observed("acl_snapshot", read).await;
        snapshot
    }

    async fn apply(
        &self,
        step: &AclStep,
        may_send: &(dyn Fn() -> WriteGate + Sync),
    ) -> Result<WriteResult, MeshError> {
        match self.consul.observed("acl_apply", self.apply_step(step, may_send)).await {
            Err(MeshError { kind: MeshErrorKind::Obstructed(obstacle), .. }) => {
                Ok(WriteResult::Obstructed(obstacle))
            }
            result => result,
        }
    }
}

impl<T: StreamTransport + 'static> ConsulAclBackend<T> {
    /// Uses this client, which also records the calls.
    pub fn new(consul: Arc<ConsulControlPlane<T>>) -> Self {
        let operators = OperatorIds::new(consul.operator().clone());
        Self { operators: operators.with_previous(consul.previous_operator().cloned()), consul }
    }

    /// The objects of a scope.
    fn objects_in(&self, scope: &ObjectScope) -> AclObjects<T> {
        let mut objects = self.consul.objects();
        if let Some(partition) = &scope.partition {
            objects = objects.in_partition(partition);
        }
        if let Some(namespace) = &scope.namespace {
            objects = objects.in_namespace(namespace);
        }
        objects
    }
}

/// The object as JSON with Consul's field names, as a plan compares it.
fn to_json(form: &impl Serialize) -> Value {
    serde_json::to_value(form).unwrap_or_default()
}

//! Consul's identity set-up on ECS over the wire.
//!
//! A look concludes nothing from a part that it could not see; a write goes out only while the server's copy is what
//! it rests on, and never to what is not ours.

mod datacenter;
mod acl_backend;
mod snapshot;
#[cfg(test)]
mod tests;
mod apply;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::Value;

use crate::desired::{DatacenterRole, DesiredObjects, ObjectScope, AclContext};
use crate::plan::AclStep;
use ecs_mesh_consul::ConsulControlPlane;
use ecs_mesh_consul::AclObjects;
use ecs_mesh_control_plane::http::StreamTransport;
use ecs_mesh_control_plane::{MeshError, MeshErrorKind};
pub use acl_backend::{AclBackend, AclSnapshot, WriteGate, WriteResult};

/// Consul's objects for logins of tasks, over the wire.
pub struct ConsulAclBackend<T: StreamTransport + 'static> {
    consul: Arc<ConsulControlPlane<T>>,
}

#[async_trait]
impl<T: StreamTransport + 'static> AclBackend for ConsulAclBackend<T> {
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

    async fn snapshot(&self, around: &AclContext<'_>, desired: &DesiredObjects) -> AclSnapshot {
        let mut looked = AclSnapshot::default();
        let look = async {
            looked = self.read_snapshot(around, desired).await;
            looked.errors.first().map_or(Ok(()), |error| Err(error.clone()))
        };
        // The errors are in there.
        let _ = self.consul.observed("acl_snapshot", look).await;
        looked
    }

    async fn apply(
        &self,
        step: &AclStep,
        may_send: &(dyn Fn() -> WriteGate + Sync),
    ) -> Result<WriteResult, MeshError> {
        match self.consul.observed("acl_apply", self.apply_step(step, may_send)).await {
            Err(error) if error.kind == MeshErrorKind::NotLeader => Ok(WriteResult::NoLease),
            ended => ended,
        }
    }
}

impl<T: StreamTransport + 'static> ConsulAclBackend<T> {
    /// Looks and writes through this client, and counts as its calls.
    pub fn new(consul: Arc<ConsulControlPlane<T>>) -> Self {
        Self { consul }
    }

    /// The objects of a place.
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

/// In Consul's words, as a plan compares it. Forms are maps with texts for keys, which JSON can say.
fn said(form: &impl Serialize) -> Value {
    serde_json::to_value(form).unwrap_or_default()
}

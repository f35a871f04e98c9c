//! Consul's identity set-up on ECS over the wire.
//!
//! A look concludes nothing from a part that it could not see; a write goes out only while the server's copy is what
//! it rests on, and never to what is not ours.

mod datacenter;
mod identities;
mod look;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::Value;

use crate::desired::{Datacenter, DesiredObjects, Scope, Surroundings};
use crate::plan::ObjectStep;
use ecs_mesh_consul::ConsulControlPlane;
use ecs_mesh_consul::Objects;
use ecs_mesh_control_plane::http::StreamTransport;
use ecs_mesh_control_plane::{MeshError, MeshErrorKind};
pub use identities::{Identities, Looked, MaySend, Written};

/// Consul's objects for logins of tasks, over the wire.
pub struct ConsulAclBackend<T: StreamTransport + 'static> {
    consul: Arc<ConsulControlPlane<T>>,
}

#[async_trait]
impl<T: StreamTransport + 'static> Identities for ConsulAclBackend<T> {
    fn look_after(&self, methods: BTreeSet<Arc<str>>) {
        self.consul.look_after(methods);
    }

    async fn namespaces(&self) -> Result<BTreeSet<Arc<str>>, MeshError> {
        let found = self.consul.observed("objects", self.consul.objects().namespaces()).await?;
        Ok(found.into_iter().map(|namespace| namespace.name.into()).collect())
    }

    async fn datacenter(&self) -> Datacenter {
        self.find_datacenter().await
    }

    async fn look(&self, around: &Surroundings<'_>, desired: &DesiredObjects) -> Looked {
        let mut looked = Looked::default();
        let look = async {
            looked = self.look_at_objects(around, desired).await;
            looked.errors.first().map_or(Ok(()), |error| Err(error.clone()))
        };
        // The errors are in there.
        let _ = self.consul.observed("objects", look).await;
        looked
    }

    async fn carry_out(
        &self,
        step: &ObjectStep,
        may_send: &(dyn Fn() -> MaySend + Sync),
    ) -> Result<Written, MeshError> {
        match self.consul.observed("object", self.carry_out_step(step, may_send)).await {
            Err(error) if error.kind == MeshErrorKind::NoLease => Ok(Written::NoLease),
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
    fn objects_in(&self, scope: &Scope) -> Objects<T> {
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

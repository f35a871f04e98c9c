//! Consul's identity set-up on ECS over the wire.
//!
//! A look concludes nothing from a part that it could not see; a write goes out only while the server's copy is what
//! it rests on, and never to what is not ours.

mod datacenter;
mod look;
mod write;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::Value;

use super::client::ConsulControlPlane;
use super::objects::Objects;
use crate::intent::identity::{Datacenter, DesiredObjects, Scope, Surroundings};
use crate::mesh::http::StreamTransport;
use crate::mesh::{Identities, Looked, MaySend, MeshError, MeshErrorKind, Written};
use crate::plan::ObjectStep;

#[async_trait]
impl<T: StreamTransport + 'static> Identities for ConsulControlPlane<T> {
    fn look_after(&self, methods: BTreeSet<Arc<str>>) {
        ConsulControlPlane::look_after(self, methods);
    }

    async fn namespaces(&self) -> Result<BTreeSet<Arc<str>>, MeshError> {
        let found = self.observed("objects", self.objects().namespaces()).await?;
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
        let _ = self.observed("objects", look).await;
        looked
    }

    async fn carry_out(
        &self,
        step: &ObjectStep,
        may_send: &(dyn Fn() -> MaySend + Sync),
    ) -> Result<Written, MeshError> {
        match self.observed("object", self.carry_out_step(step, may_send)).await {
            Err(error) if error.kind == MeshErrorKind::NoLease => Ok(Written::NoLease),
            ended => ended,
        }
    }
}

impl<T: StreamTransport + 'static> ConsulControlPlane<T> {
    /// The objects of a place.
    fn objects_in(&self, scope: &Scope) -> Objects<T> {
        let mut objects = self.objects();
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

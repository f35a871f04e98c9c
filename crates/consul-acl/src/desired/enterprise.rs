//! Reads across namespaces and partitions (Enterprise): default policies of namespaces.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{DesiredObjectsBuilder, DesiredState, Edition, ObjectId, templates};
use ecs_mesh_api::Presence;
use ecs_mesh_core::plan::report::ObjectKind;

pub(super) const CROSS_NAMESPACE: &str = "cross-namespace-read";
pub(super) const CROSS_PARTITION: &str = "cross-partition-read";

impl DesiredObjectsBuilder<'_> {
    pub(super) fn enterprise(
        &mut self,
        cross_namespace: Option<Presence>,
        cross_partition: Option<Presence>,
    ) {
        let Edition::Enterprise { partition, namespaces } = self.context.edition.clone() else { return };
        let (mut attach, mut detach) = (Vec::new(), Vec::new());
        let parts = [
            (
                CROSS_NAMESPACE,
                cross_namespace,
                "Allow service and node reads across namespaces within the partition",
                templates::cross_namespace_rules(&partition),
            ),
            (
                CROSS_PARTITION,
                cross_partition,
                "Allow service and node reads across partitions",
                templates::cross_partition_rules(),
            ),
        ];
        for (name, presence, description, rules) in parts {
            let policy = self.id(ObjectKind::Policy, name);
            match presence {
                None => {}
                Some(Presence::Present) => {
                    self.policy(&policy, description, &rules);
                    attach.push(policy);
                }
                Some(Presence::Absent) => {
                    self.add(policy.clone(), DesiredState::Absent);
                    detach.push(policy);
                }
            }
        }
        if !attach.is_empty() || !detach.is_empty() {
            self.defaults_of(namespaces, &attach, &detach);
        }
    }

    /// Always includes the namespace `default`, which has the auth method.
    fn defaults_of(&mut self, mut namespaces: BTreeSet<Arc<str>>, attach: &[ObjectId], detach: &[ObjectId]) {
        namespaces.insert("default".into());
        for namespace in namespaces {
            let scope = self.context.edition.partition_scope();
            let id = ObjectId { kind: ObjectKind::Namespace, scope, name: namespace };
            self.add(id, DesiredState::PolicyLinks { attach: attach.to_vec(), detach: detach.to_vec() });
        }
    }
}

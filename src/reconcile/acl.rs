//! What the operator is to those who look after Consul's ACL objects.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::book::{Book, Page};
use super::{Operator, Plane};
use crate::telemetry::metrics::Metrics;
use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_consul_acl::reconcile::{AclDryRun, AclHost, AclMetrics, AclReconciler};
use ecs_mesh_core::plan::proposal::{Item, ObjectKind};
use ecs_mesh_model::ClusterArn;

impl Operator {
    /// Looks after a plane's objects, where it has such.
    pub(super) fn acl_reconciler(self: &Arc<Self>, plane: &Plane) -> Option<AclReconciler> {
        Some(AclReconciler {
            operator: self.id.clone(),
            target: Arc::clone(plane.acl.as_ref()?),
            host: Arc::clone(self) as _,
            metrics: Arc::clone(&self.metrics) as _,
            dry_run: self.book.clone().map(|book| book as _),
            lease: Arc::clone(&self.lease),
            clock: self.clock.clone(),
            seed: self.seed,
        })
    }
}

impl AclHost for Operator {
    fn manifests(&self) -> Arc<ManifestSet> {
        Operator::manifests(self)
    }

    fn clusters_at(&self, set: &ManifestSet, control_plane: &str) -> BTreeSet<ClusterArn> {
        Operator::clusters_at(self, set, control_plane)
    }

    fn sweep_interval(&self) -> Duration {
        Operator::sweep_interval(self)
    }

    fn sweep_anew(&self) {
        Operator::sweep_anew(self);
    }
}

impl AclMetrics for Metrics {
    fn object_changed(&self, kind: ObjectKind, change: &'static str, ok: bool) {
        Metrics::object_changed(self, kind, change, ok);
    }

    fn held(&self, reason: &'static str) {
        Metrics::held(self, reason);
    }
}

impl AclDryRun for Book {
    fn record(&self, control_plane: &Arc<str>, items: Vec<Item>) {
        let mut page = Page::default();
        items.into_iter().for_each(|item| page.note(item));
        self.turn(control_plane, None, page);
    }

    fn gap(&self, what: &str, why: Option<String>) {
        match why {
            Some(why) => Book::gap(self, what, why),
            None => self.no_gap(what),
        }
    }
}

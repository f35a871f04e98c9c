//! A lease that permits no write while the audit log is blocked.

use std::sync::Arc;

use ecs_mesh_controller::{Lease, LeaseTerm, WriteObstacle};

use crate::telemetry::log::LogStats;

/// Another lease, with the obstacle of an audit log that standard error does not take.
pub struct AuditedLease {
    lease: Arc<dyn Lease>,
    log: Arc<LogStats>,
}

impl AuditedLease {
    /// Adds the log's obstacle to `lease`.
    pub fn new(lease: Arc<dyn Lease>, log: Arc<LogStats>) -> Self {
        Self { lease, log }
    }
}

impl Lease for AuditedLease {
    fn term(&self) -> LeaseTerm {
        self.lease.term()
    }

    fn obstacle(&self) -> Option<WriteObstacle> {
        let blocked = || self.log.audit_is_blocked().then_some(WriteObstacle::AuditBacklog);
        self.lease.obstacle().or_else(blocked)
    }
}

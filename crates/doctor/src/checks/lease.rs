//! The lease's store, where one is named.

use crate::catalogue::LEASE_STORE;
use crate::facts::DoctorFacts;
use crate::report::CheckResult;
use ecs_mesh_lease::LeaseStoreErrorKind;

pub(super) fn check(facts: &DoctorFacts) -> Option<CheckResult> {
    let lease = facts.lease.as_ref()?;
    let subject = &lease.location;
    let error = match &lease.record {
        Ok(stored) => {
            let holder = stored.as_ref().and_then(|stored| stored.record.holder.as_ref());
            let held = holder.map_or_else(
                || "readable, and no copy leads".to_owned(),
                |holder| format!("readable, and {holder} leads"),
            );
            return Some(LEASE_STORE.ok(subject, held));
        }
        Err(error) => error,
    };
    let (found, fix) = error.message.split_once("; help: ").unwrap_or((&error.message, ""));
    Some(match error.kind {
        LeaseStoreErrorKind::AccessDenied => {
            let all = "`doctor --print-iam-policy` and `--print-acl-policy` print the complete policy, with --lease";
            LEASE_STORE.error(subject, found, if fix.is_empty() { all } else { fix })
        }
        LeaseStoreErrorKind::TableMissing | LeaseStoreErrorKind::Malformed | LeaseStoreErrorKind::Invalid => {
            LEASE_STORE.error(subject, found, fix)
        }
        LeaseStoreErrorKind::Throttled | LeaseStoreErrorKind::Unreachable => {
            LEASE_STORE.unknown(subject, found, if fix.is_empty() { "run the doctor again" } else { fix })
        }
    })
}

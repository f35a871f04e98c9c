//! The record of a lease in a store.

use std::fmt;
use std::time::Duration;

/// The longest part of a holder's name that is kept.
const MAX_NAME: usize = 200;

/// One process that holds the lease or wants it. Each start of a process has another one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HolderId(String);

impl HolderId {
    /// A new identity of this process. `name` is for people: the task's ARN, or the host.
    pub fn generate(name: &str) -> Self {
        let name: String = name.chars().filter(char::is_ascii_graphic).take(MAX_NAME).collect();
        Self(format!("{name}_{:016x}", fastrand::u64(..)))
    }

    /// The identity in a record.
    pub fn recorded(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text in the record.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HolderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The record of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRecord {
    /// The holder; `None` after a release.
    pub holder: Option<HolderId>,
    /// Grows with each change of the holder.
    pub epoch: u64,
    /// The holder's lease duration.
    pub duration: Duration,
}

/// A record as it was read, with its version, which each write changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// The record.
    pub record: LeaseRecord,
    /// Its version.
    pub version: u64,
}

/// Why a record is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseWriteKind {
    /// To hold the lease from now on.
    Acquire,
    /// To hold it for longer.
    Renew,
    /// To let another process hold it at once.
    Release,
}

/// A conditional write of the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseWrite {
    /// Why.
    pub kind: LeaseWriteKind,
    /// The writer.
    pub writer: HolderId,
    /// The record must have this version; with `None` there must be no record.
    pub expected: Option<u64>,
    /// The new record.
    pub record: LeaseRecord,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_start_has_another_identity() {
        let first = HolderId::generate("host 1\n");
        assert!(first.as_str().starts_with("host1_"), "{first}");
        assert_ne!(first, HolderId::generate("host 1\n"));
    }
}

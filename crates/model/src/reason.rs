//! A message for a person, with a key that groups equal causes.

use std::fmt;

/// The reason of a decision. The message may name its task; the key does not, so that a condition that a thousand tasks
/// share is logged once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reason {
    /// Equal for all tasks with the same cause.
    pub key: String,
    /// The message for a person.
    pub message: String,
}

impl Reason {
    /// A reason whose message names its task; `key` groups it.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into() }
    }

    /// A reason whose message is equal for all tasks and serves as the key.
    pub fn constant(message: impl Into<String>) -> Self {
        let message = message.into();
        Self { key: message.clone(), message }
    }

    /// Puts the subject before key and message.
    #[must_use]
    pub fn with_prefix(self, subject: &str) -> Self {
        Self { key: format!("{subject}: {}", self.key), message: format!("{subject}: {}", self.message) }
    }

    /// Joins several reasons into one.
    pub fn join(reasons: &[Self]) -> Self {
        let join = |part: fn(&Self) -> &str| reasons.iter().map(part).collect::<Vec<_>>().join("; ");
        Self { key: join(|reason| &reason.key), message: join(|reason| &reason.message) }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

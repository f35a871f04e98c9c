//! Why something is so, in words for a person, beside the cause by which the same is known again for others.

use std::fmt;

/// A reason. The words name the one that it is about; the cause names nobody, so that what befalls a thousand for one
/// cause can be told once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reason {
    /// The same for all that it is true of.
    pub key: String,
    /// For a person.
    pub message: String,
}

impl Reason {
    /// Of words that need a cause beside them.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into() }
    }

    /// Of words that name nobody.
    pub fn constant(message: impl Into<String>) -> Self {
        let message = message.into();
        Self { key: message.clone(), message }
    }

    /// The same, with what it is about before it.
    #[must_use]
    pub fn with_prefix(self, what: &str) -> Self {
        Self { key: format!("{what}: {}", self.key), message: format!("{what}: {}", self.message) }
    }

    /// Several as one.
    pub fn join(several: &[Self]) -> Self {
        let join = |part: fn(&Self) -> &str| several.iter().map(part).collect::<Vec<_>>().join("; ");
        Self { key: join(|why| &why.key), message: join(|why| &why.message) }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

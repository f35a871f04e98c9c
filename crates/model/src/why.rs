//! Why something is so, in words for a person, beside the cause by which the same is known again for others.

use std::fmt;

/// A reason. The words name the one that it is about; the cause names nobody, so that what befalls a thousand for one
/// cause can be told once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Why {
    /// The same for all that it is true of.
    pub cause: String,
    /// For a person.
    pub words: String,
}

impl Why {
    /// Of words that need a cause beside them.
    pub fn new(cause: impl Into<String>, words: impl Into<String>) -> Self {
        Self { cause: cause.into(), words: words.into() }
    }

    /// Of words that name nobody.
    pub fn of_all(words: impl Into<String>) -> Self {
        let words = words.into();
        Self { cause: words.clone(), words }
    }

    /// The same, with what it is about before it.
    #[must_use]
    pub fn about(self, what: &str) -> Self {
        Self { cause: format!("{what}: {}", self.cause), words: format!("{what}: {}", self.words) }
    }

    /// Several as one.
    pub fn all(several: &[Self]) -> Self {
        let join = |part: fn(&Self) -> &str| several.iter().map(part).collect::<Vec<_>>().join("; ");
        Self { cause: join(|why| &why.cause), words: join(|why| &why.words) }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

//! Wildcards of selectors: `*` and `?` only, so that no other character of a pattern is special.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A pattern that matches a complete text: `*` stands for any run of characters (including `/` and `:`), `?` for one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Glob(String);

impl Glob {
    /// Creates a pattern. Every text is valid; a text without `*` and `?` matches only itself.
    pub fn new(pattern: impl Into<String>) -> Self {
        Self(pattern.into())
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the pattern has no wildcard and therefore matches exactly one text.
    pub fn is_literal(&self) -> bool {
        !self.0.contains(['*', '?'])
    }

    /// Whether the complete text matches. Linear in practice: matching backtracks only to the last `*`.
    pub fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        let (mut p, mut t) = (0, 0);
        let mut backtrack: Option<(usize, usize)> = None;
        while t < text.len() {
            if p < pattern.len() && (pattern[p] == b'?' || pattern[p] == text[t]) && pattern[p] != b'*' {
                p += 1;
                t += 1;
            } else if p < pattern.len() && pattern[p] == b'*' {
                backtrack = Some((p, t));
                p += 1;
            } else if let Some((star, from)) = backtrack {
                p = star + 1;
                t = from + 1;
                backtrack = Some((star, from + 1));
            } else {
                return false;
            }
        }
        pattern[p..].iter().all(|&b| b == b'*')
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glob_matches_the_complete_text() {
        for (pattern, text, expected) in [
            ("batch-*", "batch-7", true),
            ("batch-*", "a-batch-7", false),
            ("*-batch", "a-batch", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-d", false),
            ("k?", "kv", true),
            ("k?", "k", false),
            ("*", "", true),
            ("", "", true),
            ("", "x", false),
            ("arn:*:cluster/prod-*", "arn:aws:ecs:eu-west-1:1:cluster/prod-a", true),
        ] {
            assert_eq!(Glob::new(pattern).matches(text), expected, "{pattern:?} on {text:?}");
        }
    }
}

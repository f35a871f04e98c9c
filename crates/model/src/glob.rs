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

    /// Whether a text matches both patterns.
    pub fn overlaps(&self, other: &Self) -> bool {
        if self.is_literal() {
            return other.matches(&self.0);
        }
        if other.is_literal() {
            return self.matches(&other.0);
        }
        let (a, b) = (self.0.as_bytes(), other.0.as_bytes());
        // Whether a text matches the beginnings of both: row by the length of `a`'s, column by that of `b`'s.
        let mut rows = vec![vec![false; b.len() + 1]; a.len() + 1];
        for i in 0..=a.len() {
            for j in 0..=b.len() {
                let (last_a, last_b) = (i.checked_sub(1).map(|i| a[i]), j.checked_sub(1).map(|j| b[j]));
                rows[i][j] = match (last_a, last_b) {
                    (None, None) => true,
                    // It matches nothing, or the last character of the other pattern, too.
                    (Some(b'*'), _) | (_, Some(b'*')) => i > 0 && rows[i - 1][j] || j > 0 && rows[i][j - 1],
                    (Some(a), Some(b)) => (a == b || a == b'?' || b == b'?') && rows[i - 1][j - 1],
                    _ => false,
                };
            }
        }
        rows[a.len()][b.len()]
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

    #[test]
    fn globs_overlap_if_a_text_matches_both() {
        for (a, b, expected) in [
            ("a", "a", true),
            ("a", "b", false),
            ("*", "", true),
            ("", "?", false),
            ("prod-*", "*-eu", true),
            ("prod-*", "stage-*", false),
            ("*-eu", "*-us", false),
            ("a*c", "ab?", true),
            ("a?", "abc", false),
            ("*:cluster/sandbox", "arn:aws:ecs:eu-west-1:1:cluster/*", true),
            ("*:cluster/sandbox", "arn:aws:ecs:eu-west-1:1:cluster/stage", false),
        ] {
            let (a, b) = (Glob::new(a), Glob::new(b));
            assert_eq!((a.overlaps(&b), b.overlaps(&a)), (expected, expected), "{a} and {b}");
        }
    }
}

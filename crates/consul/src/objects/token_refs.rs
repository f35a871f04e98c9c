//! The tokens that refer to a role or a policy. Removing the object silently removes it from all tokens, so plans show
//! the affected tokens first.

use std::collections::BTreeMap;

use crate::ANONYMOUS_TOKEN;

/// The maximum number of accessors that are kept as examples.
const MAX_EXAMPLES: usize = 3;

/// The counts of the tokens that refer to one role or policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenRefs {
    /// Login tokens, by auth method.
    of_methods: BTreeMap<String, u64>,
    /// Tokens that were created manually.
    count: u64,
    /// Accessors of some manually created tokens.
    examples: Vec<String>,
    /// The anonymous token refers to the object.
    anonymous: bool,
}

impl TokenRefs {
    /// Counts a token; `method` is empty for a token that was created manually.
    pub fn add(&mut self, accessor: &str, method: &str) {
        if accessor == ANONYMOUS_TOKEN {
            self.anonymous = true;
        } else if method.is_empty() {
            self.count += 1;
            if self.examples.len() < MAX_EXAMPLES {
                self.examples.push(accessor.to_owned());
            }
        } else {
            *self.of_methods.entry(method.to_owned()).or_default() += 1;
        }
    }

    /// Whether no token refers to the object.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The counts without the anonymous token.
    #[must_use]
    pub fn without_anonymous(&self) -> Self {
        Self { anonymous: false, ..self.clone() }
    }

    /// The number of login tokens of the selected auth methods.
    pub fn of_logins(&self, is_selected: impl Fn(&str) -> bool) -> u64 {
        self.of_methods.iter().filter(|(method, _)| is_selected(method)).map(|(_, count)| count).sum()
    }

    /// Describes the tokens that do not come from logins by owned auth methods; `None` if there are none.
    pub fn of_others(&self, is_owned: impl Fn(&str) -> bool) -> Option<String> {
        let mut parts = Vec::new();
        if self.count > 0 {
            let more = if self.examples.len() as u64 == self.count { "" } else { ", …" };
            parts.push(format!("{} created manually ({}{more})", self.count, self.examples.join(", ")));
        }
        if self.anonymous {
            parts.push("the anonymous token".to_owned());
        }
        let foreign = self.of_methods.iter().filter(|(method, _)| !is_owned(method));
        parts.extend(
            foreign.map(|(method, count)| format!("{count} of logins by the unowned auth method {method}")),
        );
        (!parts.is_empty())
            .then(|| format!("these tokens refer to it and would lose it: {}", parts.join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_others_are_counted_with_examples() {
        let mut refs = TokenRefs::default();
        for (accessor, method) in [("a", "ours"), ("b", "ours"), ("c", "sso")] {
            refs.add(accessor, method);
        }
        for accessor in ["1", "2", "3", "4"] {
            refs.add(accessor, "");
        }
        refs.add(ANONYMOUS_TOKEN, "");
        let is_owned = |method: &str| method == "ours";
        assert_eq!(refs.of_logins(is_owned), 2);
        assert_eq!(
            refs.of_others(is_owned).unwrap(),
            "these tokens refer to it and would lose it: 4 created manually (1, 2, 3, …); the anonymous token; 1 of \
             logins by the unowned auth method sso"
        );
        let mut refs = TokenRefs::default();
        refs.add("a", "ours");
        assert_eq!(refs.of_others(is_owned), None);
        assert!(!refs.is_empty());
    }
}

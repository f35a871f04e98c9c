//! Who has a role or a policy: tokens keep nothing of one that is removed, and Consul warns nobody.

use std::collections::BTreeMap;

use crate::ANONYMOUS_TOKEN;

/// So many are named; the rest is counted.
const NAMED: usize = 3;

/// The tokens that have one role or policy. Of each only its number counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenRefs {
    /// Of logins, by auth method.
    of_methods: BTreeMap<String, u64>,
    /// That somebody made.
    count: u64,
    /// Accessors of some of these.
    examples: Vec<String>,
    /// The one that counts where a request has none.
    anonymous: bool,
}

impl TokenRefs {
    /// One more; `method` is empty in a token that no login gave out.
    pub fn add(&mut self, accessor: &str, method: &str) {
        if accessor == ANONYMOUS_TOKEN {
            self.anonymous = true;
        } else if method.is_empty() {
            self.count += 1;
            if self.examples.len() < NAMED {
                self.examples.push(accessor.to_owned());
            }
        } else {
            *self.of_methods.entry(method.to_owned()).or_default() += 1;
        }
    }

    /// Whether no token has it.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The same once the anonymous token has lost it.
    #[must_use]
    pub fn without_anonymous(&self) -> Self {
        Self { anonymous: false, ..self.clone() }
    }

    /// How many tokens of logins by these methods there are.
    pub fn of_logins(&self, is_one: impl Fn(&str) -> bool) -> u64 {
        self.of_methods.iter().filter(|(method, _)| is_one(method)).map(|(_, count)| count).sum()
    }

    /// Those that no login by a method of ours gave out, in words.
    pub fn of_others(&self, is_ours: impl Fn(&str) -> bool) -> Option<String> {
        let mut parts = Vec::new();
        if self.count > 0 {
            let more = if self.examples.len() as u64 == self.count { "" } else { ", …" };
            parts.push(format!("{} that somebody made ({}{more})", self.count, self.examples.join(", ")));
        }
        if self.anonymous {
            parts.push("the anonymous token".to_owned());
        }
        let foreign = self.of_methods.iter().filter(|(method, _)| !is_ours(method));
        parts.extend(
            foreign.map(|(method, count)| {
                format!("{count} of logins by auth method {method}, which is not ours")
            }),
        );
        (!parts.is_empty()).then(|| format!("tokens have it and would lose it: {}", parts.join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_tokens_are_counted_and_some_are_named() {
        let mut holders = TokenRefs::default();
        for (accessor, method) in [("a", "ours"), ("b", "ours"), ("c", "sso")] {
            holders.add(accessor, method);
        }
        for accessor in ["1", "2", "3", "4"] {
            holders.add(accessor, "");
        }
        holders.add(ANONYMOUS_TOKEN, "");
        let is_ours = |method: &str| method == "ours";
        assert_eq!(holders.of_logins(is_ours), 2);
        assert_eq!(
            holders.of_others(is_ours).unwrap(),
            "tokens have it and would lose it: 4 that somebody made (1, 2, 3, …); the anonymous token; 1 of logins by \
             auth method sso, which is not ours"
        );
        let mut holders = TokenRefs::default();
        holders.add("a", "ours");
        assert_eq!(holders.of_others(is_ours), None);
        assert!(!holders.is_empty());
    }
}

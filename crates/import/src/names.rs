//! Valid names for names of other systems, the same in each run.

use std::collections::{BTreeMap, BTreeSet};

use ecs_mesh_model::short_digest;

/// The longest name of a manifest, and of a DNS label.
const MAX_LENGTH: usize = 63;

/// A rule for names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameRule {
    /// `metadata.name`.
    Manifest,
    /// A DNS label, which is also a service's name in every version of Kuma.
    Label,
}

impl NameRule {
    fn allows(self, byte: u8) -> bool {
        byte.is_ascii_lowercase()
            || byte.is_ascii_digit()
            || byte == b'-'
            || (self == Self::Manifest && byte == b'.')
    }

    /// The text with all that is not allowed replaced. The text itself if it is valid.
    pub(crate) fn closest(self, text: &str) -> String {
        let lower = text.to_ascii_lowercase();
        let replaced: String =
            lower.chars().map(|c| if c.is_ascii() && self.allows(c as u8) { c } else { '-' }).collect();
        let mut name = replaced.trim_matches(['-', '.']).to_owned();
        if self == Self::Label && !name.starts_with(|c: char| c.is_ascii_lowercase()) {
            name.insert_str(0, if name.is_empty() { "x" } else { "x-" });
        }
        if name.is_empty() {
            "x".clone_into(&mut name);
        }
        if name.len() > MAX_LENGTH {
            name = with_digest(&name, text);
        }
        name
    }
}

/// The name's start, and the digest of what it stands for.
fn with_digest(name: &str, text: &str) -> String {
    let digest = &short_digest(text)[..8];
    let start: String = name.chars().take(MAX_LENGTH - digest.len() - 1).collect();
    format!("{}-{digest}", start.trim_end_matches(['-', '.']))
}

/// The names for a set of keys. Keys whose name is valid keep it; of others that would have the same name, each gets one
/// with a digest.
pub(crate) fn assign(rule: NameRule, wanted: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for text in wanted.values() {
        *counts.entry(rule.closest(text)).or_default() += 1;
    }
    let mut taken = BTreeSet::new();
    let mut names = BTreeMap::new();
    let is_exact = |text: &String| rule.closest(text) == *text;
    let (exact, others): (Vec<_>, Vec<_>) = wanted.iter().partition(|(_, text)| is_exact(text));
    for (key, text) in exact.into_iter().chain(others) {
        let name = rule.closest(text);
        let name = if counts[&name] > 1 && (!is_exact(text) || taken.contains(&name)) {
            with_digest(&name, key)
        } else {
            name
        };
        taken.insert(name.clone());
        names.insert(key.clone(), name);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_valid_and_stay_the_same() {
        for (text, name) in [
            ("kv", "kv"),
            ("Colour_Teller", "colour-teller"),
            ("kv.demo.local", "kv.demo.local"),
            ("-a-", "a"),
            ("ü", "x"),
        ] {
            assert_eq!(NameRule::Manifest.closest(text), name);
        }
        assert_eq!(NameRule::Label.closest("1.a"), "x-1-a");
        let long = "a".repeat(100);
        assert_eq!(NameRule::Manifest.closest(&long).len(), 63);
        assert_ne!(NameRule::Manifest.closest(&long), NameRule::Manifest.closest(&(long.clone() + "b")));
    }

    #[test]
    fn equal_names_are_told_apart() {
        let wanted = [("1", "kv"), ("2", "KV"), ("3", "Kv"), ("4", "web")];
        let wanted = wanted.map(|(key, text)| (key.to_owned(), text.to_owned())).into();
        let names = assign(NameRule::Label, &wanted);
        assert_eq!((&*names["1"], &*names["4"]), ("kv", "web"));
        let distinct: BTreeSet<&String> = names.values().collect();
        assert_eq!(distinct.len(), 4, "{names:?}");
    }
}

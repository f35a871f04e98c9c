//! Warns once: a condition that holds is warned of when it begins or changes, and again only after it was over.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::lock;

/// The conditions that hold and have been warned of, by key. The value is what may change while a condition holds.
///
/// ```
/// use ecs_mesh_controller::ActiveWarnings;
///
/// let warnings = ActiveWarnings::default();
/// assert!(warnings.raise("queue", "access denied"), "new: log it");
/// assert!(!warnings.raise("queue", "access denied"), "known");
/// assert!(warnings.raise("queue", "no such queue"), "changed: log it");
/// assert!(warnings.clear(&"queue"));
/// assert!(warnings.raise("queue", "no such queue"), "it was over: log it");
/// ```
#[derive(Debug)]
pub struct ActiveWarnings<K, V = ()> {
    active: Mutex<BTreeMap<K, V>>,
}

impl<K, V> Default for ActiveWarnings<K, V> {
    fn default() -> Self {
        Self { active: Mutex::new(BTreeMap::new()) }
    }
}

impl<K: Ord + Clone, V: PartialEq> ActiveWarnings<K, V> {
    /// The condition holds. `true` if it did not before, or with another value: then it is to be logged.
    pub fn raise(&self, key: K, value: V) -> bool {
        let mut active = lock(&self.active);
        let is_known = active.get(&key).is_some_and(|known| *known == value);
        if !is_known {
            active.insert(key, value);
        }
        !is_known
    }

    /// The condition is over. `true` if it held.
    pub fn clear(&self, key: &K) -> bool {
        lock(&self.active).remove(key).is_some()
    }

    /// Clears all conditions but those for which `holds` is true. Returns the cleared ones.
    pub fn retain(&self, mut holds: impl FnMut(&K) -> bool) -> Vec<K> {
        let mut cleared = Vec::new();
        lock(&self.active).retain(|key, _| {
            let keep = holds(key);
            if !keep {
                cleared.push(key.clone());
            }
            keep
        });
        cleared
    }

    /// The conditions that hold.
    pub fn keys(&self) -> Vec<K> {
        lock(&self.active).keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retain_returns_what_is_over_and_keeps_the_rest() {
        let warnings = ActiveWarnings::default();
        for key in ["a", "b", "c"] {
            assert!(warnings.raise(key, ()));
        }
        assert_eq!(warnings.retain(|key| *key == "b"), ["a", "c"]);
        assert_eq!(warnings.keys(), ["b"]);
        assert!(!warnings.raise("b", ()) && warnings.raise("c", ()));
        assert!(!warnings.clear(&"a"));
    }
}

//! The mesh's list of revoked tokens, which other writers change, too.

use std::collections::BTreeSet;

use super::record::TokenId;

/// The ids of revoked tokens, in the order and spelling of the stored list.
///
/// A server compares the texts between commas, after the removal of one line break at the end. All else in the list is
/// kept as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevocationList(Vec<String>);

impl RevocationList {
    /// Reads the text of the stored list.
    pub fn parse(text: &str) -> Self {
        let text = text.strip_suffix('\n').unwrap_or(text);
        if text.is_empty() { Self::default() } else { Self(text.split(',').map(str::to_owned).collect()) }
    }

    /// The text to store.
    pub fn text(&self) -> String {
        self.0.join(",")
    }

    /// Whether the token is revoked.
    pub fn contains(&self, id: &TokenId) -> bool {
        self.0.iter().any(|item| item == id.as_str())
    }

    /// Which of these ids may be taken from the list. A list without ids is not written, so the last one stays.
    pub fn prunable<'i>(&self, ids: impl IntoIterator<Item = &'i TokenId>) -> BTreeSet<TokenId> {
        let mut found: BTreeSet<TokenId> = ids.into_iter().filter(|id| self.contains(id)).cloned().collect();
        if self.0.iter().all(|item| found.iter().any(|id| id.as_str() == item)) {
            found.pop_last();
        }
        found
    }

    /// The list with the ids of `add` and without those of `remove`; `None` if nothing is to be written.
    pub fn changed(&self, add: &BTreeSet<TokenId>, remove: &BTreeSet<TokenId>) -> Option<Self> {
        let is_kept = |item: &&String| !remove.iter().any(|id| id.as_str() == *item && !add.contains(id));
        let mut items: Vec<String> = self.0.iter().filter(is_kept).cloned().collect();
        let new = add.iter().filter(|id| !self.contains(id));
        items.extend(new.map(|id| id.as_str().to_owned()));
        let changed = Self(items);
        (changed != *self && !changed.0.is_empty()).then_some(changed)
    }

    /// Whether the list has every id of `add`, and everything that `before` had but `remove`.
    pub fn is_result_of(&self, before: &Self, add: &BTreeSet<TokenId>, remove: &BTreeSet<TokenId>) -> bool {
        let is_removed = |item: &String| remove.iter().any(|id| id.as_str() == item);
        add.iter().all(|id| self.contains(id))
            && before.0.iter().all(|item| is_removed(item) || self.0.contains(item))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[&str]) -> BTreeSet<TokenId> {
        ids.iter().map(|id| TokenId::parse(id).unwrap()).collect()
    }

    #[test]
    fn list_is_merged_without_loss() {
        for (text, add, remove, expected) in [
            ("", &["a"][..], &[][..], Some("a")),
            ("x,y", &["a"], &[], Some("x,y,a")),
            // Otherwise the server would no longer find y.
            ("x,y\n", &["a"], &[], Some("x,y,a")),
            // Items of other writers stay as they are, whatever they are.
            (" x,,y ", &["a"], &["gone"], Some(" x,,y ,a")),
            ("x,a", &["a"], &[], None),
            ("a,x", &[], &["a"], Some("x")),
            ("a,x", &["b"], &["a"], Some("x,b")),
            // A token that must stay revoked is not removed.
            ("a,x", &["a"], &["a"], None),
            ("a", &[], &["a"], None),
        ] {
            let changed = RevocationList::parse(text).changed(&ids(add), &ids(remove));
            assert_eq!(changed.map(|list| list.text()).as_deref(), expected, "{text:?} {add:?} {remove:?}");
        }
    }

    #[test]
    fn last_id_of_a_list_is_not_prunable() {
        let prunable = |text: &str, of: &[&str]| RevocationList::parse(text).prunable(&ids(of));
        assert_eq!(prunable("a,b,x", &["a", "b", "c"]), ids(&["a", "b"]));
        assert_eq!(prunable("a,b", &["a", "b"]), ids(&["a"]));
        assert_eq!(prunable("a", &["a"]), ids(&[]));
    }

    #[test]
    fn lost_item_is_noticed() {
        let before = RevocationList::parse("x,old");
        let (add, remove) = (ids(&["a"]), ids(&["old"]));
        let is_result = |text: &str| RevocationList::parse(text).is_result_of(&before, &add, &remove);
        assert!(is_result("x,a") && is_result("x,a,of another writer"));
        assert!(!is_result("x") && !is_result("a"));
    }
}

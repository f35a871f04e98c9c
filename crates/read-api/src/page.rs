//! Pages by key: stable while items come and go.

use crate::{ListView, Paging, ResourceView};

/// An item of a list.
pub trait PageItem: ResourceView + Clone {
    /// The key, unique in its list. A list is in ascending order of its keys.
    fn key(&self) -> String;
}

/// The page of those items that match. The items are in ascending order of their keys.
///
/// A page begins behind the key of the last one, whether that item still exists or not: an item that exists all the time is
/// on exactly one page.
pub fn page<'a, T: PageItem + 'a>(
    items: impl IntoIterator<Item = &'a T>,
    paging: &Paging,
    matches: impl Fn(&T) -> bool,
) -> ListView<T> {
    let (mut found, mut total, mut has_more) = (Vec::new(), 0, false);
    for item in items.into_iter().filter(|item| matches(item)) {
        total += 1;
        if has_more || paging.after.as_ref().is_some_and(|after| item.key() <= *after) {
            continue;
        }
        if found.len() == paging.limit {
            has_more = true;
        } else {
            found.push(item.clone());
        }
    }
    let next = found.last().filter(|_| has_more).map(|last| Paging::token(&last.key()));
    ListView::new(found, total, next)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{BindingFilter, Query};

    #[derive(Clone)]
    struct Item(String);

    impl ResourceView for Item {
        const KIND: &'static str = "Item";
    }

    impl PageItem for Item {
        fn key(&self) -> String {
            self.0.clone()
        }
    }

    fn items(keys: impl IntoIterator<Item = usize>) -> Vec<Item> {
        let keys: BTreeSet<usize> = keys.into_iter().collect();
        keys.into_iter().map(|key| Item(format!("{key:04}"))).collect()
    }

    #[test]
    fn pages_have_each_lasting_item_once_while_others_change() {
        let mut paging = Paging { limit: 7, after: None };
        let mut seen = Vec::new();
        for round in 0.. {
            // Even items last; odd ones come and go, the last item of a page among them.
            let now = items((0..100).filter(|key| key % 2 == 0 || (key / 2 + round) % 3 == 0));
            let got = page(&now, &paging, |_| true);
            assert_eq!(got.total, now.len());
            seen.extend(got.items.iter().map(Item::key));
            let Some(next) = got.next else { break };
            let query = Query::<BindingFilter>::parse(&format!("limit=7&continue={next}")).unwrap();
            paging = query.paging;
        }
        let lasting: Vec<String> = items((0..100).step_by(2)).iter().map(Item::key).collect();
        let found: Vec<String> =
            seen.into_iter().filter(|key| key.parse::<usize>().unwrap() % 2 == 0).collect();
        assert_eq!(found, lasting);
    }

    #[test]
    fn last_page_has_no_continuation() {
        let all = items(0..10);
        assert!(page(&all, &Paging { limit: 10, after: None }, |_| true).next.is_none());
        assert!(page(&all, &Paging { limit: 9, after: None }, |_| true).next.is_some());
        let behind = page(&all, &Paging { limit: 9, after: Some("9999".to_owned()) }, |_| true);
        assert_eq!((behind.items.len(), behind.total, behind.next), (0, 10, None));
    }

    #[test]
    fn total_counts_the_matching_items_of_all_pages() {
        let got = page(&items(0..50), &Paging { limit: 3, after: None }, |item| item.0.ends_with('4'));
        assert_eq!((got.items.len(), got.total), (3, 5));
    }
}

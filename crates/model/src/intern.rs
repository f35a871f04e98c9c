//! Keeps one copy of the values that many tasks share: texts such as cluster, definition, role and service, and tags.
//!
//! Without interning, these copies make up most of the memory of an operator with ten thousand tasks.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use super::Tags;

/// Pools smaller than this are not pruned.
const MIN_POOL: usize = 1_024;

static TEXTS: Mutex<Option<Pool<str>>> = Mutex::new(None);
static TAGS: Mutex<Option<Pool<Tags>>> = Mutex::new(None);

/// Returns the shared allocation of this text.
pub fn intern(text: &str) -> Arc<str> {
    intern_in(&TEXTS, text)
}

/// Returns the shared allocation of these tags.
pub fn intern_tags(tags: Tags) -> Arc<Tags> {
    intern_in(&TAGS, tags)
}

fn intern_in<T, V>(pool: &Mutex<Option<Pool<T>>>, value: V) -> Arc<T>
where
    T: Hash + Eq + ?Sized,
    V: Borrow<T> + Into<Arc<T>>,
{
    let mut pool = pool.lock().unwrap_or_else(PoisonError::into_inner);
    pool.get_or_insert_with(Pool::default).intern(value)
}

struct Pool<T: ?Sized> {
    values: HashSet<Arc<T>>,
    /// At this size, values without another reference are dropped.
    prune_at: usize,
}

impl<T: ?Sized> Default for Pool<T> {
    fn default() -> Self {
        Self { values: HashSet::new(), prune_at: MIN_POOL }
    }
}

impl<T: Hash + Eq + ?Sized> Pool<T> {
    fn intern(&mut self, value: impl Borrow<T> + Into<Arc<T>>) -> Arc<T> {
        if let Some(known) = self.values.get(value.borrow()) {
            return Arc::clone(known);
        }
        if self.values.len() >= self.prune_at {
            self.values.retain(|value| Arc::strong_count(value) > 1);
            self.prune_at = MIN_POOL.max(self.values.len() * 2);
        }
        let new: Arc<T> = value.into();
        self.values.insert(Arc::clone(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_share_one_allocation() {
        assert!(Arc::ptr_eq(&intern("one text"), &intern("one text")));
        assert_eq!(&*intern("another"), "another");
        let tags = |value: &str| Tags::from([("key".to_owned(), value.to_owned())]);
        assert!(Arc::ptr_eq(&intern_tags(tags("a")), &intern_tags(tags("a"))));
        assert_eq!(*intern_tags(tags("b")), tags("b"));
    }

    #[test]
    fn pool_drops_values_when_unreferenced() {
        let mut pool: Pool<str> = Pool::default();
        let kept = pool.intern("kept");
        for n in 0..10 * MIN_POOL {
            pool.intern(n.to_string());
        }
        assert!(pool.values.len() <= 2 * MIN_POOL, "{}", pool.values.len());
        assert!(Arc::ptr_eq(&kept, &pool.intern("kept")));
    }
}

//! One copy of what many tasks have in common: texts such as their cluster, definition, role and service, and their
//! tags. With ten thousand tasks the copies would be most of what is kept.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use super::Tags;

/// With fewer than this nothing is thrown out.
const MIN_POOL: usize = 1_024;

static TEXTS: Mutex<Option<Pool<str>>> = Mutex::new(None);
static TAGS: Mutex<Option<Pool<Tags>>> = Mutex::new(None);

/// The text, in the same allocation for everybody who has it.
pub fn intern(text: &str) -> Arc<str> {
    of(&TEXTS, text)
}

/// The tags, in the same allocation for everybody who has them.
pub fn intern_tags(tags: Tags) -> Arc<Tags> {
    of(&TAGS, tags)
}

fn of<T, V>(pool: &Mutex<Option<Pool<T>>>, value: V) -> Arc<T>
where
    T: Hash + Eq + ?Sized,
    V: Borrow<T> + Into<Arc<T>>,
{
    let mut pool = pool.lock().unwrap_or_else(PoisonError::into_inner);
    pool.get_or_insert_with(Pool::default).of(value)
}

struct Pool<T: ?Sized> {
    values: HashSet<Arc<T>>,
    /// At this size values that nobody has any more are thrown out.
    full: usize,
}

impl<T: ?Sized> Default for Pool<T> {
    fn default() -> Self {
        Self { values: HashSet::new(), full: MIN_POOL }
    }
}

impl<T: Hash + Eq + ?Sized> Pool<T> {
    fn of(&mut self, value: impl Borrow<T> + Into<Arc<T>>) -> Arc<T> {
        if let Some(known) = self.values.get(value.borrow()) {
            return Arc::clone(known);
        }
        if self.values.len() >= self.full {
            self.values.retain(|value| Arc::strong_count(value) > 1);
            self.full = MIN_POOL.max(self.values.len() * 2);
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
    fn equal_values_are_one_and_others_are_not() {
        assert!(Arc::ptr_eq(&intern("one text"), &intern("one text")));
        assert_eq!(&*intern("another"), "another");
        let tags = |value: &str| Tags::from([("key".to_owned(), value.to_owned())]);
        assert!(Arc::ptr_eq(&intern_tags(tags("a")), &intern_tags(tags("a"))));
        assert_eq!(*intern_tags(tags("b")), tags("b"));
    }

    #[test]
    fn what_nobody_has_any_more_is_thrown_out() {
        let mut pool: Pool<str> = Pool::default();
        let kept = pool.of("kept");
        for n in 0..10 * MIN_POOL {
            pool.of(n.to_string());
        }
        assert!(pool.values.len() <= 2 * MIN_POOL, "{}", pool.values.len());
        assert!(Arc::ptr_eq(&kept, &pool.of("kept")));
    }
}

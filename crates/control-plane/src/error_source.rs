//! Causes that errors share with their copies.

use std::error::Error;
use std::ops::Deref;
use std::sync::Arc;

/// The cause of an error, shared by all copies of the error. Two causes are equal if their texts are.
#[derive(Clone, Debug)]
pub struct ErrorSource(Arc<dyn Error + Send + Sync>);

impl<E: Error + Send + Sync + 'static> From<E> for ErrorSource {
    fn from(error: E) -> Self {
        Self(Arc::new(error))
    }
}

impl Deref for ErrorSource {
    type Target = dyn Error + Send + Sync;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl PartialEq for ErrorSource {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_string() == other.0.to_string()
    }
}

impl Eq for ErrorSource {}

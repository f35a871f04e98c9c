//! Where tokens for sidecars are stored: secrets of Secrets Manager, or parameters of SSM. Tokens are written and never
//! read.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;

use crate::aws::AwsError;

/// Tags by key.
pub type EntryTags = BTreeMap<String, String>;

/// A store's description of an entry, without its token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntryDescription {
    /// The tags.
    pub tags: EntryTags,
    /// Whether it is scheduled for deletion: it is neither read nor written until it is restored or gone.
    pub is_deleting: bool,
}

/// One page of names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntryPage {
    /// The names.
    pub names: Vec<String>,
    /// The start of the next page; `None` after the last one.
    pub next: Option<String>,
}

/// A token to store under a new name.
#[derive(Clone, Copy)]
pub struct NewEntry<'a> {
    /// The name.
    pub name: &'a str,
    /// The KMS key; `None`: that of the store.
    pub kms_key: Option<&'a str>,
    /// The tags.
    pub tags: &'a EntryTags,
    /// The token.
    pub text: &'a str,
}

impl fmt::Debug for NewEntry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewEntry").field("name", &self.name).field("tags", &self.tags).finish_non_exhaustive()
    }
}

/// A store of tokens. No error contains a token.
#[async_trait]
pub trait TokenStore: Send + Sync {
    /// Lists the names below a path, page by page. A name of the last minutes may be missing.
    async fn list(&self, path: &str, next: Option<String>) -> Result<EntryPage, AwsError>;

    /// Lists the names of all entries with this tag, page by page, wherever they are.
    async fn list_tagged(&self, key: &str, value: &str, next: Option<String>) -> Result<EntryPage, AwsError>;

    /// The current tags; `None` if there is no entry of this name.
    async fn describe(&self, name: &str) -> Result<Option<EntryDescription>, AwsError>;

    /// Stores the first token with its tags in one call. Fails if the name is taken.
    async fn create(&self, entry: NewEntry<'_>) -> Result<(), AwsError>;

    /// Stores another token. `kms_key` counts where the store takes one with each token.
    async fn put(&self, name: &str, kms_key: Option<&str>, text: &str) -> Result<(), AwsError>;

    /// Adds tags, or changes their values. Other tags stay.
    async fn set_tags(&self, name: &str, tags: &EntryTags) -> Result<(), AwsError>;

    /// Removes the entry, without a way back. One that does not exist is no error.
    async fn remove(&self, name: &str) -> Result<(), AwsError>;
}

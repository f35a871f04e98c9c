//! Lists, page by page.

use serde_json::Value;

use crate::error::ApiError;
use crate::http::ApiClient;
use crate::resource::ResourceKind;

/// Items of a page: half of the most that an operator gives, so that the first rows come soon.
pub(crate) const PAGE_ITEMS: usize = 500;

/// Most pages of a list: a million objects, of which an operator has some ten thousand.
const MAX_PAGES: usize = 2_000;

/// A page of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The list's `apiVersion`.
    pub api_version: String,
    /// The list's `kind`.
    pub kind: String,
    /// The items.
    pub items: Vec<Value>,
}

/// Reads a list.
pub struct Pages<'a> {
    client: &'a ApiClient,
    kind: ResourceKind,
    query: Vec<(String, String)>,
    next: Next,
    read: usize,
}

enum Next {
    First,
    After(String),
    End,
}

impl<'a> Pages<'a> {
    /// The list of this kind, with the filters of `query`.
    pub fn new(client: &'a ApiClient, kind: ResourceKind, query: &[(String, String)]) -> Self {
        Self { client, kind, query: query.to_vec(), next: Next::First, read: 0 }
    }

    /// The next page; `None` after the last one.
    ///
    /// # Errors
    /// If the call fails, or the answer is no list.
    pub async fn next_page(&mut self) -> Result<Option<Page>, ApiError> {
        let mut query = self.query.clone();
        query.push(("limit".to_owned(), PAGE_ITEMS.to_string()));
        match &self.next {
            Next::First => {}
            Next::After(token) => query.push(("continue".to_owned(), token.clone())),
            Next::End => return Ok(None),
        }
        let mut list = self.client.get(&[self.kind.plural()], &query).await?;
        let malformed = |cause: &str| ApiError::Malformed {
            url: format!("{}/api/v1/{}", self.client.address(), self.kind.plural()),
            cause: cause.to_owned(),
        };
        let items = list.as_object_mut().and_then(|list| list.remove("items"));
        let Some(Value::Array(items)) = items.filter(is_objects) else {
            return Err(malformed("the answer is no list of objects"));
        };
        self.read += 1;
        self.next = match (list["continue"].as_str(), &self.next) {
            (None, _) => Next::End,
            // A page that another follows has items.
            (Some(_), _) if items.is_empty() || self.read == MAX_PAGES => {
                return Err(malformed("the list does not end"));
            }
            (Some(token), Next::After(last)) if token == last => {
                return Err(malformed("the list does not end"));
            }
            (Some(token), _) => Next::After(token.to_owned()),
        };
        let text = |key: &str| list[key].as_str().unwrap_or_default().to_owned();
        Ok(Some(Page { api_version: text("apiVersion"), kind: text("kind"), items }))
    }
}

fn is_objects(items: &Value) -> bool {
    items.as_array().is_some_and(|items| items.iter().all(Value::is_object))
}

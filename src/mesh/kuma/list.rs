//! Whole lists out of pages. A page that fails fails the list; a list that does not end is an error.

use serde_json::Value;

/// The largest page that the API gives.
const PAGE_SIZE: &str = "1000";

/// Most pages that a list may have: a million items.
pub(super) const MOST_PAGES: usize = 1000;

/// The path and query of one page.
pub(super) fn page_path(path: &str, filter: Option<(&str, &str)>, offset: Option<&str>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    if let Some((label, value)) = filter {
        query.append_pair(&format!("filter[labels.{label}]"), value);
    }
    query.append_pair("size", PAGE_SIZE);
    if let Some(offset) = offset {
        query.append_pair("offset", offset);
    }
    format!("{path}?{}", query.finish())
}

/// A page's items, and where the next page starts.
pub(super) struct Page {
    pub(super) items: Vec<Value>,
    pub(super) next: Option<String>,
}

/// Reads a page; the error says what is wrong with it.
pub(super) fn read_page(mut answer: Value) -> Result<Page, &'static str> {
    let next = match answer.get("next") {
        None | Some(Value::Null) => None,
        Some(Value::String(url)) if url.is_empty() => None,
        // An absolute URL made from the Host header, which need not lead back to the server: only the offset counts.
        Some(Value::String(url)) => Some(offset(url).ok_or("its field next has no offset")?),
        Some(_) => return Err("its field next is not a URL"),
    };
    match answer.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => Ok(Page { items, next }),
        Some(Value::Null) => Ok(Page { items: Vec::new(), next }),
        _ => Err("it has no items"),
    }
}

fn offset(url: &str) -> Option<String> {
    let (_, query) = url.split_once('?')?;
    let query = query.split('#').next()?;
    form_urlencoded::parse(query.as_bytes())
        .find(|(name, _)| name == "offset")
        .map(|(_, value)| value.into_owned())
        .filter(|offset| !offset.is_empty())
}

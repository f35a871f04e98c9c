//! Whole lists out of pages. A page that fails fails the list; a list that does not end is an error.

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// The largest page that the API gives.
const PAGE_SIZE: &str = "1000";

/// Most pages that a list may have: a million items.
pub(super) const MAX_PAGES: usize = 1000;

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

/// A page: its items as they are written, since all of them read at once would take many times the page's size.
pub(super) struct DataplanePage<'a> {
    pub(super) items: Vec<&'a RawValue>,
    /// The offset of the next page.
    pub(super) fix: Option<String>,
}

#[derive(Deserialize)]
struct RawPage<'a> {
    #[serde(borrow, default)]
    items: PageItems<'a>,
    #[serde(default)]
    fix: Value,
}

/// A list that is null is empty; one that is not there is none.
#[derive(Default)]
enum PageItems<'a> {
    #[default]
    Absent,
    Given(Vec<&'a RawValue>),
}

impl<'de: 'a, 'a> Deserialize<'de> for PageItems<'a> {
    fn deserialize<D: Deserializer<'de>>(field: D) -> Result<Self, D::Error> {
        Option::<Vec<&'a RawValue>>::deserialize(field).map(|items| Self::Given(items.unwrap_or_default()))
    }
}

/// Reads a page. The error says what is wrong with it, where it is JSON at all.
pub(super) fn read_page(body: &[u8]) -> Result<DataplanePage<'_>, PageFlaw> {
    let written: RawPage<'_> = serde_json::from_slice(body).map_err(|error| {
        if error.is_data() { PageFlaw::Shape("it has no items") } else { PageFlaw::NotJson(error) }
    })?;
    let PageItems::Given(items) = written.items else { return Err(PageFlaw::Shape("it has no items")) };
    let fix = match written.fix {
        Value::Null => None,
        Value::String(url) if url.is_empty() => None,
        // An absolute URL made from the Host header, which need not lead back to the server: only the offset counts.
        Value::String(url) => Some(offset(&url).ok_or(PageFlaw::Shape("its field next has no offset"))?),
        _ => return Err(PageFlaw::Shape("its field next is not a URL")),
    };
    Ok(DataplanePage { items, fix })
}

/// What is wrong with a page.
#[derive(Debug)]
pub(super) enum PageFlaw {
    /// It is not JSON.
    NotJson(serde_json::Error),
    /// It is not what a list looks like.
    Shape(&'static str),
}

fn offset(url: &str) -> Option<String> {
    let (_, query) = url.split_once('?')?;
    let query = query.split('#').next()?;
    form_urlencoded::parse(query.as_bytes())
        .find(|(name, _)| name == "offset")
        .map(|(_, value)| value.into_owned())
        .filter(|offset| !offset.is_empty())
}

//! Paged lists. A failed page fails the list, and a list that does not end is an error.

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// The largest page size of the API.
const PAGE_SIZE: &str = "1000";

/// The maximum number of pages of a list: a million items.
pub(super) const MAX_PAGES: usize = 1000;

/// Selects the items of a list.
#[derive(Clone, Copy, Debug)]
pub(super) enum ListFilter<'a> {
    /// With this value of a label. Servers before 2.10 ignore it.
    Label(&'a str, &'a str),
    /// With a tag of an inbound or gateway that contains this value.
    Tag(&'a str, &'a str),
}
/// The query parameter that holds the offset of a page.
pub(super) const OFFSET: &str = "&offset=";

/// The path and query of one page.
pub(super) fn page_path(path: &str, filter: Option<ListFilter<'_>>, offset: Option<&str>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    match filter {
        Some(ListFilter::Label(label, value)) => {
            query.append_pair(&format!("filter[labels.{label}]"), value);
        }
        Some(ListFilter::Tag(tag, value)) => {
            query.append_pair("tag", &format!("{tag}:{value}"));
        }
        None => {}
    }
    query.append_pair("size", PAGE_SIZE);
    if let Some(offset) = offset {
        query.append_pair("offset", offset);
    }
    format!("{path}?{}", query.finish())
}

/// A page with its items as raw JSON, since all items parsed at once take many times the page's size.
pub(super) struct DataplanePage<'a> {
    pub(super) items: Vec<&'a RawValue>,
    /// The offset of the next page.
    pub(super) next: Option<String>,
}

#[derive(Deserialize)]
struct RawPage<'a> {
    #[serde(borrow, default)]
    items: PageItems<'a>,
    #[serde(default)]
    next: Value,
}

/// A null list is empty; an absent one is an error.
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

/// Reads a page.
pub(super) fn read_page(body: &[u8]) -> Result<DataplanePage<'_>, PageFlaw> {
    let page: RawPage<'_> = serde_json::from_slice(body).map_err(|error| {
        if error.is_data() { PageFlaw::Shape("no field items") } else { PageFlaw::NotJson(error) }
    })?;
    let PageItems::Given(items) = page.items else { return Err(PageFlaw::Shape("no field items")) };
    let next = match page.next {
        Value::Null => None,
        Value::String(url) if url.is_empty() => None,
        // The server builds the URL from the Host header, so the URL may lead elsewhere: only its offset is used.
        Value::String(url) => Some(offset(&url).ok_or(PageFlaw::Shape("field next without offset"))?),
        _ => return Err(PageFlaw::Shape("field next is not a URL")),
    };
    Ok(DataplanePage { items, next })
}

/// The problem of an invalid page.
#[derive(Debug)]
pub(super) enum PageFlaw {
    /// The body is not JSON.
    NotJson(serde_json::Error),
    /// The JSON is not a list.
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

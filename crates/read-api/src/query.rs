//! Query strings of lists: paging, filters, and errors that name the parameter.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::{ErrorView, decode, encode};

/// Items of a page without `limit`.
pub const DEFAULT_LIMIT: usize = 100;

/// Most items of a page.
pub const MAX_LIMIT: usize = 1_000;

/// Characters of a value that an error repeats.
const QUOTED: usize = 60;

/// Which part of a list is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paging {
    /// Most items, from 1 to [`MAX_LIMIT`].
    pub limit: usize,
    /// The key of the last item of the previous page.
    pub after: Option<String>,
}

impl Default for Paging {
    fn default() -> Self {
        Self { limit: DEFAULT_LIMIT, after: None }
    }
}

impl Paging {
    /// The value of `continue` for the items behind this key.
    pub fn token(key: &str) -> String {
        URL_SAFE_NO_PAD.encode(key)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<bool, ErrorView> {
        match name {
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
                self.limit = limit.ok_or_else(|| {
                    let found = quoted(value);
                    ErrorView::parameter("limit", format!("limit: found {found}, expected 1 to {MAX_LIMIT}"))
                })?;
            }
            "continue" => {
                let key = URL_SAFE_NO_PAD.decode(value).ok().and_then(|key| String::from_utf8(key).ok());
                self.after = Some(key.filter(|key| !key.is_empty()).ok_or_else(|| {
                    let message = "continue: expected the value of an earlier answer, unchanged";
                    ErrorView::parameter("continue", message)
                })?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// A value of a filter.
pub trait FilterValue: Sized {
    /// Parses the value.
    ///
    /// # Errors
    /// The allowed values, for a person.
    fn parse(text: &str) -> Result<Self, String>;

    /// The text that [`Self::parse`] reads.
    fn render(&self) -> String;
}

/// The filters of one list.
pub trait Filter: Default {
    /// The names of its parameters.
    const PARAMETERS: &'static [&'static str];

    /// Sets a filter. `Ok(false)`: there is none of this name.
    ///
    /// # Errors
    /// The value is malformed.
    fn set(&mut self, name: &str, value: &str) -> Result<bool, ErrorView>;

    /// The filters that are set, as parameters.
    fn parameters(&self) -> Vec<(&'static str, String)>;
}

/// A parsed query string.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query<F> {
    /// Which part of the list.
    pub paging: Paging,
    /// Which items.
    pub filter: F,
}

impl<F: Filter> Query<F> {
    /// Parses a query string.
    ///
    /// # Errors
    /// A parameter that is unknown, malformed, out of bounds or given twice.
    pub fn parse(query: &str) -> Result<Self, ErrorView> {
        let mut parsed = Self::default();
        parse_pairs(query, |name, value| {
            Ok(parsed.paging.set(name, value)? || parsed.filter.set(name, value)?)
        })
        .map_err(|unknown| unknown.named::<F>(&["limit", "continue"]))?;
        Ok(parsed)
    }

    /// The query string that [`Self::parse`] reads. Values that a server assumes without it are left out.
    pub fn to_query_string(&self) -> String {
        let mut pairs = Vec::new();
        if self.paging.limit != DEFAULT_LIMIT {
            pairs.push(("limit", self.paging.limit.to_string()));
        }
        if let Some(after) = &self.paging.after {
            pairs.push(("continue", Paging::token(after)));
        }
        pairs.extend(self.filter.parameters());
        join_pairs(&pairs)
    }
}

/// Parses the query string of an object or a graph, which has filters and no pages.
pub(crate) fn parse_filter<F: Filter>(query: &str) -> Result<F, ErrorView> {
    let mut filter = F::default();
    parse_pairs(query, |name, value| filter.set(name, value)).map_err(|unknown| unknown.named::<F>(&[]))?;
    Ok(filter)
}

pub(crate) fn join_pairs(pairs: &[(&'static str, String)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    pairs.join("&")
}

/// An error, or a name that no parameter has.
enum PairError {
    Error(ErrorView),
    Unknown(String),
}

impl PairError {
    fn named<F: Filter>(self, paging: &[&str]) -> ErrorView {
        match self {
            Self::Error(error) => error,
            Self::Unknown(name) => {
                let allowed: Vec<&str> = F::PARAMETERS.iter().chain(paging).copied().collect();
                let allowed =
                    if allowed.is_empty() { "none is allowed".to_owned() } else { allowed.join(", ") };
                let message = format!("unknown parameter {}; allowed: {allowed}", quoted(&name));
                let name: String = name.chars().take(QUOTED).collect();
                ErrorView::parameter(&name, message)
            }
        }
    }
}

fn parse_pairs(
    query: &str,
    mut set: impl FnMut(&str, &str) -> Result<bool, ErrorView>,
) -> Result<(), PairError> {
    let mut seen = BTreeSet::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (Some(name), Some(value)) = (decode(name), decode(value)) else {
            let name: String = name.chars().take(QUOTED).collect();
            let error = ErrorView::parameter(&name, "malformed percent-encoding, or text that is not UTF-8");
            return Err(PairError::Error(error));
        };
        if !set(&name, &value).map_err(PairError::Error)? {
            return Err(PairError::Unknown(name));
        }
        if !seen.insert(name.clone()) {
            let error = ErrorView::parameter(&name, format!("{name}: given twice"));
            return Err(PairError::Error(error));
        }
    }
    Ok(())
}

/// A value of the request, cut, for a message.
pub(crate) fn quoted(text: &str) -> String {
    let short: String = text.chars().take(QUOTED).collect();
    let dots = if short.len() < text.len() { "…" } else { "" };
    format!("{short:?}{dots}")
}

//! Lists: pages, filters and links to the next page.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::Value;

use super::body::{label, list, object};
use super::insights;
use super::kinds::ResourceType;
use super::message::KumaRequestTarget;
use super::object::MeshAndName;
use super::problem::{FieldViolations, KumaProblem};
use super::release::EmulatedRelease;
use super::server::KumaCp;
use ecs_mesh_api::KumaFeature;

const DEFAULT_SIZE: usize = 100;
const MAX_SIZE: usize = 1000;
const NOT_LISTED: &str = "The list could not be made";

/// A parsed query of a list.
pub(super) struct ListQuery {
    size: usize,
    offset: String,
    name: String,
    labels: Vec<(String, String)>,
    tags: Vec<(String, String)>,
}

impl ListQuery {
    /// Parses and validates the query. The server does this before it checks that the mesh exists.
    pub(super) fn parse(
        target: &KumaRequestTarget,
        kind: &ResourceType,
        in_one_mesh: bool,
        overview: bool,
        release: EmulatedRelease,
    ) -> Result<Self, KumaProblem> {
        let path = route_pattern(target, kind, in_one_mesh, overview);
        let size = size(target.parameter("size"))?;
        let has_filters = release.has(KumaFeature::LabelFilters);
        let labels = if has_filters { label_filters(target, &path)? } else { Vec::new() };
        let tags = if kind.name == "Dataplane" { tag_filters(target) } else { Vec::new() };
        Ok(Self {
            size,
            offset: target.parameter("offset").to_owned(),
            name: target.parameter("name").to_owned(),
            labels,
            tags,
        })
    }

    fn matches(&self, name: &str, body: &Value) -> bool {
        name.contains(&self.name)
            && self
                .labels
                .iter()
                .all(|(key, value)| object(body, "labels").contains_key(key) && label(body, key) == value)
            && (self.tags.is_empty() || self.matches_tags(body))
    }

    /// Whether one inbound or the gateway has all tags, each containing the wanted text.
    fn matches_tags(&self, body: &Value) -> bool {
        let networking = &body["networking"];
        list(networking, "inbound").iter().chain(networking.get("gateway")).any(|holder| {
            self.tags.iter().all(|(name, wanted)| {
                let found = object(holder, "tags").get(name).and_then(Value::as_str);
                found.is_some_and(|found| wanted == "*" || found.contains(wanted.as_str()))
            })
        })
    }

    fn offset(&self) -> Result<usize, KumaProblem> {
        if self.offset.is_empty() {
            return Ok(0);
        }
        let wrong = || {
            KumaProblem::new(400, NOT_LISTED, format!("the offset {:?} is not a number from 0", self.offset))
        };
        let offset: i64 = self.offset.parse().map_err(|_| wrong())?;
        let offset = usize::try_from(offset).map_err(|_| wrong())?;
        if offset > usize::try_from(i64::MAX).unwrap_or(usize::MAX) - self.size {
            return Err(wrong());
        }
        Ok(offset)
    }
}

/// The response body of a list.
#[derive(Serialize)]
pub(super) struct ObjectList<'a> {
    items: Vec<Cow<'a, Value>>,
    next: Option<String>,
    total: usize,
}

impl KumaCp {
    /// The response body of a list.
    pub(super) fn listed(
        &self,
        kind: &'static ResourceType,
        mesh: Option<&str>,
        overview: bool,
        page: &ListQuery,
        target: &KumaRequestTarget,
        host: &str,
    ) -> Result<ObjectList<'_>, KumaProblem> {
        let offset = page.offset()?;
        let owned = |all: Vec<Value>| {
            let shown = all.into_iter().skip(offset).take(page.size);
            shown.map(Cow::Owned).collect::<Vec<_>>()
        };
        let (total, items) = match kind.name {
            "ServiceInsight" => {
                let all = insights::services(self, mesh, |name| name.contains(&page.name));
                (all.len(), owned(all))
            }
            "DataplaneInsight" => {
                let all = insights::dataplane_resources(self, mesh, &page.name);
                (all.len(), owned(all))
            }
            _ => {
                // One object that cannot be read fails the whole list.
                let mut all: Vec<(&MeshAndName, Cow<'_, Value>)> = Vec::new();
                for (key, object) in self.store.list(kind.name, mesh) {
                    all.push((key, object.read(kind, key, self.release())?));
                }
                let matching: Vec<_> =
                    all.into_iter().filter(|((_, name), body)| page.matches(name, body)).collect();
                let total = matching.len();
                let shown = matching.into_iter().skip(offset).take(page.size);
                let items = shown.map(|(key, body)| {
                    if overview {
                        Cow::Owned(insights::overview(kind, &body, insights::of(self, kind, key)))
                    } else {
                        body
                    }
                });
                (total, items.collect())
            }
        };
        let after = offset.saturating_add(page.size);
        let next = (after < total).then(|| next_link(target, host, after));
        Ok(ObjectList { items, next, total })
    }
}

fn size(given: &str) -> Result<usize, KumaProblem> {
    if given.is_empty() {
        return Ok(DEFAULT_SIZE);
    }
    let reason = match given.parse::<i64>() {
        Err(_) => "must be a whole number".to_owned(),
        Ok(size) if size <= 0 => "must be at least 1".to_owned(),
        Ok(size) => match usize::try_from(size) {
            Ok(size) if size <= MAX_SIZE => return Ok(size),
            _ => format!("is {size}; at most {MAX_SIZE} are shown at once"),
        },
    };
    let mut violations = FieldViolations::default();
    violations.add("size", reason);
    violations.or_invalid(NOT_LISTED)?;
    Ok(DEFAULT_SIZE)
}

fn label_filters(target: &KumaRequestTarget, path: &str) -> Result<Vec<(String, String)>, KumaProblem> {
    let mut filters = Vec::new();
    let mut violations = FieldViolations::default();
    for (parameter, values) in &target.query {
        let Some(rest) = parameter.strip_prefix("filter[") else { continue };
        let Some(label) = rest.strip_prefix("labels.") else {
            violations.add(format!("{path}.{parameter}"), "only labels can be filtered by");
            continue;
        };
        match label.split_once(']') {
            Some((label, "")) => {
                filters.push((label.to_owned(), values.last().cloned().unwrap_or_default()));
            }
            Some(_) => violations.add(format!("{path}.{parameter}"), "only equality can be filtered by"),
            None => return Err(KumaProblem::new(500, NOT_LISTED, "a filter has no closing bracket")),
        }
    }
    violations.or_invalid(NOT_LISTED)?;
    Ok(filters)
}

/// Tag filters in the form `name:value`. Others are ignored, and the last of a name wins.
fn tag_filters(target: &KumaRequestTarget) -> Vec<(String, String)> {
    let mut tags: Vec<(String, String)> = Vec::new();
    for (name, value) in target.query.get("tag").into_iter().flatten().filter_map(|tag| tag.split_once(':')) {
        tags.retain(|(known, _)| known != name);
        tags.push((name.to_owned(), value.to_owned()));
    }
    tags
}

/// The path with variables, for errors about filters.
fn route_pattern(
    target: &KumaRequestTarget,
    kind: &ResourceType,
    in_one_mesh: bool,
    overview: bool,
) -> String {
    let last = target.segments.last().map_or("", String::as_str);
    let tail = match (overview, last) {
        (true, "_overview") => format!("{}/_overview", kind.path),
        (true, legacy) => legacy.to_owned(),
        _ => kind.path.to_owned(),
    };
    if in_one_mesh { format!("/meshes/{{mesh}}/{tail}") } else { format!("/{tail}") }
}

fn next_link(target: &KumaRequestTarget, host: &str, offset: usize) -> String {
    let mut query = target.query.clone();
    query.insert("offset".to_owned(), vec![offset.to_string()]);
    let pairs: Vec<String> = query
        .iter()
        .flat_map(|(name, values)| {
            values.iter().map(move |value| format!("{}={}", escaped(name), escaped(value)))
        })
        .collect();
    format!("http://{host}{}?{}", target.path, pairs.join("&"))
}

/// Escapes a query as Go does: everything but letters, digits and `-_.~`, with blanks as `+`.
fn escaped(text: &str) -> String {
    const KEPT: percent_encoding::AsciiSet =
        percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b' ');
    percent_encoding::utf8_percent_encode(text, &KEPT).to_string().replace(' ', "+")
}

//! Reads objects of a running operator and prints them.

use std::io::{self, Write};

use serde_json::Value;

use crate::change_selector::{ChangeSelector, MIN_PREFIX, is_task};
use crate::error::ApiError;
use crate::field::{FieldPath, text_at};
use crate::http::ApiClient;
use crate::output::printer::{ObjectPrinter, as_object};
use crate::pages::{Page, Pages};
use crate::resource::ResourceKind;
use crate::text::printable;

/// The digits of a task's id.
const TASK_ID_DIGITS: usize = 32;
/// The tasks that an error lists for the beginning of an id.
const MAX_LISTED: usize = 5;

/// The objects that are asked for.
#[derive(Clone, Debug)]
pub struct GetRequest {
    /// Their kind.
    pub kind: ResourceKind,
    /// Their names; all objects without any.
    pub names: Vec<String>,
    /// Filters, as parameters of the list.
    pub query: Vec<(String, String)>,
    /// The same filters for changes that come by the stream.
    pub selector: ChangeSelector,
    /// The field that decides the order.
    pub sort_by: Option<FieldPath>,
}

/// Objects that were not read or printed.
#[derive(Debug, thiserror::Error)]
pub enum GetError {
    /// A call failed.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Standard output failed.
    #[error("writing standard output: {0}")]
    Output(#[from] io::Error),
    /// Named objects do not exist.
    #[error("{}", missing_text(*.kind, .names))]
    Missing {
        /// Their kind.
        kind: ResourceKind,
        /// Their names.
        names: Vec<String>,
    },
    /// The beginning of an id is that of several tasks.
    #[error("task {:?}: the ids of {} tasks begin so: {}", printable(.name), .ids.len(), listed(.ids))]
    Ambiguous {
        /// The beginning.
        name: String,
        /// The tasks.
        ids: Vec<String>,
    },
    /// No object has the field of the order.
    #[error("--sort-by: no {} has the field {path}", .kind.singular())]
    NoSuchField {
        /// The kind of the objects.
        kind: ResourceKind,
        /// The field.
        path: FieldPath,
    },
}

impl GetError {
    /// Standard output was closed by its reader, such as `head`.
    pub fn is_closed_output(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

fn missing_text(kind: ResourceKind, names: &[String]) -> String {
    let all: Vec<String> = names.iter().map(|name| format!("{:?}", printable(name))).collect();
    format!("{} {} not found", if names.len() == 1 { kind.singular() } else { kind.plural() }, all.join(", "))
}

fn listed(ids: &[String]) -> String {
    let more = if ids.len() > MAX_LISTED { ", …" } else { "" };
    ids.iter().take(MAX_LISTED).cloned().collect::<Vec<_>>().join(", ") + more
}

/// Reads and prints the objects. Returns their number.
///
/// # Errors
/// If a call fails or a named object does not exist; the others are printed.
pub async fn get<W: Write>(
    client: &ApiClient,
    request: &GetRequest,
    printer: &mut ObjectPrinter<W>,
) -> Result<usize, GetError> {
    if !request.names.is_empty() {
        return get_named(client, request, printer).await;
    }
    let mut count = 0;
    // The operator lists the newest change first, and people read a history from its beginning.
    if request.sort_by.is_some() || request.kind == ResourceKind::Changes {
        let page = sorted(request, all_items(client, request).await?)?;
        count = page.items.len();
        printer.page(&page)?;
    } else {
        let mut pages = Pages::new(client, request.kind, &request.query);
        while let Some(page) = pages.next_page().await? {
            count += page.items.len();
            printer.page(&page)?;
        }
    }
    printer.finish()?;
    Ok(count)
}

/// All pages as one.
pub(crate) async fn all_items(client: &ApiClient, request: &GetRequest) -> Result<Page, ApiError> {
    let mut pages = Pages::new(client, request.kind, &request.query);
    let mut all = pages.next_page().await?.unwrap_or_else(|| Page {
        api_version: String::new(),
        kind: String::new(),
        items: Vec::new(),
    });
    while let Some(page) = pages.next_page().await? {
        all.items.extend(page.items);
    }
    Ok(all)
}

fn sorted(request: &GetRequest, mut page: Page) -> Result<Page, GetError> {
    if request.kind == ResourceKind::Changes {
        page.items.reverse();
    }
    if let Some(path) = &request.sort_by {
        if !page.items.is_empty() && page.items.iter().all(|item| path.of(item).is_none()) {
            return Err(GetError::NoSuchField { kind: request.kind, path: path.clone() });
        }
        page.items.sort_by(|one, other| path.compare(one, other));
    }
    Ok(page)
}

async fn get_named<W: Write>(
    client: &ApiClient,
    request: &GetRequest,
    printer: &mut ObjectPrinter<W>,
) -> Result<usize, GetError> {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for name in &request.names {
        let objects = find(client, request, name).await?;
        if objects.is_empty() {
            missing.push(name.clone());
        }
        found.extend(objects);
    }
    let is_one = request.names.len() == 1 && found.len() == 1;
    if is_one {
        printer.updates(&found)?;
    } else if !found.is_empty() {
        let api_version = text_at(&found[0], "/apiVersion");
        let page = Page { api_version, kind: "List".to_owned(), items: found.clone() };
        printer.page(&sorted(request, page)?)?;
    }
    printer.finish()?;
    if missing.is_empty() {
        return Ok(found.len());
    }
    Err(GetError::Missing { kind: request.kind, names: missing })
}

/// The objects of a name: one, unless the name is that of a service in several meshes or of a caller.
pub async fn find(client: &ApiClient, request: &GetRequest, name: &str) -> Result<Vec<Value>, GetError> {
    match request.kind {
        ResourceKind::Tasks => find_task(client, name).await.map(|task| task.into_iter().collect()),
        ResourceKind::Services if name.matches('/').count() == 2 => {
            let mut path = vec!["services"];
            path.extend(name.split('/'));
            Ok(found(client.get(&path, &[]).await)?.into_iter().collect())
        }
        kind => {
            let mut query = request.query.clone();
            if kind == ResourceKind::Services {
                query.push(("q".to_owned(), name.to_owned()));
            }
            let all = all_items(client, &GetRequest { query, ..request.clone() }).await?;
            let named = all.items.iter().filter(|item| kind.is_named(item, name));
            Ok(named.map(|item| as_object(item, &all.api_version, &all.kind)).collect())
        }
    }
}

/// The task of an id, of an ARN, or of the beginning of an id.
pub async fn find_task(client: &ApiClient, name: &str) -> Result<Option<Value>, GetError> {
    // The mark of a truncated cell, which is copied with it.
    let id = name.rsplit('/').next().unwrap_or_default().trim_end_matches('…');
    if id.is_empty() {
        return Ok(None);
    }
    if let Some(task) = found(client.get(&["tasks", id], &[]).await)? {
        return Ok(Some(task));
    }
    if !is_beginning_of_id(id) {
        return Ok(None);
    }
    let query = [("q", id), ("all", "true")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    let mut pages = Pages::new(client, ResourceKind::Tasks, &query);
    let mut ids = Vec::new();
    while let Some(page) = pages.next_page().await? {
        let names = page.items.iter().map(|task| text_at(task, "/name"));
        ids.extend(names.filter(|task| is_task(task, id)));
    }
    match ids.as_slice() {
        [] => Ok(None),
        [one] => Ok(found(client.get(&["tasks", one], &[]).await)?),
        _ => Err(GetError::Ambiguous { name: id.to_owned(), ids }),
    }
}

/// Whether a text may be the beginning of a task's id.
pub fn is_beginning_of_id(text: &str) -> bool {
    (MIN_PREFIX..TASK_ID_DIGITS).contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_hexdigit())
}

/// The object, unless it does not exist.
fn found(answer: Result<Value, ApiError>) -> Result<Option<Value>, ApiError> {
    match answer {
        Ok(object) => Ok(Some(object)),
        Err(ApiError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

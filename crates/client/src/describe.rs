//! Reads everything about one object: the object, what belongs to it, and its changes and warnings.

use serde_json::Value;

use crate::field::text_at;
use crate::get::{GetError, GetRequest, find};
use crate::http::ApiClient;
use crate::output::description::Described;
use crate::pages::Pages;
use crate::resource::ResourceKind;

/// Most changes of an object.
const MAX_CHANGES: usize = 20;
/// Most tasks of a service.
const MAX_TASKS: usize = 20;

/// The objects of a name: one, unless several services or outbounds have it.
///
/// # Errors
/// If a call fails or no object has the name.
pub async fn describe(
    client: &ApiClient,
    request: &GetRequest,
    name: &str,
) -> Result<Vec<Described>, GetError> {
    let objects = find(client, request, name).await?;
    if objects.is_empty() {
        return Err(GetError::Missing { kind: request.kind, names: vec![name.to_owned()] });
    }
    let mut described = Vec::new();
    for object in objects {
        described.push(complete(client, request.kind, object).await?);
    }
    Ok(described)
}

async fn complete(client: &ApiClient, kind: ResourceKind, object: Value) -> Result<Described, GetError> {
    let mut found =
        Described { tasks: Vec::new(), all_tasks: 0, changes: Vec::new(), warnings: Vec::new(), object };
    let name = text_at(&found.object, "/name");
    match kind {
        ResourceKind::Tasks => {
            found.warnings = items(&found.object, "warnings");
            found.changes = items(&found.object, "history");
        }
        ResourceKind::Services => {
            if found.object["history"].is_null() {
                let path = kind.object_name(&found.object);
                let mut segments = vec!["services"];
                segments.extend(path.splitn(3, '/'));
                found.object = client.get(&segments, &[]).await?;
            }
            found.changes = items(&found.object, "history");
            found.tasks = read(client, ResourceKind::Tasks, &[("service", &name)], usize::MAX).await?;
            found.all_tasks = found.tasks.len();
            found.tasks.truncate(MAX_TASKS);
            let control_plane = text_at(&found.object, "/controlPlane");
            let query = [("controlPlane", control_plane.as_str()), ("q", name.as_str())];
            let warnings = read(client, ResourceKind::Warnings, &query, usize::MAX).await?;
            let is_of_service = |warning: &Value| items(warning, "services").iter().any(|one| *one == *name);
            found.warnings = warnings.into_iter().filter(is_of_service).collect();
        }
        ResourceKind::Bindings => {
            found.changes = read(client, ResourceKind::Changes, &[("binding", &name)], MAX_CHANGES).await?;
        }
        ResourceKind::Identities => {
            let task = text_at(&found.object, "/task");
            let changes = read(client, ResourceKind::Changes, &[("task", &task)], usize::MAX).await?;
            found.changes = changes.into_iter().filter(|change| text_at(change, "/name") == name).collect();
        }
        ResourceKind::Outbounds | ResourceKind::Warnings | ResourceKind::Changes => {}
    }
    found.changes.truncate(MAX_CHANGES);
    // The operator lists the newest first, and people read a history from its beginning.
    found.changes.reverse();
    Ok(found)
}

fn items(object: &Value, key: &str) -> Vec<Value> {
    object[key].as_array().cloned().unwrap_or_default()
}

/// The first items of a list.
async fn read(
    client: &ApiClient,
    kind: ResourceKind,
    query: &[(&str, &str)],
    most: usize,
) -> Result<Vec<Value>, GetError> {
    let query: Vec<(String, String)> =
        query.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let mut pages = Pages::new(client, kind, &query);
    let mut found = Vec::new();
    while found.len() < most {
        let Some(page) = pages.next_page().await? else { break };
        found.extend(page.items);
    }
    found.truncate(most);
    Ok(found)
}

//! Watches objects: prints what there is, and then each object whose row changes.
//!
//! The operator names the tasks and services that changed. Few tasks are read one by one; else the list is read again, and
//! less often the longer that takes, so that a watch does not load the operator.

use std::collections::HashMap;
use std::io::Write;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use crate::change_selector::is_task;
use crate::field::text_at;
use crate::get::{GetError, GetRequest, all_items, find_task};
use crate::http::ApiClient;
use crate::output::printer::ObjectPrinter;
use crate::pages::Pages;
use crate::resource::ResourceKind;
use crate::sse::ServerEvent;
use crate::stream::{EventStream, StreamSignal};

/// Most tasks that are read one by one.
const MAX_SINGLE_READS: usize = 20;
/// The shortest time between two reads of a list.
const MIN_LIST_INTERVAL: Duration = Duration::from_secs(1);
/// The part of the time that a watch may read lists is one of this many.
const LIST_TIME_SHARE: u32 = 5;

/// Prints the objects, and then what changes, until standard output is closed or a call fails for good. `notice` gets what a
/// person should know: that the connection is lost, and that it is back.
///
/// # Errors
/// If the first calls fail, or a later one for a reason that will not pass.
pub async fn watch<W: Write>(
    client: &ApiClient,
    request: &GetRequest,
    printer: &mut ObjectPrinter<W>,
    notice: &mut (dyn FnMut(&str) + Send),
) -> Result<(), GetError> {
    // The stream first, so that nothing is missed between the list and the stream.
    let mut stream = EventStream::open(client).await?;
    let mut watch =
        Watch { client, request, printer, shown: HashMap::new(), last_change: None, pending: Pending::None };
    let started = Instant::now();
    watch.list().await?;
    watch.check_names()?;
    let mut earliest = started + MIN_LIST_INTERVAL.max(started.elapsed() * LIST_TIME_SHARE);
    let mut is_connected = true;
    loop {
        let is_due = is_connected && watch.pending != Pending::None;
        tokio::select! {
            biased;
            () = sleep_until(earliest), if is_due => {
                let started = Instant::now();
                match watch.catch_up().await {
                    Ok(()) => watch.pending = Pending::None,
                    Err(GetError::Api(error)) if error.is_transient() => notice(&format!("{error}; trying again")),
                    Err(error) => return Err(error),
                }
                earliest = Instant::now() + MIN_LIST_INTERVAL.max(started.elapsed() * LIST_TIME_SHARE);
            }
            signal = stream.next() => match signal? {
                StreamSignal::Event(event) => watch.receive(&event)?,
                StreamSignal::Lost(error) => note_loss(&mut is_connected, error, notice),
                StreamSignal::Opened => {
                    is_connected = true;
                    notice("connected again");
                }
            },
        }
    }
}

/// Shows the state of the operator, and then each state that differs, at most one a second, until `show` fails or a call fails
/// for good. `notice` as in [`watch`].
///
/// # Errors
/// If the first call fails, a later one for a reason that will not pass, or `show`.
pub async fn watch_status(
    client: &ApiClient,
    show: &mut (dyn FnMut(&Value) -> std::io::Result<()> + Send),
    notice: &mut (dyn FnMut(&str) + Send),
) -> Result<(), GetError> {
    let mut stream = EventStream::open(client).await?;
    let (mut latest, mut earliest, mut is_connected) = (None::<Value>, Instant::now(), true);
    loop {
        tokio::select! {
            biased;
            () = sleep_until(earliest), if latest.is_some() => {
                if let Some(status) = latest.take() {
                    show(&status)?;
                }
                earliest = Instant::now() + MIN_LIST_INTERVAL;
            }
            signal = stream.next() => match signal? {
                // Each stream begins with a state.
                StreamSignal::Event(event) if event.name == "status" => {
                    latest = serde_json::from_str(&event.data).ok().or(latest);
                }
                StreamSignal::Event(_) => {}
                StreamSignal::Lost(error) => note_loss(&mut is_connected, error, notice),
                StreamSignal::Opened => {
                    is_connected = true;
                    notice("connected again");
                }
            },
        }
    }
}

/// Reports a lost connection, once until it is back.
fn note_loss(is_connected: &mut bool, error: impl std::fmt::Display, notice: &mut (dyn FnMut(&str) + Send)) {
    if std::mem::replace(is_connected, false) {
        notice(&format!("connection lost: {error}; trying again"));
    }
}

/// The objects to read again.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pending {
    None,
    /// These tasks, by id.
    Tasks(Vec<String>),
    /// The list.
    All,
}

impl Pending {
    fn add_tasks(&mut self, ids: Vec<String>) {
        let mut all = match std::mem::replace(self, Self::All) {
            Self::All => return,
            Self::None => Vec::new(),
            Self::Tasks(all) => all,
        };
        all.extend(ids);
        all.sort_unstable();
        all.dedup();
        *self = match all.len() {
            0 => Self::None,
            1..=MAX_SINGLE_READS => Self::Tasks(all),
            _ => Self::All,
        };
    }
}

struct Watch<'a, W> {
    client: &'a ApiClient,
    request: &'a GetRequest,
    printer: &'a mut ObjectPrinter<W>,
    /// The rows that were printed, by name.
    shown: HashMap<String, Shown>,
    /// The time and id of the last change that was printed.
    last_change: Option<(String, u64)>,
    pending: Pending,
}

struct Shown {
    fingerprint: String,
    object: Value,
}

impl<W: Write> Watch<'_, W> {
    /// Takes an event: prints a change, or remembers what to read.
    fn receive(&mut self, event: &ServerEvent) -> Result<(), GetError> {
        let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
        if !data.is_object() {
            // Without its data, the event still says that something changed.
            self.pending = Pending::All;
            return Ok(());
        }
        let kind = self.request.kind;
        match event.name.as_str() {
            "reset" => self.pending = Pending::All,
            "change" if kind == ResourceKind::Changes => return self.print_changes(vec![data]),
            "change" if matches!(kind, ResourceKind::Identities | ResourceKind::Bindings) => {
                self.pending = Pending::All;
            }
            "tasks" if kind == ResourceKind::Tasks && data["more"] != true => {
                let ids = data["tasks"].as_array().into_iter().flatten();
                self.pending.add_tasks(ids.filter_map(|id| id.as_str().map(str::to_owned)).collect());
            }
            "tasks" if !matches!(kind, ResourceKind::Changes | ResourceKind::Warnings) => {
                self.pending = Pending::All;
            }
            "warning" | "resolved" if kind == ResourceKind::Warnings => self.pending = Pending::All,
            "status" if kind == ResourceKind::Bindings => self.pending = Pending::All,
            _ => {}
        }
        Ok(())
    }

    async fn catch_up(&mut self) -> Result<(), GetError> {
        match self.pending.clone() {
            Pending::Tasks(ids) => {
                for id in ids {
                    self.read_task(&id).await?;
                }
                Ok(())
            }
            Pending::None | Pending::All => self.list().await,
        }
    }

    /// Reads the list and prints what is new in it.
    async fn list(&mut self) -> Result<(), GetError> {
        if self.request.kind == ResourceKind::Changes {
            let mut changes = all_items(self.client, self.request).await?.items;
            changes.reverse();
            return self.print_changes(changes);
        }
        let mut gone: HashMap<String, Shown> = std::mem::take(&mut self.shown);
        let mut pages = Pages::new(self.client, self.request.kind, &self.request.query);
        loop {
            let page = match pages.next_page().await {
                Ok(Some(page)) => page,
                Ok(None) => break,
                Err(error) => {
                    // An object that was not read is not gone.
                    gone.extend(std::mem::take(&mut self.shown));
                    self.shown = gone;
                    return Err(error.into());
                }
            };
            let mut news = Vec::new();
            let wanted: Vec<Value> = page.items.into_iter().filter(|item| self.is_wanted(item)).collect();
            for item in wanted {
                let (name, fingerprint) = (self.key(&item), self.printer.fingerprint(&item));
                let before = gone.remove(&name);
                if before.is_none_or(|before| before.fingerprint != fingerprint) {
                    news.push(item.clone());
                }
                self.shown.insert(name, Shown { fingerprint, object: item });
            }
            self.print(&news)?;
        }
        let mut gone: Vec<(String, Shown)> = gone.into_iter().collect();
        gone.sort_by(|one, other| one.0.cmp(&other.0));
        for (_, shown) in gone {
            self.print_gone(shown.object).await?;
        }
        Ok(())
    }

    /// Reads a task by the list, whose filters apply.
    async fn read_task(&mut self, id: &str) -> Result<(), GetError> {
        let mut query = self.request.query.clone();
        // A filter by text is applied by the operator to the whole list alone.
        if query.iter().any(|(key, _)| key == "q") {
            return self.list().await;
        }
        query.push(("q".to_owned(), id.to_owned()));
        let mut pages = Pages::new(self.client, ResourceKind::Tasks, &query);
        while let Some(page) = pages.next_page().await? {
            for item in page.items {
                if text_at(&item, "/name") == id && self.is_wanted(&item) {
                    return self.print_if_new(item);
                }
            }
        }
        match self.shown.remove(id) {
            Some(shown) => self.print_gone(shown.object).await,
            None => Ok(()),
        }
    }

    fn print_if_new(&mut self, item: Value) -> Result<(), GetError> {
        let (name, fingerprint) = (self.key(&item), self.printer.fingerprint(&item));
        if self.shown.get(&name).is_some_and(|shown| shown.fingerprint == fingerprint) {
            return Ok(());
        }
        self.print(std::slice::from_ref(&item))?;
        self.shown.insert(name, Shown { fingerprint, object: item });
        Ok(())
    }

    /// The last row of an object that no longer matches: as it is now, or as gone.
    async fn print_gone(&mut self, mut object: Value) -> Result<(), GetError> {
        if self.request.kind == ResourceKind::Tasks
            && let Some(task) = find_task(self.client, &text_at(&object, "/arn")).await?
        {
            return self.print(&[task]);
        }
        match self.request.kind {
            ResourceKind::Warnings => object["tasks"] = 0.into(),
            _ => object["state"] = "gone".into(),
        }
        self.print(&[object])
    }

    /// Prints changes that were not printed yet, in their order.
    fn print_changes(&mut self, changes: Vec<Value>) -> Result<(), GetError> {
        let mut news = Vec::new();
        for change in changes {
            let key = (text_at(&change, "/time"), change["id"].as_u64().unwrap_or_default());
            let is_new = self.last_change.as_ref().is_none_or(|last| is_later(&key, last));
            if is_new && self.is_wanted(&change) && self.request.selector.matches(&change) {
                news.push(change);
            }
            if is_new {
                self.last_change = Some(key);
            }
        }
        self.print(&news)
    }

    fn print(&mut self, objects: &[Value]) -> Result<(), GetError> {
        Ok(self.printer.updates(objects)?)
    }

    /// The key of an object's row; objects of one name may be in several control planes.
    fn key(&self, object: &Value) -> String {
        let name = self.request.kind.object_name(object);
        match self.request.kind {
            ResourceKind::Identities | ResourceKind::Outbounds => {
                let parts =
                    ["/controlPlane", "/mesh", "/kind", "/port", "/listen"].map(|part| text_at(object, part));
                format!("{name} {}", parts.join(" "))
            }
            _ => name,
        }
    }

    fn is_wanted(&self, object: &Value) -> bool {
        let GetRequest { kind, names, .. } = self.request;
        names.is_empty() || names.iter().any(|name| is_meant(*kind, object, name))
    }

    /// Fails for a name that no object has now.
    fn check_names(&self) -> Result<(), GetError> {
        let (kind, names) = (self.request.kind, &self.request.names);
        let is_missing =
            |name: &&String| !self.shown.values().any(|shown| is_meant(kind, &shown.object, name));
        let names: Vec<String> = names.iter().filter(is_missing).cloned().collect();
        if names.is_empty() || kind == ResourceKind::Changes {
            return Ok(());
        }
        Err(GetError::Missing { kind, names })
    }
}

fn is_meant(kind: ResourceKind, object: &Value, name: &str) -> bool {
    let is_that_task = kind == ResourceKind::Tasks && is_task(&text_at(object, "/arn"), name);
    is_that_task || kind.is_named(object, name)
}

/// Whether a change comes after another. Numbers start again with the process; times do not.
fn is_later(change: &(String, u64), last: &(String, u64)) -> bool {
    use ecs_mesh_model::Timestamp;
    let key = |(time, id): &(String, u64)| (Timestamp::parse(time), *id);
    key(change) > key(last)
}

//! Server-sent events: the history as it grows, and which views changed.
//!
//! A stream reads the ring at its own pace, so a slow client delays no other and costs a buffer of a few events. A client
//! that the ring has moved past gets `reset`, and reads again. One that takes nothing for a while is disconnected.
//!
//! Numbers of entries begin again with each process. The id of an event names the process, too, so that a client that comes
//! back to another one gets `reset`.

use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::sync::{OwnedSemaphorePermit, broadcast, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use super::cache::{AnsweredSnapshot, SharedViews};
use super::history::{History, HistoryEntry, HistoryRecord};
use super::source::ReadSource;
use ecs_mesh_read_api::{ChangedView, StatusView, StreamEventView};

/// The shortest interval of events about changed views.
const CHANGED_INTERVAL: Duration = Duration::from_millis(500);

/// The interval of comments that keep proxies from closing a silent stream.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Events about changed views that a slow stream may be behind.
const MAX_BEHIND: usize = 16;

/// Chunks that wait for the client.
const MAX_CHUNKS: usize = 4;

/// Bytes of entries after which a chunk ends.
const CHUNK_BYTES: usize = 64 * 1024;

/// Finds changed views while there are streams.
pub(super) struct ChangeNotices {
    sender: broadcast::Sender<Arc<StreamEventView>>,
    /// Wakes the search when a stream begins.
    begun: watch::Sender<()>,
}

impl Default for ChangeNotices {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(MAX_BEHIND), begun: watch::Sender::new(()) }
    }
}

impl ChangeNotices {
    fn subscribe(&self) -> broadcast::Receiver<Arc<StreamEventView>> {
        let receiver = self.sender.subscribe();
        self.begun.send_replace(());
        receiver
    }

    /// Compares snapshots for as long as there are streams, and waits for one otherwise.
    pub(super) async fn run(&self, views: &SharedViews) {
        let mut begun = self.begun.subscribe();
        loop {
            if begun.changed().await.is_err() {
                return;
            }
            let mut before = None;
            while self.sender.receiver_count() > 0 {
                let Some(now) = views.snapshot.get().await else { break };
                let before = before.replace(Arc::clone(&now)).filter(|before| !Arc::ptr_eq(before, &now));
                if let Some(before) = before {
                    let compare = move || events_between(&before, &now);
                    views
                        .thread
                        .collect(compare)
                        .await
                        .into_iter()
                        .flatten()
                        .for_each(|event| self.send(event));
                }
                tokio::time::sleep(CHANGED_INTERVAL).await;
            }
        }
    }

    fn send(&self, event: StreamEventView) {
        // Fails only without a stream.
        let _ = self.sender.send(Arc::new(event));
    }
}

/// The changed views and the status, if they differ.
fn events_between(before: &AnsweredSnapshot, now: &AnsweredSnapshot) -> Vec<StreamEventView> {
    let (before, now) = (&before.snapshot, &now.snapshot);
    let changed = now.changed_since(before);
    let tasks = (changed != ChangedView::default()).then_some(StreamEventView::Tasks(changed));
    let status =
        differs(&before.status, &now.status).then(|| StreamEventView::Status(Box::new(now.status.clone())));
    tasks.into_iter().chain(status).collect()
}

/// Whether more than the time differs.
fn differs(before: &StatusView, after: &StatusView) -> bool {
    StatusView { now: after.now, ..before.clone() } != *after
}

/// The process whose entries a stream sends, as ids of events name it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct EntryOrigin(i64);

impl EntryOrigin {
    fn of(status: &StatusView) -> Self {
        Self(status.started_at.0.0)
    }

    /// The id of an event that follows this entry.
    fn event_id(&self, entry: u64) -> String {
        format!("{entry}-{:x}", self.0)
    }

    /// The entry of an event's id; `None` if the id is of another process, or none.
    fn entry(&self, event_id: &str) -> Option<u64> {
        let (entry, _) = event_id.split_once('-')?;
        let entry = entry.parse().ok()?;
        (self.event_id(entry) == event_id).then_some(entry)
    }
}

/// One stream.
pub(super) struct ReaderStream {
    /// The id of the last event that the client has.
    pub(super) last_id: Option<String>,
    pub(super) source: Arc<dyn ReadSource>,
    pub(super) views: SharedViews,
    pub(super) notices: Arc<ChangeNotices>,
    /// Ends the stream with the server.
    pub(super) stop: CancellationToken,
    /// A place among the streams.
    pub(super) _permit: OwnedSemaphorePermit,
}

impl ReaderStream {
    /// The body, which ends when the client or the server does.
    pub(super) fn into_body(self) -> EventBody {
        let (sender, chunks) = mpsc::channel(MAX_CHUNKS);
        tokio::spawn(self.run(sender));
        EventBody(chunks)
    }

    async fn run(self, sender: mpsc::Sender<Bytes>) {
        let history = Arc::clone(self.source.history());
        let mut followed = history.follow();
        let mut changed = self.notices.subscribe();
        let Some(status) = self.views.status().await else { return };
        let origin = EntryOrigin::of(&status);
        let newest = *followed.borrow_and_update();
        let known = self.last_id.as_deref().map(|id| origin.entry(id).filter(|entry| *entry <= newest));
        let mut sent = known.flatten().unwrap_or(newest);
        let mut first = EventText::new(origin);
        first.text.push_str("retry: 2000\n\n");
        if known == Some(None) {
            first.write(sent, &StreamEventView::Reset);
        }
        first.write(sent, &StreamEventView::Status(Box::new(status)));
        let origin = first.origin.clone();
        if sender.send(first.text.into()).await.is_err() {
            return;
        }
        followed.mark_changed();
        let mut heartbeat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut chunk = EventText::new(origin.clone());
            tokio::select! {
                biased;
                () = sender.closed() => return,
                () = self.stop.cancelled() => return,
                grown = followed.changed() => {
                    if grown.is_err() {
                        return;
                    }
                    sent = chunk.write_unsent(&history, sent);
                    if *followed.borrow() > sent {
                        followed.mark_changed();
                    }
                }
                event = changed.recv() => match event {
                    Ok(event) => chunk.write(sent, &event),
                    Err(broadcast::error::RecvError::Lagged(_)) => chunk.write(sent, &StreamEventView::Reset),
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                _ = heartbeat.tick() => chunk.text.push_str(":\n\n"),
            }
            if !chunk.text.is_empty() && sender.send(chunk.text.into()).await.is_err() {
                return;
            }
        }
    }
}

/// Events as they are sent.
struct EventText {
    origin: EntryOrigin,
    text: String,
}

impl EventText {
    fn new(origin: EntryOrigin) -> Self {
        Self { origin, text: String::new() }
    }

    /// Writes an event that follows this entry.
    fn write(&mut self, entry: u64, event: &StreamEventView) {
        let (name, id, data) = (event.name(), self.origin.event_id(entry), event.data());
        // Writing to a String cannot fail. JSON has no line break.
        let _ = write!(self.text, "event: {name}\nid: {id}\ndata: {data}\n\n");
    }

    /// Writes the next entries, as many as a chunk has. Returns the last one.
    fn write_unsent(&mut self, history: &History, sent: u64) -> u64 {
        let next = history.after(sent);
        let mut last = sent;
        if next.has_gap {
            let before = next.entries.first().map_or(sent, |entry| entry.id.saturating_sub(1));
            self.write(before, &StreamEventView::Reset);
            last = before;
        }
        for entry in &next.entries {
            if self.text.len() >= CHUNK_BYTES {
                break;
            }
            self.write(entry.id, &event(entry));
            last = entry.id;
        }
        last
    }
}

fn event(entry: &HistoryEntry) -> StreamEventView {
    match &entry.record {
        HistoryRecord::Change => StreamEventView::Change(Box::new((*entry.change).clone())),
        HistoryRecord::Warning(warning) => StreamEventView::Warning(Box::new((**warning).clone())),
        HistoryRecord::Resolved(resolved) => StreamEventView::Resolved((**resolved).clone()),
    }
}

/// The body of a stream.
pub(super) struct EventBody(mpsc::Receiver<Bytes>);

impl Body for EventBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(cx).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    }
}

#[cfg(test)]
mod tests {

    use super::super::history::tests::change;
    use super::*;

    #[test]
    fn event_id_is_of_one_process() {
        let origin = EntryOrigin(1_796_000_000_000);
        assert_eq!(origin.entry(&origin.event_id(7)), Some(7));
        for foreign in ["", "7", "-", "x-1a2b", "7-", "+7-1a229f8c800", &EntryOrigin(1).event_id(7)] {
            assert_eq!(origin.entry(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn chunk_is_bounded_however_long_entries_are() {
        let history = History::new(1_000);
        let long = "x".repeat(4_096);
        (1..=256).for_each(|id| history.record(change(id, &long, "web")));
        let (mut sent, mut chunks) = (0, 0);
        while sent < 256 {
            let mut chunk = EventText::new(EntryOrigin(1));
            sent = chunk.write_unsent(&history, sent);
            assert!(chunk.text.len() < CHUNK_BYTES + 16 * 1024, "{}", chunk.text.len());
            chunks += 1;
        }
        assert!(chunks > 10, "{chunks}");
    }
}

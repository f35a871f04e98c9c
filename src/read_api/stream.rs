//! Server-sent events: the history as it grows, and which views changed.
//!
//! A stream reads the ring at its own pace, so a slow client holds up no other and costs a buffer of a few events. A client
//! that the ring has moved past gets `reset`, and reads again. One that takes nothing for a while is disconnected.

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

use super::cache::SnapshotCache;
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
    pub(super) async fn run(&self, cache: &SnapshotCache) {
        let mut begun = self.begun.subscribe();
        loop {
            if begun.changed().await.is_err() {
                return;
            }
            let mut before = None;
            while self.sender.receiver_count() > 0 {
                let Some(now) = cache.get().await else { break };
                if let Some(before) =
                    before.replace(Arc::clone(&now)).filter(|before| !Arc::ptr_eq(before, &now))
                {
                    let changed = now.changed_since(&before);
                    if changed != ChangedView::default() {
                        self.send(StreamEventView::Tasks(changed));
                    }
                    if differs(&before.status, &now.status) {
                        self.send(StreamEventView::Status(Box::new(now.status.clone())));
                    }
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

/// Whether more than the time differs.
fn differs(before: &StatusView, after: &StatusView) -> bool {
    StatusView { now: after.now, ..before.clone() } != *after
}

/// One stream.
pub(super) struct ReaderStream {
    /// The id of the last entry that the client has.
    pub(super) last_id: Option<u64>,
    pub(super) source: Arc<dyn ReadSource>,
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
        let mut sent = self.last_id.unwrap_or(*followed.borrow_and_update());
        // An id of another process, or of one that has restarted.
        let is_foreign = sent > *followed.borrow();
        let status = StreamEventView::Status(Box::new(self.source.status()));
        let mut first = String::from("retry: 2000\n\n");
        if is_foreign {
            sent = *followed.borrow();
            write_event(&mut first, sent, &StreamEventView::Reset);
        }
        write_event(&mut first, sent, &status);
        if sender.send(first.into()).await.is_err() {
            return;
        }
        followed.mark_changed();
        let mut heartbeat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let chunk = tokio::select! {
                biased;
                () = sender.closed() => return,
                () = self.stop.cancelled() => return,
                grown = followed.changed() => {
                    if grown.is_err() {
                        return;
                    }
                    let chunk = unsent(&history, &mut sent);
                    if *followed.borrow() > sent {
                        followed.mark_changed();
                    }
                    chunk
                }
                event = changed.recv() => {
                    let mut chunk = String::new();
                    match event {
                        Ok(event) => write_event(&mut chunk, sent, &event),
                        Err(broadcast::error::RecvError::Lagged(_)) => {
                            write_event(&mut chunk, sent, &StreamEventView::Reset);
                        }
                        Err(broadcast::error::RecvError::Closed) => return,
                    }
                    chunk
                }
                _ = heartbeat.tick() => ":\n\n".to_owned(),
            };
            if !chunk.is_empty() && sender.send(chunk.into()).await.is_err() {
                return;
            }
        }
    }
}

/// The next entries as events.
fn unsent(history: &History, sent: &mut u64) -> String {
    let next = history.after(*sent);
    let mut chunk = String::new();
    if next.has_gap {
        let before = next.entries.first().map_or(*sent, |entry| entry.id.saturating_sub(1));
        write_event(&mut chunk, before, &StreamEventView::Reset);
    }
    for entry in &next.entries {
        write_event(&mut chunk, entry.id, &event(entry));
        *sent = entry.id;
    }
    chunk
}

fn event(entry: &HistoryEntry) -> StreamEventView {
    match &entry.record {
        HistoryRecord::Change(change) => StreamEventView::Change(Box::new((**change).clone())),
        HistoryRecord::Warning(warning) => StreamEventView::Warning(Box::new((**warning).clone())),
        HistoryRecord::Resolved(resolved) => StreamEventView::Resolved((**resolved).clone()),
    }
}

fn write_event(out: &mut String, id: u64, event: &StreamEventView) {
    // Writing to a String cannot fail. JSON has no line break.
    let _ = write!(out, "event: {}\nid: {id}\ndata: {}\n\n", event.name(), event.data());
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

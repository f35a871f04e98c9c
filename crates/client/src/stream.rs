//! The stream of events, over connections that end.

use std::collections::VecDeque;
use std::time::Duration;

use reqwest::Response;
use tokio::time::{Instant, sleep_until, timeout};

use crate::error::ApiError;
use crate::http::ApiClient;
use crate::sse::{EventParser, ServerEvent};
use ecs_mesh_controller::{Backoff, Delays};

/// The operator sends a heartbeat every 15 seconds; three may be late.
const MAX_SILENCE: Duration = Duration::from_secs(45);
/// The waits between attempts to open the stream again.
const RETRY: Backoff = Backoff { min: Duration::from_millis(500), max: Duration::from_secs(10) };

/// A step of the stream.
#[derive(Debug)]
pub(crate) enum StreamSignal {
    /// An event.
    Event(ServerEvent),
    /// The connection is lost, and is opened again after a while.
    Lost(ApiError),
    /// The stream is open again.
    Opened,
}

/// Receives events. A lost connection is opened again behind the last event, so that the operator sends the events between
/// or says that it cannot (`reset`).
pub(crate) struct EventStream<'a> {
    client: &'a ApiClient,
    state: StreamState,
    parser: EventParser,
    received: VecDeque<ServerEvent>,
    last_id: Option<String>,
    delays: Delays,
}

enum StreamState {
    Open(Response),
    Closed { until: Instant },
}

impl<'a> EventStream<'a> {
    /// Opens the stream.
    ///
    /// # Errors
    /// If the first attempt fails, whatever the reason.
    pub(crate) async fn open(client: &'a ApiClient) -> Result<Self, ApiError> {
        let state = StreamState::Open(client.open_stream(None).await?);
        let (parser, received) = (EventParser::default(), VecDeque::new());
        Ok(Self { client, state, parser, received, last_id: None, delays: RETRY.start(client.seed()) })
    }

    /// The next step. Nothing is lost if the caller stops waiting.
    ///
    /// # Errors
    /// If the operator refuses the stream for good, as with a wrong token.
    pub(crate) async fn next(&mut self) -> Result<StreamSignal, ApiError> {
        loop {
            if let Some(event) = self.received.pop_front() {
                self.last_id.clone_from(&event.id);
                return Ok(StreamSignal::Event(event));
            }
            match &mut self.state {
                StreamState::Closed { until } => {
                    sleep_until(*until).await;
                    match self.client.open_stream(self.last_id.as_deref()).await {
                        Ok(response) => {
                            self.parser = EventParser::default();
                            self.state = StreamState::Open(response);
                            return Ok(StreamSignal::Opened);
                        }
                        Err(error) if error.is_transient() => return Ok(self.lose(error)),
                        Err(error) => return Err(error),
                    }
                }
                StreamState::Open(response) => {
                    let piece = timeout(MAX_SILENCE, response.chunk()).await;
                    let url = || format!("{}/api/v1/stream", self.client.address());
                    let lost = match piece {
                        Ok(Ok(Some(piece))) => match self.parser.push(&piece) {
                            Ok(events) => {
                                self.delays = RETRY.start(self.client.seed());
                                self.received.extend(events);
                                continue;
                            }
                            Err(_) => {
                                let cause = "an event of the stream is too long".to_owned();
                                return Err(ApiError::Malformed { url: url(), cause });
                            }
                        },
                        Ok(Ok(None)) => ApiError::StreamEnded { url: url() },
                        Ok(Err(error)) => ApiError::of_transport(&url(), self.client.timeout(), error),
                        Err(_) => ApiError::TimedOut { url: url(), limit: MAX_SILENCE },
                    };
                    return Ok(self.lose(lost));
                }
            }
        }
    }

    fn lose(&mut self, error: ApiError) -> StreamSignal {
        self.state = StreamState::Closed { until: Instant::now() + self.delays.after_failure() };
        StreamSignal::Lost(error)
    }
}

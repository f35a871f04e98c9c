//! Logging to standard error: text (logfmt) on a terminal, JSON lines elsewhere.
//!
//! Two guarantees hold for every filter: the target `audit` is on at `info`, and the crates that see requests, signatures
//! and message bodies never log below `info`, so that no secret is logged.
//!
//! Nothing that logs waits for standard error: see `queue`. A warning that is repeated too often is suppressed and counted:
//! see `limiter`.

mod limiter;
mod queue;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::panic::PanicHookInfo;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::logfmt::{LogfmtEvents, LogfmtSpans};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{EnvFilter, FilterExt, LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};
use tracing_subscriber::util::SubscriberInitExt;

pub use queue::LogStats;
use queue::{AUDIT, LineKind, LogQueue, QueueLimits};

/// Longest wait for standard error at the end of the process.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text if standard error is a terminal, else JSON.
    #[default]
    Auto,
    /// One line of logfmt for each event, with the keys of JSON lines.
    Text,
    /// One JSON object for each event: `timestamp`, `level`, `target`, `message`, the event's own fields, and `span`.
    Json,
}

impl LogFormat {
    /// The format of lines on standard error: never `Auto`.
    #[must_use]
    pub fn resolve(self) -> Self {
        match self {
            Self::Auto if std::io::stderr().is_terminal() => Self::Text,
            Self::Auto => Self::Json,
            chosen => chosen,
        }
    }

    /// The error that ends the process, as the last line of a log in this format. No filter hides it.
    pub fn fatal_line(self, error: &str) -> String {
        let line = LineBuffer::default();
        let writer = line.clone();
        if let Ok(subscriber) = subscriber(self, "error", false, move || writer.clone()) {
            tracing::subscriber::with_default(subscriber, || {
                tracing::error!(target: env!("CARGO_CRATE_NAME"), error, "stopped by an error");
            });
        }
        let bytes = line.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).trim_end().to_owned()
    }
}

/// A writer into memory.
#[derive(Clone, Default)]
struct LineBuffer(Arc<Mutex<Vec<u8>>>);

impl Write for LineBuffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl FromStr for LogFormat {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("{text:?} is not a log format: use auto, text or json")),
        }
    }
}

/// An error at the start of logging.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is invalid.
    #[error(
        "parsing the log filter {filter:?}: {cause}; help: use a level (error, warn, info, debug, trace, off) or \
         TARGET=LEVEL, separated by commas, as in info,ecs_mesh=debug"
    )]
    Filter {
        /// The filter.
        filter: String,
        /// The part that is invalid, and why.
        cause: String,
    },
    /// Logging was started before in this process.
    #[error("logging is already set up")]
    Twice,
    /// The thread that writes the lines did not start.
    #[error("starting the log's writer: {0}")]
    Writer(#[source] io::Error),
}

/// Filters that apply before those of the user. A user's filter for the same target replaces one of them.
/// `aws_config` quotes complete responses when it warns of failed credentials; the failed call is logged in any case.
const DEFAULTS: &str = "info,aws_config=error,aws_runtime=warn,aws_sdk_ecs=warn,aws_sdk_iam=warn,aws_sdk_sqs=warn,\
     aws_sdk_sts=warn,aws_sigv4=warn,aws_smithy_http_client=warn,aws_smithy_runtime=warn,aws_smithy_runtime_api=warn,\
     hyper=warn,hyper_util=warn,rustls=warn,reqwest=warn";

/// Crates whose debug lines quote requests with their signatures, or responses with their bodies.
const SECRET_BEARING_CRATES: [&str; 8] =
    ["aws_config", "aws_runtime", "aws_sdk_", "aws_sigv4", "aws_smithy_", "h2", "hyper", "reqwest"];

/// Starts logging to standard error. `filter` is in the syntax of `RUST_LOG`; empty means `info`.
///
/// # Errors
/// If the filter is invalid, logging was started before, or the writer's thread cannot start.
pub fn init(format: LogFormat, filter: &str) -> Result<LogGuard, LogError> {
    let guard = LogGuard(LogQueue::new(QueueLimits::default()));
    let filter = env_filter(filter)?.and(max_level());
    let lines = lines(format.resolve(), io::stderr().is_terminal(), guard.0.clone(), Some(guard.0.clone()));
    tracing_subscriber::registry().with(lines.with_filter(filter)).try_init().map_err(|_| LogError::Twice)?;
    guard.start()
}

/// Starts logging for the sandbox, whose own output shows each write: warnings only, as short lines of text, without the
/// audit trail. Not for production.
///
/// # Errors
/// If logging was started before, or the writer's thread cannot start.
pub fn init_for_demo() -> Result<LogGuard, LogError> {
    let guard = LogGuard(LogQueue::new(QueueLimits::default()));
    let filter = env_filter("warn")?
        .and(Targets::new().with_default(LevelFilter::WARN).with_target(AUDIT, LevelFilter::OFF))
        .and(max_level());
    let terminal = io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_writer(guard.0.clone()).with_ansi(terminal);
    let limited = |inner| LimitedFormat { inner, limit: Some(guard.0.clone()) };
    let lines = lines.without_time().with_target(false).map_event_format(limited).with_filter(filter);
    tracing_subscriber::registry().with(lines).try_init().map_err(|_| LogError::Twice)?;
    guard.start()
}

/// The running log. Dropping it waits until the last lines are written, at most 2 s: a reader that takes nothing does not
/// keep the process alive.
pub struct LogGuard(LogQueue);

impl LogGuard {
    /// Starts the writer's thread, and sends panics the same way as lines.
    fn start(self) -> Result<Self, LogError> {
        // A duplicate: a write that hangs would hold the lock of the standard library's handle.
        let out: Box<dyn Write + Send> = match io::stderr().as_fd().try_clone_to_owned() {
            Ok(descriptor) => Box::new(File::from(descriptor)),
            Err(_) => Box::new(io::stderr()),
        };
        self.0.start_writer(out).map_err(LogError::Writer)?;
        let queue = self.0.clone();
        std::panic::set_hook(Box::new(move |panic| {
            queue.push(LineKind::General, panic_lines(panic).as_bytes());
        }));
        Ok(self)
    }

    /// The counts of lines, for metrics.
    pub fn stats(&self) -> Arc<LogStats> {
        Arc::clone(self.0.stats())
    }

    /// Writes a line that is no event: the error that ends the process. It is kept whatever else waits.
    pub fn print(&self, line: &str) {
        self.0.push(LineKind::Last, format!("{line}\n").as_bytes());
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        // Nothing can be said where standard error takes nothing.
        let _ = self.0.flush(FLUSH_TIMEOUT);
        self.0.close();
    }
}

/// As the standard library prints a panic.
fn panic_lines(panic: &PanicHookInfo<'_>) -> String {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("<unnamed>");
    let backtrace = Backtrace::capture();
    match backtrace.status() {
        BacktraceStatus::Captured => format!("thread '{name}' {panic}\nstack backtrace:\n{backtrace}\n"),
        _ => format!("thread '{name}' {panic}\n"),
    }
}

/// The subscriber that [`init`] installs, with another writer and without a limit of repeated lines. `Auto` means JSON here;
/// `colour` applies to text.
///
/// # Errors
/// If the filter is invalid.
pub fn subscriber<W>(
    format: LogFormat,
    filter: &str,
    colour: bool,
    writer: W,
) -> Result<impl Subscriber + Send + Sync + 'static, LogError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = env_filter(filter)?.and(max_level());
    Ok(tracing_subscriber::registry().with(lines(format, colour, writer, None).with_filter(filter)))
}

/// The layer that formats lines, with the queue that limits them.
fn lines<W>(
    format: LogFormat,
    colour: bool,
    writer: W,
    limit: Option<LogQueue>,
) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    match format {
        LogFormat::Text => {
            let lines = lines.with_ansi(colour).event_format(LogfmtEvents).fmt_fields(LogfmtSpans);
            lines.map_event_format(|inner| LimitedFormat { inner, limit }).boxed()
        }
        LogFormat::Auto | LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_current_span(true).with_span_list(false);
            lines.map_event_format(|inner| LimitedFormat { inner, limit }).boxed()
        }
    }
}

/// Formats an event as nothing where the same line is repeated too often. (A filter cannot: one that refuses an event also
/// loses the next line of a callsite that is always on, in tracing-subscriber 0.3.23.)
struct LimitedFormat<F> {
    inner: F,
    limit: Option<LogQueue>,
}

impl<S, N, F> FormatEvent<S, N> for LimitedFormat<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        match &self.limit {
            Some(queue) if !queue.admits(event) => Ok(()),
            _ => self.inner.format_event(context, writer, event),
        }
    }
}

fn env_filter(filter: &str) -> Result<EnvFilter, LogError> {
    let invalid = |cause: String| LogError::Filter { filter: filter.chars().take(200).collect(), cause };
    if let Some(cause) = filter_error(filter) {
        return Err(invalid(cause));
    }
    let all = [DEFAULTS, filter.trim(), "audit=info"];
    let all: Vec<_> = all.into_iter().filter(|part| !part.is_empty()).collect();
    EnvFilter::builder().parse(all.join(",")).map_err(|error| invalid(error.to_string()))
}

/// Finds likely typos. The library takes a word that is not a level for a target, and a target without a level for all of
/// its lines. Filters by span are checked by the library alone.
fn filter_error(filter: &str) -> Option<String> {
    if filter.contains('[') {
        return None;
    }
    let mut parts = filter.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.find_map(|part| match part.split_once('=') {
        Some(("", _)) => Some(format!("{part:?} has no target before the =")),
        Some((_, "")) => Some(format!("{part:?} has no level after the =")),
        None if part.parse::<LevelFilter>().is_err() => {
            Some(format!("{part:?} is not a level; for a target use {part}=LEVEL"))
        }
        _ => None,
    })
}

/// The lowest level of the crates that see secrets.
fn max_level() -> Targets {
    Targets::new()
        .with_default(LevelFilter::TRACE)
        .with_targets(SECRET_BEARING_CRATES.map(|target| (target, LevelFilter::INFO)))
}

/// A writer that keeps the log, for tests.
#[cfg(test)]
pub(crate) mod testing {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    pub(crate) struct LogBuffer(pub(crate) Arc<Mutex<Vec<u8>>>);

    impl Write for LogBuffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::testing::LogBuffer;
    use super::*;
    use crate::telemetry::logfmt::testing::parse;

    /// The log of `run`.
    fn logged(format: LogFormat, filter: &str, run: impl FnOnce()) -> String {
        let lines = LogBuffer::default();
        let writer = lines.clone();
        let subscriber = subscriber(format, filter, false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, run);
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn json_line_has_its_fields_at_the_top_level() {
        let text = logged(LogFormat::Json, "", || {
            tracing::info_span!("reconcile", task = "3f2a").in_scope(|| {
                tracing::info!(target: "ecs_mesh_control_plane", service = "kv", change = "create", "registered");
            });
        });
        let line: Value = serde_json::from_str(text.trim_end()).unwrap();
        for (key, expected) in [
            ("level", "INFO"),
            ("message", "registered"),
            ("service", "kv"),
            ("change", "create"),
            ("target", "ecs_mesh_control_plane"),
        ] {
            assert_eq!(line[key], expected, "{line}");
        }
        assert_eq!(line["span"]["task"], "3f2a");
        let at = ecs_mesh_model::Timestamp::parse(line["timestamp"].as_str().unwrap());
        assert!(at.is_some(), "{line}");
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn text_line_is_logfmt_with_the_keys_of_json() {
        const HARD: [&str; 9] = [
            "",
            "two words",
            "a=b",
            "say \"no\"",
            "C:\\x\\",
            "line\nbreak\r\ttab",
            "it's",
            "\u{1b}[31m\u{7f}",
            "ÄÖ \u{85}",
        ];
        for value in HARD {
            let text = logged(LogFormat::Text, "", || {
                tracing::warn!(service = value, paths = ?[value], r#type = 7, error = %value, "cannot list");
            });
            assert_eq!(text.lines().count(), 1, "{text}");
            let pairs =
                parse(text.strip_suffix('\n').unwrap()).unwrap_or_else(|error| panic!("{error}: {text}"));
            let keys: Vec<&str> = pairs.iter().map(|(key, _)| key.as_str()).collect();
            assert_eq!(
                keys,
                ["timestamp", "level", "target", "message", "service", "paths", "type", "error"]
            );
            let values: Vec<&str> = pairs.iter().skip(1).map(|(_, value)| value.as_str()).collect();
            let debug = format!("{:?}", [value]);
            assert_eq!(values, ["WARN", module_path!(), "cannot list", value, &debug, "7", value], "{text}");
            assert!(ecs_mesh_model::Timestamp::parse(&pairs[0].1).is_some(), "{text}");
        }
    }

    #[test]
    fn text_line_names_the_span_after_the_fields() {
        let text = logged(LogFormat::Text, "", || {
            let span = tracing::info_span!("reconcile", task = "3f 2a");
            span.in_scope(|| tracing::info!(task = "other", "registered"));
        });
        let pairs = parse(text.trim_end()).unwrap();
        let found = |key: &str| pairs.iter().find(|(own, _)| own == key).map(|(_, value)| value.as_str());
        assert_eq!(found("span"), Some("reconcile"));
        assert_eq!((found("span.task"), found("task")), (Some("3f 2a"), Some("other")), "{text}");
    }

    #[test]
    fn fatal_error_has_the_format_of_the_log() {
        let error = "all manifests are invalid:\n  a.yaml:1: \"x\"";
        let json: Value = serde_json::from_str(&LogFormat::Json.fatal_line(error)).unwrap();
        assert_eq!((json["level"].as_str(), json["error"].as_str()), (Some("ERROR"), Some(error)));
        let line = LogFormat::Text.fatal_line(error);
        let pairs = parse(&line).unwrap();
        let found = |key: &str| pairs.iter().find(|(own, _)| own == key).map(|(_, value)| value.as_str());
        assert_eq!((found("level"), found("error")), (Some("ERROR"), Some(error)), "{line}");
        assert_eq!(json["message"].as_str(), found("message"));
    }

    #[test]
    fn info_is_the_default_and_the_sdk_is_quieter() {
        let text = logged(LogFormat::Text, "", || {
            tracing::info!(target: "ecs_mesh_operator", "a");
            tracing::debug!(target: "ecs_mesh_operator", "b");
            tracing::warn!(target: "aws_config::meta::credentials", "c");
            tracing::info!(target: "aws_runtime", "d");
            tracing::warn!(target: "aws_runtime", "e");
        });
        let words: Vec<_> = text.lines().filter_map(|line| line.rsplit(' ').next()).collect();
        assert_eq!(words, ["message=a", "message=e"]);
    }

    #[test]
    fn audit_trail_is_on_for_every_filter() {
        for filter in ["off", "error", "audit=off", "ecs_mesh_operator=debug"] {
            let text = logged(LogFormat::Json, filter, || tracing::info!(target: "audit", "identity"));
            assert!(text.contains("identity"), "{filter}");
        }
    }

    #[test]
    fn secret_bearing_crates_are_silent_below_info() {
        let text = logged(LogFormat::Json, "trace,aws_smithy_runtime=trace,aws_sigv4=trace", || {
            tracing::debug!(target: "aws_smithy_runtime::client::orchestrator", "secret");
            tracing::trace!(target: "aws_sigv4::http_request::sign", "secret");
            tracing::debug!(target: "aws_sdk_sqs::operation", "secret");
            tracing::trace!(target: "ecs_mesh_operator", "visible");
        });
        assert!(text.contains("visible") && !text.contains("secret"), "{text}");
    }

    #[test]
    fn filter_error_names_the_allowed_forms() {
        for (filter, expected) in [
            ("a=b=c", "a=b=c"),
            ("info,blah=", "no level after the ="),
            ("=debug", "no target before the ="),
            ("debg", "\"debg\" is not a level"),
            ("info,ecs_mesh_operator", "use ecs_mesh_operator=LEVEL"),
        ] {
            let error = subscriber(LogFormat::Json, filter, false, std::io::sink).err().unwrap().to_string();
            assert!(error.contains(expected) && error.contains("TARGET=LEVEL"), "{filter}: {error}");
        }
    }

    #[test]
    fn filter_accepts_levels_targets_and_spans() {
        for filter in
            ["", "off", "INFO", "warn,ecs_mesh_control_plane=debug,", "info,[reconcile{task=\"1\"}]=debug"]
        {
            assert!(subscriber(LogFormat::Json, filter, false, std::io::sink).is_ok(), "{filter}");
        }
    }

    #[test]
    fn log_format_is_parsed_by_name() {
        assert_eq!("json".parse(), Ok(LogFormat::Json));
        assert!("xml".parse::<LogFormat>().unwrap_err().contains("auto, text or json"));
    }
}

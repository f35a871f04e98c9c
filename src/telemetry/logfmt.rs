//! The text format of log lines: logfmt, with the same keys as JSON lines.
//!
//! A line is `timestamp=… level=… target=… message="…"` and the event's own fields. Values with spaces, quotes, `=`,
//! backslashes or control characters are quoted and escaped as in JSON, so that every parser of logfmt reads a line back.
//! Fields of the current span follow as `span.NAME`.

use std::fmt::{self, Debug};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// Formats events.
pub(super) struct LogfmtEvents;

/// Formats the fields of spans.
pub(super) struct LogfmtSpans;

impl<S, N> FormatEvent<S, N> for LogfmtEvents
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let colour = writer.has_ansi_escapes().then(|| colour(*metadata.level()));
        write!(writer, "timestamp=")?;
        SystemTime.format_time(&mut writer)?;
        match colour {
            Some(colour) => write!(writer, " level={colour}{}{colour:#}", metadata.level())?,
            None => write!(writer, " level={}", metadata.level())?,
        }
        write_pair(&mut writer, "target", metadata.target())?;
        // The message first: macros put it behind the fields.
        let mut fields =
            LogfmtFields { writer: &mut writer, prefix: "", only: Some("message"), result: Ok(()) };
        event.record(&mut fields);
        fields.result?;
        let mut fields = LogfmtFields { writer: &mut writer, prefix: "", only: None, result: Ok(()) };
        event.record(&mut fields);
        fields.result?;
        if let Some(span) = context.lookup_current() {
            write_pair(&mut writer, "span", span.name())?;
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
                write!(writer, "{}", fields.fields)?;
            }
        }
        writeln!(writer)
    }
}

impl<'writer> FormatFields<'writer> for LogfmtSpans {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut visitor = LogfmtFields { writer: &mut writer, prefix: "span.", only: None, result: Ok(()) };
        fields.record(&mut visitor);
        visitor.result
    }
}

fn colour(level: Level) -> anstyle::Style {
    let colour = match level {
        Level::ERROR => anstyle::AnsiColor::Red,
        Level::WARN => anstyle::AnsiColor::Yellow,
        Level::INFO => anstyle::AnsiColor::Green,
        Level::DEBUG => anstyle::AnsiColor::Blue,
        Level::TRACE => anstyle::AnsiColor::Magenta,
    };
    colour.on_default()
}

/// Writes ` key=value` for each field: only the message, or all others.
struct LogfmtFields<'a, 'writer> {
    writer: &'a mut Writer<'writer>,
    prefix: &'static str,
    only: Option<&'static str>,
    result: fmt::Result,
}

impl LogfmtFields<'_, '_> {
    fn write(&mut self, field: &Field, value: &str) {
        let is_message = field.name() == "message";
        if self.result.is_err() || is_message != (self.only == Some("message")) {
            return;
        }
        let key = field.name().strip_prefix("r#").unwrap_or(field.name());
        self.result = write!(self.writer, " {}", self.prefix)
            .and_then(|()| write!(self.writer, "{key}="))
            .and_then(|()| write_value(self.writer, value));
    }
}

impl Visit for LogfmtFields<'_, '_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.write(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.write(field, &format!("{value:?}"));
    }
}

fn write_pair(writer: &mut Writer<'_>, key: &str, value: &str) -> fmt::Result {
    write!(writer, " {key}=")?;
    write_value(writer, value)
}

/// Writes the value as it is, or as a JSON string where a parser would read something else.
fn write_value(writer: &mut Writer<'_>, value: &str) -> fmt::Result {
    let is_plain = |c: char| c > ' ' && !c.is_control() && !matches!(c, '"' | '=' | '\\');
    if !value.is_empty() && value.chars().all(is_plain) {
        return writer.write_str(value);
    }
    writer.write_char('"')?;
    for c in value.chars() {
        match c {
            '"' | '\\' => write!(writer, "\\{c}")?,
            '\n' => writer.write_str("\\n")?,
            '\r' => writer.write_str("\\r")?,
            '\t' => writer.write_str("\\t")?,
            // All of them are below U+10000, so that four digits suffice.
            c if c.is_control() => write!(writer, "\\u{:04x}", u32::from(c))?,
            c => writer.write_char(c)?,
        }
    }
    writer.write_char('"')
}

#[cfg(test)]
pub(super) mod testing {
    //! A strict parser of logfmt.

    /// The pairs of a line, or where it is not logfmt.
    pub(in crate::telemetry) fn parse(line: &str) -> Result<Vec<(String, String)>, String> {
        let mut pairs = Vec::new();
        let mut rest = line;
        while !rest.is_empty() {
            let (key, after) = rest.split_once('=').ok_or_else(|| format!("no = in {rest:?}"))?;
            if key.is_empty() || key.chars().any(|c| c <= ' ' || c == '"') {
                return Err(format!("{key:?} is no key"));
            }
            let (value, after) = match after.strip_prefix('"') {
                None => {
                    let (value, after) = after.split_at(after.find(' ').unwrap_or(after.len()));
                    if value.contains(['"', '=', '\\']) {
                        return Err(format!("{value:?} is not quoted"));
                    }
                    (value.to_owned(), after)
                }
                Some(quoted) => {
                    let mut escaped = false;
                    let end = quoted
                        .find(|c| {
                            let ends = c == '"' && !escaped;
                            escaped = c == '\\' && !escaped;
                            ends
                        })
                        .ok_or("a quote is not closed")?;
                    let text = &quoted[..end];
                    let value =
                        serde_json::from_str(&format!("\"{text}\"")).map_err(|error| error.to_string())?;
                    (value, &quoted[end + 1..])
                }
            };
            pairs.push((key.to_owned(), value));
            rest = match after.strip_prefix(' ') {
                Some(next) if !next.is_empty() => next,
                None if after.is_empty() => "",
                _ => return Err(format!("{after:?} follows a value")),
            };
        }
        Ok(pairs)
    }

    #[test]
    fn parser_refuses_what_is_not_logfmt() {
        for line in ["a", "a=1 b", "=1", "a=\"1", "a=1  b=2", "a=1\"", "a=b=c", "a=\"1\"b=2", "a=1 "] {
            assert!(parse(line).is_err(), "{line}: {:?}", parse(line));
        }
        let pairs = parse("a=1 b=\"x \\\"y\\\"\" c=\"\"").unwrap();
        assert_eq!(
            pairs,
            [("a", "1"), ("b", "x \"y\""), ("c", "")].map(|(k, v)| (k.to_owned(), v.to_owned()))
        );
    }
}

//! The fields of one log line.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Fields that changes and warnings have.
const KEYS: [&str; 25] = [
    "timestamp",
    "target",
    "message",
    "control_plane",
    "mesh",
    "name",
    "id",
    "task",
    "role",
    "service",
    "ecs_service",
    "cluster",
    "workload",
    "binding",
    "change",
    "kind",
    "reason",
    "fields",
    "result",
    "error",
    "store",
    "token_id",
    "level",
    // Where a log service puts the line.
    "log",
    "@message",
];

/// Fields of log services' objects that hold the line itself.
const ENVELOPES: [&str; 3] = ["message", "log", "@message"];

/// The fields of a line, without those that no change has.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct LogFields([Option<String>; KEYS.len()]);

/// Why a line has no fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoFields;

impl LogFields {
    /// The fields of a line: JSON or logfmt, alone, behind a prefix, or inside a log service's object.
    pub(super) fn parse(line: &str) -> Result<Self, NoFields> {
        let fields = Self::parse_one(line)?;
        if fields.get("target").is_some() {
            return Ok(fields);
        }
        // An object around the line has no target; a line of another program inside one is no error.
        match ENVELOPES.into_iter().find_map(|key| fields.get(key)) {
            Some(inner) => Ok(Self::parse_one(inner).unwrap_or(fields)),
            None => Ok(fields),
        }
    }

    fn parse_one(line: &str) -> Result<Self, NoFields> {
        let (json, logfmt) = (line.find("{\""), logfmt_start(line));
        match (json, logfmt) {
            (Some(json), Some(logfmt)) if logfmt < json => parse_logfmt(&line[logfmt..]),
            (Some(json), _) => parse_json(&line[json..]),
            (None, Some(logfmt)) => parse_logfmt(&line[logfmt..]),
            (None, None) => Err(NoFields),
        }
    }

    /// The value of one of the known keys; empty values are none.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        let value = self.0[index(key)?].as_deref()?;
        Some(value).filter(|value| !value.is_empty())
    }

    fn set(&mut self, key: &str, value: impl FnOnce() -> String) {
        // The first of two equal keys is the event's own; that of its span follows.
        if let Some(slot) = index(key).map(|index| &mut self.0[index])
            && slot.is_none()
        {
            *slot = Some(value());
        }
    }
}

fn index(key: &str) -> Option<usize> {
    KEYS.iter().position(|known| *known == key)
}

/// Where logfmt starts: prefixes of log services stand before it.
fn logfmt_start(line: &str) -> Option<usize> {
    const FIRST: &str = "timestamp=";
    line.match_indices(FIRST).map(|(at, _)| at).find(|at| *at == 0 || line.as_bytes()[at - 1] == b' ')
}

/// Text behind the object, such as the columns of `--output text`, is ignored.
fn parse_json(text: &str) -> Result<LogFields, NoFields> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<LogFields>();
    values.next().and_then(Result::ok).ok_or(NoFields)
}

impl<'de> Deserialize<'de> for LogFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = LogFields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<LogFields, A::Error> {
                let mut fields = LogFields::default();
                while let Some(key) = map.next_key::<Key<'de>>()? {
                    if index(&key.0).is_some() {
                        let value = map.next_value::<Scalar<'de>>()?;
                        if let Some(text) = value.0 {
                            fields.set(&key.0, || text.into_owned());
                        }
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let key = Scalar::deserialize(deserializer)?;
        Ok(Self(key.0.unwrap_or_default()))
    }
}

/// The text of a string or number; none of anything else.
struct Scalar<'a>(Option<Cow<'a, str>>);

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Scalar<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Scalar(Some(Cow::Borrowed(text))))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Scalar(Some(Cow::Owned(text.to_owned()))))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
                Ok(Scalar(Some(Cow::Owned(number.to_string()))))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
                Ok(Scalar(Some(Cow::Owned(number.to_string()))))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
                Ok(Scalar(Some(Cow::Owned(number.to_string()))))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(Scalar(None))
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Scalar(None))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Scalar(None))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Scalar(None))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

/// Reads `key=value` pairs, in which values with spaces are JSON strings. A terminal's colours are dropped.
fn parse_logfmt(line: &str) -> Result<LogFields, NoFields> {
    let plain = without_colours(line);
    let mut rest = plain.trim_end();
    let mut fields = LogFields::default();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=').ok_or(NoFields)?;
        if key.is_empty() || key.contains([' ', '"']) {
            return Err(NoFields);
        }
        let (value, after) = if after.starts_with('"') {
            let end = end_of_string(after).ok_or(NoFields)?;
            let value: String = serde_json::from_str(&after[..end]).map_err(|_| NoFields)?;
            (value, &after[end..])
        } else {
            let end = after.find(' ').unwrap_or(after.len());
            (after[..end].to_owned(), &after[end..])
        };
        fields.set(key, || value);
        rest = match after.strip_prefix(' ') {
            Some(next) => next.trim_start(),
            None if after.is_empty() => "",
            None => return Err(NoFields),
        };
    }
    Ok(fields)
}

/// The length of the string literal at the start of the text, with its quotes.
fn end_of_string(text: &str) -> Option<usize> {
    let mut escaped = false;
    let end = text[1..].find(|c| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    })?;
    Some(end + 2)
}

/// Control sequences can only be colours: values have them escaped.
fn without_colours(line: &str) -> Cow<'_, str> {
    if !line.contains('\u{1b}') {
        return Cow::Borrowed(line);
    }
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find('\u{1b}') {
        plain.push_str(&rest[..at]);
        let sequence = &rest[at + 1..];
        let end = sequence.strip_prefix('[').and_then(|body| body.find(|c: char| c.is_ascii_alphabetic()));
        rest = end.map_or(sequence, |end| &sequence[end + 2..]);
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{"timestamp":"2026-11-30T01:00:00Z","level":"INFO","message":"registration created","service":"k \"v\"","change":"create","n":7,"span":{"task":"x"},"target":"audit"}"#;
    const LOGFMT: &str = r#"timestamp=2026-11-30T01:00:00Z level=INFO target=audit message="registration created" service="k \"v\"" change=create n=7"#;

    #[test]
    fn line_is_read_in_each_form_of_a_log_service() {
        let quoted = |text: &str| serde_json::to_string(text).unwrap();
        for line in [
            JSON.to_owned(),
            LOGFMT.to_owned(),
            format!("2026-11-30T01:00:01 {JSON}"),
            format!("2026-11-30T01:00:01.123000+00:00 ecs/operator/0a1b {JSON}"),
            format!("operator-1  | {LOGFMT}"),
            format!("EVENTS\t3912\t1795317861091\t{JSON}\tecs/operator/0a1b\t1795317861000"),
            format!(r#"{{"timestamp":1795317861000,"logStreamName":"a","message":{}}}"#, quoted(JSON)),
            format!(r#"{{"@timestamp":"2026-11-30 01:00:01.000","@message":{}}}"#, quoted(JSON)),
            format!(r#"{{"log":{},"stream":"stderr"}}"#, quoted(&format!("{JSON}\n"))),
            format!(r#"{{"message":{}}}"#, quoted(LOGFMT)),
            LOGFMT.replace("level=INFO", "level=\u{1b}[32mINFO\u{1b}[0m"),
        ] {
            let fields = LogFields::parse(&line).unwrap_or_else(|_| panic!("{line}"));
            let found = ["timestamp", "target", "message", "service", "change"].map(|key| fields.get(key));
            let expected =
                ["2026-11-30T01:00:00Z", "audit", "registration created", "k \"v\"", "create"].map(Some);
            assert_eq!(found, expected, "{line}");
            assert_eq!(fields.get("task"), None, "the span's task is another field");
        }
    }

    #[test]
    fn line_without_an_end_is_no_line() {
        for line in [
            &JSON[..JSON.len() - 20],
            "hello",
            r#"timestamp=1 message="a"#,
            "timestamp=1 a",
            "{\"a\"",
            "timestamp=1 \"=2",
        ] {
            assert_eq!(LogFields::parse(line), Err(NoFields), "{line}");
        }
    }

    #[test]
    fn values_of_other_types_are_no_error() {
        let fields = LogFields::parse(
            r#"{"target":"x","error":{"a":[1]},"name":[1],"kind":null,"result":true,"mesh":7}"#,
        );
        let fields = fields.unwrap();
        assert_eq!((fields.get("error"), fields.get("result"), fields.get("mesh")), (None, None, Some("7")));
    }
}

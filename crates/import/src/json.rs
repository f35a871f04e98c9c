//! Reads a text with one JSON document after another, as several calls of the AWS CLI print them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::place::SourceError;
use crate::tree::{SourceEntry, SourceNode, SourceValue};

/// Maximum nesting of lists and mappings.
pub(crate) const MAX_DEPTH: usize = 64;

/// The documents of the text, up to the first that is invalid, and its error.
pub(crate) fn documents(text: &str) -> (Vec<SourceNode>, Option<SourceError>) {
    let mut found = Vec::new();
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    let lines = LineIndex::of(text);
    loop {
        let start = stream.byte_offset();
        match stream.next() {
            None => return (found, None),
            Some(Err(error)) => return (found, Some(lines.error(start, text, &error))),
            Some(Ok(raw)) => match (JsonReader { text, lines: &lines }).node(raw, 0) {
                Ok(node) => found.push(node),
                Err(error) => return (found, Some(error)),
            },
        }
    }
}

/// The offsets at which lines begin.
struct LineIndex(Vec<usize>);

impl LineIndex {
    fn of(text: &str) -> Self {
        let starts = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self(std::iter::once(0).chain(starts).collect())
    }

    fn line(&self, offset: usize) -> u32 {
        u32::try_from(self.0.partition_point(|start| *start <= offset)).unwrap_or(u32::MAX)
    }

    /// The stream counts lines from the start of the whole text.
    fn error(&self, start: usize, text: &str, error: &serde_json::Error) -> SourceError {
        let line = u32::try_from(error.line()).unwrap_or(u32::MAX).max(1);
        if error.is_eof() {
            let rest = &text[start.min(text.len())..];
            let begins = self.line(start + rest.len() - rest.trim_start().len());
            let message = format!(
                "not valid JSON: the text ends within the document that begins on line {begins}; help: was the file \
                 cut off?"
            );
            return SourceError {
                line: Some(line),
                column: Some(error.column()),
                path: String::new(),
                message,
            };
        }
        let text = error.to_string();
        let cause = text.split(" at line ").next().unwrap_or_default();
        let message = format!("not valid JSON: {cause}");
        SourceError { line: Some(line), column: Some(error.column()), path: String::new(), message }
    }
}

/// The keys of an object, with values that are not read yet.
struct RawEntries<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for RawEntries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RawEntriesVisitor)
    }
}

struct RawEntriesVisitor;

impl<'de> Visitor<'de> for RawEntriesVisitor {
    type Value = RawEntries<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = map.next_entry::<Cow<'de, str>, &'de RawValue>()? {
            entries.push((key, value));
        }
        Ok(RawEntries(entries))
    }
}

/// Converts raw values, each of which is a part of the text.
struct JsonReader<'a> {
    text: &'a str,
    lines: &'a LineIndex,
}

impl JsonReader<'_> {
    fn node(&self, raw: &RawValue, depth: usize) -> Result<SourceNode, SourceError> {
        let written = raw.get();
        // The raw value borrows from the text, so the distance of both is its offset.
        let offset = (written.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        let line = self.lines.line(offset);
        let failed =
            |message: String| SourceError { line: Some(line), column: None, path: String::new(), message };
        if depth > MAX_DEPTH {
            return Err(failed(format!("too deep: at most {MAX_DEPTH} levels in a document")));
        }
        let invalid = |error: serde_json::Error| failed(format!("not valid JSON: {error}"));
        let value = match written.as_bytes().first() {
            Some(b'{') => {
                let RawEntries(raw) = serde_json::from_str(written).map_err(invalid)?;
                SourceValue::Map(self.entries(raw, depth)?)
            }
            Some(b'[') => {
                let raw: Vec<&RawValue> = serde_json::from_str(written).map_err(invalid)?;
                let items: Result<_, _> = raw.into_iter().map(|item| self.node(item, depth + 1)).collect();
                SourceValue::List(items?)
            }
            Some(b'"') => SourceValue::Text(serde_json::from_str(written).map_err(invalid)?),
            Some(b't') => SourceValue::Bool(true),
            Some(b'f') => SourceValue::Bool(false),
            Some(b'n') | None => SourceValue::Null,
            Some(_) => SourceValue::Number(written.to_owned()),
        };
        Ok(SourceNode { line, value })
    }

    fn entries(
        &self,
        raw: Vec<(Cow<'_, str>, &RawValue)>,
        depth: usize,
    ) -> Result<Vec<SourceEntry>, SourceError> {
        let mut lines: BTreeMap<String, u32> = BTreeMap::new();
        let mut entries = Vec::with_capacity(raw.len());
        for (key, value) in raw {
            let node = self.node(value, depth + 1)?;
            if let Some(first) = lines.insert(key.to_string(), node.line) {
                let message = format!("given twice, first on line {first}: keep one of them");
                return Err(SourceError {
                    line: Some(node.line),
                    column: None,
                    path: key.into_owned(),
                    message,
                });
            }
            entries.push(SourceEntry { key: key.into_owned(), node });
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_follow_each_other_with_their_lines() {
        let (found, error) = documents("{\"a\": 1}\n{\n  \"b\": [true,\n null]}");
        assert!(error.is_none(), "{error:?}");
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].leaves(), [("b[0]".to_owned(), 3), ("b[1]".to_owned(), 4)]);
    }

    #[test]
    fn cut_off_document_is_an_error_with_its_place() {
        let (found, error) = documents("{\"a\": 1}\n{\"b\": {\n\"c\": ");
        let error = error.unwrap();
        assert_eq!((found.len(), error.line), (1, Some(3)));
        assert!(error.message.contains("begins on line 2"), "{error:?}");
    }

    #[test]
    fn duplicate_key_is_an_error_with_its_line() {
        let (_, error) = documents("{\"a\": 1,\n\"a\": 2}");
        let error = error.unwrap();
        assert_eq!((error.line, error.path.as_str()), (Some(2), "a"));
    }

    #[test]
    fn deep_nesting_is_an_error() {
        let text = "[".repeat(100_000) + &"]".repeat(100_000);
        assert!(documents(&text).1.is_some());
    }
}

//! The line on which each value of a JSON text begins. The text must be valid JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Line numbers from 1, by path (`containerDefinitions[0].name`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LineIndex(BTreeMap<String, u32>);

impl LineIndex {
    /// Builds the index of a valid JSON text.
    pub(crate) fn of(text: &str) -> Self {
        let mut scanner = Scanner { bytes: text.as_bytes(), offset: 0, line: 1, lines: BTreeMap::new() };
        scanner.value(&mut String::new());
        Self(scanner.lines)
    }

    /// Whether there is a value at the path.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    /// The line of the value, or of the nearest enclosing value.
    pub(crate) fn get(&self, path: &str) -> Option<u32> {
        let mut path = path;
        loop {
            if let Some(line) = self.0.get(path) {
                return Some(*line);
            }
            if path.is_empty() {
                return None;
            }
            path = path.rfind(['.', '[']).map_or("", |at| &path[..at]);
        }
    }
}

struct Scanner<'a> {
    bytes: &'a [u8],
    offset: usize,
    line: u32,
    lines: BTreeMap<String, u32>,
}

impl Scanner<'_> {
    fn value(&mut self, path: &mut String) {
        self.blank();
        self.lines.insert(path.clone(), self.line);
        match self.bytes.get(self.offset) {
            Some(b'{') => self.members(path, b'}', true),
            Some(b'[') => self.members(path, b']', false),
            Some(b'"') => {
                self.text();
            }
            _ => {
                while self.bytes.get(self.offset).is_some_and(|b| !b",]} \t\r\n".contains(b)) {
                    self.offset += 1;
                }
            }
        }
    }

    fn members(&mut self, path: &mut String, end: u8, named: bool) {
        self.offset += 1;
        for index in 0.. {
            self.blank();
            match self.bytes.get(self.offset) {
                Some(b',') => {
                    self.offset += 1;
                    self.blank();
                }
                Some(byte) if *byte == end => {
                    self.offset += 1;
                    return;
                }
                Some(_) => {}
                None => return,
            }
            let length = path.len();
            if named {
                let key = self.text();
                self.blank();
                self.offset += 1;
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(&key);
            } else {
                // Writing to a String cannot fail.
                let _ = write!(path, "[{index}]");
            }
            self.value(path);
            path.truncate(length);
        }
    }

    /// Consumes a string and returns it with its escapes; field names have none.
    fn text(&mut self) -> String {
        let start = self.offset + 1;
        self.offset = start;
        while let Some(byte) = self.bytes.get(self.offset) {
            match byte {
                b'\\' => self.offset += 1,
                b'"' => break,
                _ => {}
            }
            self.offset += 1;
        }
        let end = self.offset.min(self.bytes.len());
        self.offset += 1;
        String::from_utf8_lossy(self.bytes.get(start..end).unwrap_or_default()).into_owned()
    }

    fn blank(&mut self) {
        while let Some(byte) = self.bytes.get(self.offset).filter(|byte| b" \t\r\n".contains(byte)) {
            self.line += u32::from(*byte == b'\n');
            self.offset += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_index_falls_back_to_enclosing_value() {
        let text =
            "{\n \"a\": [\n  1,\n  {\"b\": \"x\\\"}\\\\\",\n   \"c\": null}],\n \"d\": {}, \"e\": []\n}";
        let lines = LineIndex::of(text);
        for (path, line) in
            [("", 1), ("a", 2), ("a[0]", 3), ("a[1].b", 4), ("a[1].c", 5), ("d", 6), ("e", 6), ("a[1].z", 4)]
        {
            assert_eq!(lines.get(path), Some(line), "{path}");
        }
    }
}

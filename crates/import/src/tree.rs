//! A document as a tree, with the line of each value.

/// A value of a document, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SourceNode {
    /// The line in the file, from 1.
    pub(crate) line: u32,
    /// The value.
    pub(crate) value: SourceValue,
}

/// A value of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SourceValue {
    /// `null`, or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, as it is written.
    Number(String),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<SourceNode>),
    /// A mapping, in the order of the document.
    Map(Vec<SourceEntry>),
}

/// A key of a mapping, and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SourceEntry {
    /// The key.
    pub(crate) key: String,
    /// The value.
    pub(crate) node: SourceNode,
}

impl SourceNode {
    /// The value of a key of this mapping.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.node)
    }

    /// The value at the end of a path of keys.
    pub(crate) fn at(&self, keys: &[&str]) -> Option<&Self> {
        keys.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The entries of this mapping; none of another value.
    pub(crate) fn entries(&self) -> &[SourceEntry] {
        match &self.value {
            SourceValue::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items of this list; none of another value.
    pub(crate) fn items(&self) -> &[Self] {
        match &self.value {
            SourceValue::List(items) => items,
            _ => &[],
        }
    }

    /// The text of a scalar that is not null.
    pub(crate) fn as_text(&self) -> Option<String> {
        match &self.value {
            SourceValue::Bool(value) => Some(value.to_string()),
            SourceValue::Number(text) | SourceValue::Text(text) => Some(text.clone()),
            SourceValue::Null | SourceValue::List(_) | SourceValue::Map(_) => None,
        }
    }

    /// The paths of all values that have none below them, in the order of the document.
    pub(crate) fn leaves(&self) -> Vec<(String, u32)> {
        let mut found = Vec::new();
        self.collect_leaves(String::new(), &mut found);
        found
    }

    fn collect_leaves(&self, path: String, found: &mut Vec<(String, u32)>) {
        match &self.value {
            SourceValue::Map(entries) if !entries.is_empty() => {
                for entry in entries {
                    entry.node.collect_leaves(child(&path, &entry.key), found);
                }
            }
            SourceValue::List(items) if !items.is_empty() => {
                for (index, item) in items.iter().enumerate() {
                    item.collect_leaves(format!("{path}[{index}]"), found);
                }
            }
            _ => found.push((path, self.line)),
        }
    }

    /// Whether the values are the same, wherever they stand.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        match (&self.value, &other.value) {
            (SourceValue::List(one), SourceValue::List(two)) => {
                one.len() == two.len() && one.iter().zip(two).all(|(a, b)| a.says_the_same(b))
            }
            (SourceValue::Map(one), SourceValue::Map(two)) => {
                one.len() == two.len()
                    && one
                        .iter()
                        .all(|entry| other.get(&entry.key).is_some_and(|node| entry.node.says_the_same(node)))
            }
            (one, two) => one == two,
        }
    }
}

/// The path of a key of the value at `path`: `spec.tags["kuma.io/zone"]`.
pub(crate) fn child(path: &str, key: &str) -> String {
    let is_plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    match (is_plain, path.is_empty()) {
        (true, true) => key.to_owned(),
        (true, false) => format!("{path}.{key}"),
        (false, _) => format!("{path}[{key:?}]"),
    }
}

/// The path without the indexes of lists: `spec.listeners[].timeout`.
pub(crate) fn without_indexes(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(start) = rest.find('[') {
        let (before, from) = rest.split_at(start);
        text.push_str(before);
        let end = from.find(']').map_or(from.len(), |end| end + 1);
        let is_index = from[1..end].trim_end_matches(']').bytes().all(|b| b.is_ascii_digit());
        text.push_str(if is_index { "[]" } else { &from[..end] });
        rest = &from[end..];
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_leave_paths_and_keys_stay() {
        for (path, plain) in [
            ("spec.listeners[0].port", "spec.listeners[].port"),
            ("a[12][3]", "a[][]"),
            ("tags[\"kuma.io/zone\"].x[1]", "tags[\"kuma.io/zone\"].x[]"),
            ("plain", "plain"),
        ] {
            assert_eq!(without_indexes(path), plain);
        }
    }
}

//! Splits a JSON list into items while it arrives, so that a list of any length needs the memory of its largest item. An
//! oversized item is reported as [`TooLarge`] without its content; the other items are unaffected.
//!
//! The text around the items is kept and can be parsed: `[…]` leaves `[]`, and `{"Node": {…}, "Services": […]}` leaves
//! `{"Node": {…}, "Services": []}`. A truncated list leaves invalid JSON.

use super::transport::{BodySink, ResponseHead};

/// The maximum nesting of lists and objects; Consul's have a few levels.
const MAX_DEPTH: usize = 1_024;
/// The maximum size of an item, and of the text around the items.
const MAX_ITEM_BYTES: usize = 1024 * 1024;

/// A long list takes longer than one response. A server that stops in the middle still times out after one limit.
const LIST_TIMEOUT_FACTOR: u32 = 12;

/// An item exceeds the maximum size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

/// Receives each item.
pub type ItemHandler<'a> = &'a mut (dyn FnMut(Result<&[u8], TooLarge>) + Send);

/// A sink that passes on the items of one list in a JSON text.
pub struct ItemStream<'a> {
    /// The nesting level of the list: 1 for `[…]`.
    level: usize,
    on_item: ItemHandler<'a>,
    /// The open arrays and objects, outermost first.
    open: Vec<JsonContainer>,
    /// `Some` within a string: whether the next character is escaped.
    text: Option<bool>,
    item: Vec<u8>,
    /// The item is too large and is not kept.
    too_large: bool,
    rest: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum JsonContainer {
    Array,
    Object,
}

impl<'a> ItemStream<'a> {
    /// Passes on the items of a top-level list.
    pub fn of_list(on_item: ItemHandler<'a>) -> Self {
        Self::at(1, on_item)
    }

    /// Passes on the items of the lists that are fields of a top-level object.
    pub fn of_fields(on_item: ItemHandler<'a>) -> Self {
        Self::at(2, on_item)
    }

    fn at(level: usize, on_item: ItemHandler<'a>) -> Self {
        let (open, item, rest) = (Vec::new(), Vec::new(), Vec::new());
        Self { level, on_item, open, text: None, item, too_large: false, rest }
    }

    /// The text around the items; of a failed call the complete body.
    pub fn rest(self) -> Vec<u8> {
        self.rest
    }

    fn is_within(&self) -> bool {
        self.open.get(self.level - 1) == Some(&JsonContainer::Array)
    }

    fn byte(&mut self, byte: u8) {
        if let Some(escaped) = self.text {
            self.text = match byte {
                _ if escaped => Some(false),
                b'\\' => Some(true),
                b'"' => None,
                _ => Some(false),
            };
            return self.insert(byte);
        }
        let between_items = self.is_within() && self.open.len() == self.level;
        match byte {
            b',' if between_items => self.end_item(),
            b']' if between_items => {
                self.end_item();
                self.open.pop();
                self.rest.push(byte);
            }
            b' ' | b'\t' | b'\r' | b'\n' if between_items => {}
            b'"' => {
                self.text = Some(false);
                self.insert(byte);
            }
            b'[' | b'{' => {
                self.insert(byte);
                self.open.push(if byte == b'[' { JsonContainer::Array } else { JsonContainer::Object });
            }
            b']' | b'}' => {
                self.open.pop();
                self.insert(byte);
            }
            _ => self.insert(byte),
        }
    }

    fn insert(&mut self, byte: u8) {
        if !self.is_within() {
            self.rest.push(byte);
        } else if !self.too_large {
            self.item.push(byte);
            self.too_large = self.item.len() > MAX_ITEM_BYTES;
        }
    }

    fn end_item(&mut self) {
        if self.too_large {
            (self.on_item)(Err(TooLarge));
        } else if !self.item.is_empty() {
            (self.on_item)(Ok(&self.item));
        }
        self.item.clear();
        self.too_large = false;
    }
}

impl BodySink for ItemStream<'_> {
    fn write(&mut self, head: &ResponseHead, chunk: &[u8]) -> bool {
        if head.status >= 300 {
            self.rest.extend_from_slice(chunk);
        } else {
            chunk.iter().for_each(|byte| self.byte(*byte));
        }
        self.rest.len() <= MAX_ITEM_BYTES && self.open.len() <= MAX_DEPTH
    }

    fn timeout_factor(&self) -> u32 {
        LIST_TIMEOUT_FACTOR
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: ResponseHead = ResponseHead { status: 200, retry_after: None, filtered: false };

    /// The items and the rest of a text that arrives in chunks of `size` bytes.
    fn split(text: &str, size: usize, level: usize) -> (Vec<String>, String) {
        let mut items = Vec::new();
        let mut each = |item: Result<&[u8], TooLarge>| {
            items.push(
                item.map_or("(too large)".to_owned(), |item| String::from_utf8(item.to_vec()).unwrap()),
            );
        };
        let mut sink = ItemStream::at(level, &mut each);
        assert!(text.as_bytes().chunks(size).all(|chunk| sink.write(&OK, chunk)));
        let rest = String::from_utf8(sink.rest()).unwrap();
        (items, rest)
    }

    #[test]
    fn item_stream_bounds_the_nesting() {
        let mut each = |_: Result<&[u8], TooLarge>| {};
        let mut sink = ItemStream::of_list(&mut each);
        assert!((0..1_000).any(|_| !sink.write(&OK, &[b'['; 100])));
    }

    #[test]
    fn item_stream_yields_items_across_chunk_boundaries() {
        let text = "[ {\"a\": \"x],{\\\"\", \"b\": [1, {}]} ,\n7, null,[ ], \"ü,\" ]";
        for size in 1..text.len() {
            let (items, rest) = split(text, size, 1);
            assert_eq!(
                items,
                ["{\"a\": \"x],{\\\"\", \"b\": [1, {}]}", "7", "null", "[ ]", "\"ü,\""],
                "{size}"
            );
            assert_eq!(rest, "[]");
        }
    }

    #[test]
    fn item_stream_of_fields_keeps_the_object() {
        let text = r#"{"Node": {"Node": "n", "Meta": {"a": [1]}}, "Services": [{"ID": "a", "Tags": []}, {"ID": "b"}]}"#;
        let (items, rest) = split(text, 7, 2);
        assert_eq!(items, [r#"{"ID": "a", "Tags": []}"#, r#"{"ID": "b"}"#]);
        assert_eq!(rest, r#"{"Node": {"Node": "n", "Meta": {"a": [1]}}, "Services": []}"#);
        let (items, rest) = split(r#"{"Node": null, "Services": null}"#, 5, 2);
        assert_eq!((items.len(), rest.as_str()), (0, r#"{"Node": null, "Services": null}"#));
    }

    #[test]
    fn item_stream_leaves_invalid_json_when_truncated() {
        for text in ["[{\"a\": 1}, {\"b\"", "[{}", "<html>[1]</html>", "[1]]", "", "]"] {
            let (_, rest) = split(text, 3, 1);
            assert!(serde_json::from_str::<Vec<()>>(&rest).is_err(), "{text}");
        }
    }

    #[test]
    fn item_stream_drops_oversized_items() {
        let text = format!("[{{\"a\": 1}}, {{\"b\": \"{}\"}}, 3]", "],{".repeat(MAX_ITEM_BYTES));
        let (items, rest) = split(&text, 4_096, 1);
        assert_eq!(items, ["{\"a\": 1}", "(too large)", "3"]);
        assert_eq!(rest, "[]");
        let mut each = |_: Result<&[u8], TooLarge>| {};
        let mut sink = ItemStream::of_list(&mut each);
        assert!(
            text.as_bytes()
                .chunks(4_096)
                .all(|chunk| sink.write(&OK, chunk) && sink.item.len() <= MAX_ITEM_BYTES + 1)
        );
    }

    #[test]
    fn item_stream_keeps_errors_and_bounds_the_rest() {
        let mut each = |_: Result<&[u8], TooLarge>| panic!("an item");
        let mut sink = ItemStream::of_list(&mut each);
        assert!(sink.write(&ResponseHead { status: 403, ..OK }, b"[{}] denied"));
        assert_eq!(sink.rest(), b"[{}] denied");
        let mut sink = ItemStream::of_list(&mut each);
        assert!(sink.write(&OK, b"\""));
        assert!(!sink.write(&OK, &vec![b'x'; MAX_ITEM_BYTES + 1]));
    }
}

//! Takes a list apart as it arrives: each item is handed on by itself and forgotten, so a list of any length needs the
//! memory of its largest item. Of one that is too large to be kept only that is handed on; the rest of the list counts.
//!
//! What is not an item stays and can be read as a whole: `[…]` leaves `[]`, and `{"Node": {…}, "Services": […]}` leaves
//! `{"Node": {…}, "Services": []}`. A list that was cut off leaves something that is no JSON.

use super::transport::{ResponseHead, BodySink};

/// Lists and objects within each other; those of Consul are a few deep.
const MAX_DEPTH: usize = 1_024;
/// The largest item, and the most that may be around them.
const MAX_ITEM_BYTES: usize = 1024 * 1024;

/// A long list takes longer than one answer does; a server that stops in the middle is still given up on in time.
const LIST_TIMEOUT_FACTOR: u32 = 12;

/// An item beyond what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

/// What is done with an item.
pub type ItemHandler<'a> = &'a mut (dyn FnMut(Result<&[u8], TooLarge>) + Send);

/// A sink that hands on the items of one list within a JSON text.
pub struct ItemStream<'a> {
    /// How many arrays and objects are open within the list, itself counted: 1 for `[…]`.
    level: usize,
    each: ItemHandler<'a>,
    /// What is open, outermost first: an array, or an object.
    open: Vec<JsonContainer>,
    /// Within a text, and whether the next character is escaped.
    text: Option<bool>,
    item: Vec<u8>,
    /// The item is too large, and is not kept.
    too_large: bool,
    rest: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum JsonContainer {
    Array,
    Object,
}

impl<'a> ItemStream<'a> {
    /// Hands on the items of the list that is the whole text.
    pub fn of_list(each: ItemHandler<'a>) -> Self {
        Self::at(1, each)
    }

    /// Hands on the items of the lists that are the values of an object.
    pub fn of_fields(each: ItemHandler<'a>) -> Self {
        Self::at(2, each)
    }

    fn at(level: usize, each: ItemHandler<'a>) -> Self {
        let (open, item, rest) = (Vec::new(), Vec::new(), Vec::new());
        Self { level, each, open, text: None, item, too_large: false, rest }
    }

    /// What is around the items; of a failed call all of the answer.
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
            (self.each)(Err(TooLarge));
        } else if !self.item.is_empty() {
            (self.each)(Ok(&self.item));
        }
        self.item.clear();
        self.too_large = false;
    }
}

impl BodySink for ItemStream<'_> {
    fn take(&mut self, head: &ResponseHead, segment: &[u8]) -> bool {
        if head.status >= 300 {
            self.rest.extend_from_slice(segment);
        } else {
            segment.iter().for_each(|byte| self.byte(*byte));
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

    /// The items and the rest of a text that arrives in parts of `size` bytes.
    fn context(text: &str, size: usize, level: usize) -> (Vec<String>, String) {
        let mut items = Vec::new();
        let mut each = |item: Result<&[u8], TooLarge>| {
            items.push(
                item.map_or("(too large)".to_owned(), |item| String::from_utf8(item.to_vec()).unwrap()),
            );
        };
        let mut sink = ItemStream::at(level, &mut each);
        assert!(text.as_bytes().chunks(size).all(|segment| sink.take(&OK, segment)));
        let rest = String::from_utf8(sink.rest()).unwrap();
        (items, rest)
    }

    #[test]
    fn a_list_that_only_ever_opens_is_given_up() {
        let mut each = |_: Result<&[u8], TooLarge>| {};
        let mut sink = ItemStream::of_list(&mut each);
        assert!((0..1_000).any(|_| !sink.take(&OK, &[b'['; 100])));
    }

    #[test]
    fn item_stream_yields_items_across_chunk_boundaries() {
        let text = "[ {\"a\": \"x],{\\\"\", \"b\": [1, {}]} ,\n7, null,[ ], \"ü,\" ]";
        for size in 1..text.len() {
            let (items, rest) = context(text, size, 1);
            assert_eq!(
                items,
                ["{\"a\": \"x],{\\\"\", \"b\": [1, {}]}", "7", "null", "[ ]", "\"ü,\""],
                "{size}"
            );
            assert_eq!(rest, "[]");
        }
    }

    #[test]
    fn a_list_that_is_a_field_leaves_its_object() {
        let text = r#"{"Node": {"Node": "n", "Meta": {"a": [1]}}, "Services": [{"ID": "a", "Tags": []}, {"ID": "b"}]}"#;
        let (items, rest) = context(text, 7, 2);
        assert_eq!(items, [r#"{"ID": "a", "Tags": []}"#, r#"{"ID": "b"}"#]);
        assert_eq!(rest, r#"{"Node": {"Node": "n", "Meta": {"a": [1]}}, "Services": []}"#);
        let (items, rest) = context(r#"{"Node": null, "Services": null}"#, 5, 2);
        assert_eq!((items.len(), rest.as_str()), (0, r#"{"Node": null, "Services": null}"#));
    }

    #[test]
    fn what_is_cut_off_or_no_list_leaves_no_json() {
        for text in ["[{\"a\": 1}, {\"b\"", "[{}", "<html>[1]</html>", "[1]]", "", "]"] {
            let (_, rest) = context(text, 3, 1);
            assert!(serde_json::from_str::<Vec<()>>(&rest).is_err(), "{text}");
        }
    }

    #[test]
    fn item_stream_drops_oversized_items() {
        let text = format!("[{{\"a\": 1}}, {{\"b\": \"{}\"}}, 3]", "],{".repeat(MAX_ITEM_BYTES));
        let (items, rest) = context(&text, 4_096, 1);
        assert_eq!(items, ["{\"a\": 1}", "(too large)", "3"]);
        assert_eq!(rest, "[]");
        let mut each = |_: Result<&[u8], TooLarge>| {};
        let mut sink = ItemStream::of_list(&mut each);
        assert!(
            text.as_bytes().chunks(4_096).all(|segment| sink.take(&OK, segment) && sink.item.len() <= MAX_ITEM_BYTES + 1)
        );
    }

    #[test]
    fn item_stream_keeps_errors_and_bounds_the_rest() {
        let mut each = |_: Result<&[u8], TooLarge>| panic!("an item");
        let mut sink = ItemStream::of_list(&mut each);
        assert!(sink.take(&ResponseHead { status: 403, ..OK }, b"[{}] denied"));
        assert_eq!(sink.rest(), b"[{}] denied");
        let mut sink = ItemStream::of_list(&mut each);
        assert!(sink.take(&OK, b"\""));
        assert!(!sink.take(&OK, &vec![b'x'; MAX_ITEM_BYTES + 1]));
    }
}

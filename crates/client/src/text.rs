//! Text of others on a terminal.

use std::borrow::Cow;
use std::fmt::Write as _;

use textwrap::core::display_width;

/// The mark of a truncated cell.
const ELLIPSIS: char = '…';

/// Whether a terminal could act on the character, or show the text around it in another order.
pub(crate) fn is_unsafe(c: char) -> bool {
    let reorders = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || reorders || matches!(c, '\u{2028}' | '\u{2029}')
}

/// The text with its unsafe characters as JSON escapes, so that no name moves the cursor or hides a row.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' => safe.push_str("\\n"),
            '\t' => safe.push_str("\\t"),
            '\r' => safe.push_str("\\r"),
            // All of them are below U+10000, so that four digits suffice.
            c if is_unsafe(c) => {
                // Writing to a String cannot fail.
                let _ = write!(safe, "\\u{:04x}", u32::from(c));
            }
            c => safe.push(c),
        }
    }
    Cow::Owned(safe)
}

/// The text, shortened to the width of a terminal's columns. Characters are never split.
pub(crate) fn truncate(text: &str, width: usize) -> Cow<'_, str> {
    if display_width(text) <= width {
        return Cow::Borrowed(text);
    }
    let mut kept = String::new();
    for c in text.chars() {
        kept.push(c);
        if display_width(&kept) >= width {
            kept.pop();
            break;
        }
    }
    if width > 0 {
        kept.push(ELLIPSIS);
    }
    Cow::Owned(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_others_are_printed_and_never_obeyed() {
        for (text, expected) in [
            ("kv_demo_svc_80", "kv_demo_svc_80"),
            ("a\u{1b}[2Jb", "a\\u001b[2Jb"),
            ("a\r\nb\t", "a\\r\\nb\\t"),
            ("a\u{9b}31mb\u{7f}", "a\\u009b31mb\\u007f"),
            ("a\u{202e}b\u{2066}", "a\\u202eb\\u2066"),
            ("Ä漢", "Ä漢"),
        ] {
            assert_eq!(printable(text), expected);
        }
    }

    #[test]
    fn truncated_text_has_the_width() {
        for (text, width, expected) in [
            ("abcdef", 6, "abcdef"),
            ("abcdef", 5, "abcd…"),
            ("abcdef", 1, "…"),
            ("abcdef", 0, ""),
            ("漢字漢字", 5, "漢字…"),
            ("漢字漢字", 4, "漢…"),
        ] {
            let found = truncate(text, width);
            assert_eq!(found, expected, "{width}");
            assert!(display_width(&found) <= width);
        }
    }
}

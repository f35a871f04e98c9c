//! Text of others on a terminal: names of a control plane, tags and labels of teams, keys of objects.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Whether a terminal could act on the character, show the text around it in another order, or not show it at all, so that
/// two names look the same.
pub fn is_unsafe(c: char) -> bool {
    let reorders =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let is_invisible =
        matches!(c, '\u{ad}' | '\u{180e}' | '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2064}' | '\u{feff}');
    c.is_control() || reorders || is_invisible || matches!(c, '\u{2028}' | '\u{2029}')
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
            ("a\u{202e}b\u{2066}\u{61c}", "a\\u202eb\\u2066\\u061c"),
            ("kv\u{200b}\u{feff}", "kv\\u200b\\ufeff"),
            ("Ä漢", "Ä漢"),
        ] {
            assert_eq!(printable(text), expected);
        }
    }
}

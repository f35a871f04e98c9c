//! Text of others on a terminal.

use std::borrow::Cow;

use textwrap::core::display_width;

pub(crate) use ecs_mesh_model::is_unsafe;
pub use ecs_mesh_model::printable;

/// The mark of a truncated cell.
const ELLIPSIS: char = '…';

/// The text, shortened to the width of a terminal's columns. Characters are never split.
pub(crate) fn truncate(text: &str, width: usize) -> Cow<'_, str> {
    if display_width(text) <= width {
        return Cow::Borrowed(text);
    }
    let (mut kept, mut columns) = (String::new(), 0);
    for c in text.chars() {
        columns += display_width(c.encode_utf8(&mut [0; 4]));
        if columns >= width {
            break;
        }
        kept.push(c);
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

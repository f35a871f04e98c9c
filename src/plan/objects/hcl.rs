//! Whether two texts of ACL rules say the same: spaces, line breaks and comments mean nothing.

/// Whether they do.
pub(super) fn same(a: &str, b: &str) -> bool {
    a == b || tokens(a) == tokens(b)
}

fn tokens(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '#' => line(rest),
            '/' if rest.starts_with("//") => line(rest),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '"' => string(rest),
            '{' | '}' | '=' | '[' | ']' | ',' => 1,
            _ => rest.find(|c: char| c.is_whitespace() || "{}=[],\"#".contains(c)).unwrap_or(rest.len()),
        };
        let is_comment = first == '#' || rest.starts_with("//") || rest.starts_with("/*");
        if !is_comment {
            found.push(&rest[..length]);
        }
        rest = rest[length..].trim_start();
    }
    found
}

fn line(text: &str) -> usize {
    text.find('\n').unwrap_or(text.len())
}

/// To the closing quote.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (index, character) in text.char_indices().skip(1) {
        match character {
            '\\' => escaped = !escaped,
            '"' if !escaped => return index + 1,
            _ => escaped = false,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_the_same_by_what_they_say() {
        let rules = "mesh = \"read\"\nnode_prefix \"\" {\n  policy = \"read\"\n}\n";
        for (text, expected) in [
            ("mesh = \"read\"\n\tnode_prefix \"\" {\n\t\tpolicy = \"read\"\n\t}", true),
            ("# for gateways\nmesh=\"read\" node_prefix \"\"{policy=\"read\"} // end", true),
            ("/* a */ mesh = \"read\" node_prefix \"\" { policy = \"read\" }", true),
            ("mesh = \"write\"\nnode_prefix \"\" {\n  policy = \"read\"\n}\n", false),
            ("mesh = \"read\"\nnode_prefix \" \" {\n  policy = \"read\"\n}\n", false),
            ("mesh = \"read\"", false),
            ("mesh = \"read\"\nnode_prefix \"\" {\n  policy = \"read\"\n}\nacl = \"write\"", false),
            ("", false),
            ("mesh = \"read", false),
        ] {
            assert_eq!(same(rules, text), expected, "{text}");
        }
        assert!(same("a \"\\\"#\" {}", "a\n\"\\\"#\"{}"), "a quote within a text does not end it");
        assert!(same("é = \"ü\"", "é=\"ü\""));
    }
}

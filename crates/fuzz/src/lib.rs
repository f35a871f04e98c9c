//! Fuzz targets for everything that others write and the operator reads: events, manifests, ACL rules, descriptions of
//! login tokens, and responses of control planes. The targets are the tests of this package.
//!
//! `cargo test -p ecs-mesh-fuzz` runs each for a second, and `make fuzz TIME=60` as long as asked. An input is a valid
//! document with a few edits, since random bytes do not get past a parser's first line.

#![forbid(unsafe_code)]

/// Edits of a document: what to do, where, and with which byte.
pub type Edits = Vec<(u8, u16, u8)>;

/// Largest result, so that repetition does not grow a document without bound.
const MAX_BYTES: usize = 64 * 1024;

/// Texts that parsers have limits or rules for.
const ODD_TEXTS: [&str; 14] = [
    "18446744073709551616",
    "-1",
    "1e999",
    "null",
    "\"\"",
    "[]",
    "{}",
    "\u{0}",
    "\\ud800",
    "\u{202e}",
    "[[[[[[[[[[[[[[[[",
    "{\"a\":{\"a\":{\"a\":{\"a\":",
    "arn:aws:ecs:::cluster/",
    "&a *a",
];

/// The document with these edits, one after the other.
pub fn edited(document: &str, edits: &Edits) -> Vec<u8> {
    let mut bytes = document.as_bytes().to_vec();
    for (what, at, with) in edits {
        let at = usize::from(*at) % (bytes.len() + 1);
        let length = usize::from(*with).min(bytes.len() - at);
        match what % 7 {
            0 if at < bytes.len() => bytes[at] = *with,
            1 => drop(bytes.drain(at..at + length)),
            2 => bytes.insert(at, *with),
            3 => bytes.truncate(at),
            4 => {
                let part = bytes[at..at + length].to_vec();
                bytes.splice(at..at, part);
            }
            5 => drop(bytes.splice(at..at, ODD_TEXTS[length % ODD_TEXTS.len()].bytes())),
            _ => drop(bytes.splice(at..at + length, ODD_TEXTS[usize::from(*with) % ODD_TEXTS.len()].bytes())),
        }
        bytes.truncate(MAX_BYTES);
    }
    bytes
}

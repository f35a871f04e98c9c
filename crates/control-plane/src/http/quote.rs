//! Quotes a server's text in messages and logs. A control plane's address is what a manifest says, so a response can be
//! anyone's: only short text of known fields is quoted, on one line and without anything that looks like a credential. Of
//! other bodies only the form and the size are described.

use serde_json::error::Category;

use crate::HELP_MARKER;

/// Longer texts are cut.
const MAX_QUOTE_LEN: usize = 500;
/// Longer names are cut.
const MAX_NAME_LEN: usize = 128;

/// Stands for text that looks like a credential.
const REDACTED: &str = "(redacted)";

/// Shorter words are no credentials.
const MIN_CREDENTIAL_LEN: usize = 16;
/// Hexadecimal text of this length can be the id of an ECS task.
const MAX_HEX_ID_LEN: usize = 32;
/// A longer part of small letters and digits is no word.
const MAX_WORD_LEN: usize = 24;
/// A shorter Base64 text, which may contain slashes, can be a path.
const MIN_BASE64_LEN: usize = 32;
/// The prefixes of AWS access key ids.
const ACCESS_KEY_ID_PREFIXES: [&str; 2] = ["AKIA", "ASIA"];

/// A server's text on one line, for messages and logs.
pub fn quote(text: &str) -> String {
    one_line(text, MAX_QUOTE_LEN, |run| is_credential(run) || contains_uuid(run))
}

/// The name of a server's object, for messages and logs. A name may contain a UUID, although tokens of Consul are UUIDs.
pub fn quote_name(name: &str) -> String {
    one_line(name, MAX_NAME_LEN, is_credential)
}

/// Describes a body without quoting it.
pub fn describe_body(body: &[u8]) -> String {
    let size = body.len();
    match str::from_utf8(body).map(str::trim_start) {
        Ok("") => "an empty body".to_owned(),
        Ok(text) if text.starts_with('<') => format!("an HTML page of {size} bytes"),
        Ok(text) if text.starts_with(['{', '[']) => format!("{size} bytes that start like JSON"),
        Ok(_) => format!("a text of {size} bytes"),
        Err(_) => format!("{size} bytes that are not text"),
    }
}

/// Describes why a body cannot be parsed. The error's own message may contain values of the body.
pub fn describe_json_error(error: &serde_json::Error) -> String {
    match error.classify() {
        Category::Data => format!("unexpected JSON at line {} column {}", error.line(), error.column()),
        Category::Io | Category::Syntax | Category::Eof => error.to_string(),
    }
}

/// The words of a text on one line of at most `longest` characters, without the runs that are `hidden`.
fn one_line(text: &str, longest: usize, hidden: impl Fn(&str) -> bool) -> String {
    let (mut line, mut len) = (String::new(), 0);
    for word in text.split_whitespace() {
        if len > 0 {
            line.push(' ');
            len += 1;
        }
        // Hidden before it is cut, since a part may not look like a credential.
        let word = redact(word, &hidden);
        len += word.chars().count();
        line.push_str(&word);
        if len > longest {
            line = line.chars().take(longest).chain(['…']).collect();
            break;
        }
    }
    // The marker separates an error's problem from our own advice.
    line.replace(HELP_MARKER, "; ")
}

fn redact(word: &str, hidden: &impl Fn(&str) -> bool) -> String {
    let mut shown = String::new();
    let mut rest = word;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c| !is_credential_char(c)).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        if run.is_empty() {
            shown.push(if first.is_control() { char::REPLACEMENT_CHARACTER } else { first });
            rest = &rest[first.len_utf8()..];
        } else {
            shown.push_str(if hidden(run) { REDACTED } else { run });
            rest = after;
        }
    }
    shown
}

/// The characters of Base64 (both alphabets), UUIDs and JSON Web Tokens.
fn is_credential_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "+/=_.~-".contains(c)
}

fn is_credential(run: &str) -> bool {
    run.len() >= MIN_CREDENTIAL_LEN
        && (is_json_web_token(run)
            || run.split(|c: char| !c.is_ascii_alphanumeric()).any(is_key)
            || run.split(['.', '~', '-', '_']).any(is_base64_key))
}

fn is_json_web_token(run: &str) -> bool {
    run.contains("eyJ") && run.contains('.')
}

/// Whether letters and digits look like a key and not like words.
fn is_key(part: &str) -> bool {
    if part.len() < MIN_CREDENTIAL_LEN {
        return false;
    }
    if ACCESS_KEY_ID_PREFIXES.iter().any(|prefix| part.starts_with(prefix)) {
        return true;
    }
    let hexadecimal = part.bytes().all(|b| b.is_ascii_hexdigit());
    match letters_and_digits(part) {
        _ if hexadecimal => part.len() > MAX_HEX_ID_LEN,
        (_, true, true) => true,
        (true, false, true) => part.len() > MAX_WORD_LEN,
        _ => false,
    }
}

/// Whether text of the Base64 alphabet, in which slashes may leave only short parts, looks like a key.
fn is_base64_key(part: &str) -> bool {
    part.len() >= MIN_BASE64_LEN
        && part.contains(['+', '/', '='])
        && letters_and_digits(part) == (true, true, true)
}

/// Whether the text has small letters, capital letters and digits.
fn letters_and_digits(text: &str) -> (bool, bool, bool) {
    let has = |of: fn(&u8) -> bool| text.as_bytes().iter().any(of);
    (has(u8::is_ascii_lowercase), has(u8::is_ascii_uppercase), has(u8::is_ascii_digit))
}

fn contains_uuid(run: &str) -> bool {
    run.as_bytes().windows(36).any(|window| {
        window.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "4fa6e11c-21d1-3462-a316-99515e5544f7";
    const TASK_ID: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn credential_is_not_quoted() {
        for credential in [
            "AKIAIOSFODNN7EXAMPLE",
            "ASIAQWERTYUIOPASDFGH",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "IQoJb3JpZ2luX2VjEOr//////////wEaCXVzLWVhc3QtMSJHMEUCIQ==",
            "eyJhbGciOiJSUzI1NiJ9.eyJOYW1lIjoiYWRtaW4ifQ.c2ln",
            "token=eyJhbGciOiJSUzI1NiJ9.eyJOYW1lIjoiYWRtaW4ifQ.c2ln",
            "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
            "da39a3ee5e6b4b0d3255bfef95601890afd80709",
            "k3n5z7q9w2x4c6v8b1m3n5z7q9w2",
        ] {
            for text in [credential.to_owned(), format!("key:\"{credential}\",\nfor web")] {
                let quotes = [quote(&text), quote_name(&text)];
                for quote in quotes {
                    assert!(quote.contains(REDACTED) && !quote.contains(credential), "{quote}");
                }
            }
        }
        assert_eq!(quote(&format!("no token {UUID} here")), "no token (redacted) here");
        assert_eq!(quote("key AKIAIOSFODNN7EXAMPLE, wrong"), "key (redacted), wrong");
    }

    #[test]
    fn names_and_reasons_are_quoted() {
        for text in [
            "Could not process a resource: networking.inbound[0].port must be between 1 and 65535",
            "Permission denied: lacks permission 'service:write' on \"web\"",
            "tags[\"kuma.io/service\"] must be defined in /meshes/default/dataplanes/web",
            "arn:aws:ecs:eu-west-1:111122223333:task/prod/0123456789abcdef0123456789abcdef",
            "rpc error making call: Namespace \"billing\" does not exist",
            "MeshTrafficPermission/v1alpha1 INTERNAL_SERVER_ERROR INTERNALSERVERERROR",
            "1.21.4+ent 2.14.0-preview.v9f3a2b1",
        ] {
            assert_eq!((quote(text), quote_name(text)), (text.to_owned(), text.to_owned()));
        }
        for name in [format!("web-{TASK_ID}-8080"), format!("web-{UUID}")] {
            assert_eq!(quote_name(&name), name);
        }
    }

    #[test]
    fn quote_is_one_short_line() {
        assert_eq!(quote(" a\n\tb \u{1b}[31m "), "a b \u{fffd}[31m");
        assert_eq!(quote("wrong;\nhelp: run this"), "wrong; run this");
        let long = quote(&"word ".repeat(1_000));
        assert_eq!((long.chars().count(), long.ends_with('…')), (MAX_QUOTE_LEN + 1, true));
        assert_eq!(quote_name(&"n-".repeat(200)).chars().count(), MAX_NAME_LEN + 1);
        let cut = quote(&format!("{} AKIAIOSFODNN7EXAMPLE", "x".repeat(MAX_QUOTE_LEN - 5)));
        assert!(!cut.contains("AKI"), "{cut}");
    }

    #[test]
    fn body_is_described_by_its_form() {
        for (body, description) in [
            (&b" \n"[..], "an empty body"),
            (b"<html>AKIAIOSFODNN7EXAMPLE", "an HTML page of 26 bytes"),
            (b" {\"key\": \"AKIA", "14 bytes that start like JSON"),
            (b"[1]", "3 bytes that start like JSON"),
            (b"AKIAIOSFODNN7EXAMPLE", "a text of 20 bytes"),
            (b"\xff\x00", "2 bytes that are not text"),
        ] {
            assert_eq!(describe_body(body), description);
        }
    }

    #[test]
    fn parse_error_is_described_without_values() {
        let error = serde_json::from_str::<u64>("\"AKIAIOSFODNN7EXAMPLE\"").unwrap_err();
        assert_eq!(describe_json_error(&error), "unexpected JSON at line 1 column 22");
        let error = serde_json::from_str::<u64>("AKIAIOSFODNN7EXAMPLE").unwrap_err();
        assert_eq!(describe_json_error(&error), "expected value at line 1 column 1");
    }
}

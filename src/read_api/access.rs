//! Which requests are answered, by the host that they name and the page that they come from.

use std::net::IpAddr;

use axum::http::HeaderMap;

/// Whether a `Host` names this machine's loopback. A page of another site that resolves its own name to 127.0.0.1 (DNS
/// rebinding) sends that name.
pub(super) fn is_loopback_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((name, "")) => (name, None),
            Some((name, rest)) => (name, Some(rest.strip_prefix(':').unwrap_or(rest))),
            None => return false,
        },
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return false;
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Whether a browser sends the request for a page of another origin. Such a page cannot read the answer, but it would take
/// streams and reads of control planes, and could measure answers.
///
/// Browsers set these headers; pages cannot. A link that a person follows is a navigation.
///
/// Source: <https://www.w3.org/TR/fetch-metadata/>.
pub(super) fn is_of_another_origin(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let is_foreign_site = text("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none"));
    let is_followed =
        text("sec-fetch-mode") == Some("navigate") && text("sec-fetch-dest") == Some("document");
    // `null` is the origin of a sandboxed frame or a local file.
    let is_foreign_origin = text("origin").is_some_and(|origin| {
        let host = origin.split_once("://").map(|(_, host)| host);
        host.is_none_or(|host| Some(host) != text("host"))
    });
    (is_foreign_site && !is_followed) || is_foreign_origin
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_hosts_are_allowed() {
        for (host, allowed) in [
            ("localhost", true),
            ("LOCALHOST:9103", true),
            ("localhost.:9103", true),
            ("127.0.0.1:9103", true),
            ("127.8.0.1", true),
            ("[::1]:9103", true),
            ("[::ffff:127.0.0.1]:9103", true),
            ("", false),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example:9103", false),
            ("10.0.0.1:9103", false),
            ("[::]:9103", false),
            ("[localhost", false),
            ("[::1]evil.example", false),
            ("[::1]:", false),
            ("localhost:evil.example", false),
            ("localhost:9103:evil.example", false),
            ("localhost..", false),
            ("0.0.0.0:9103", false),
            ("2130706433", false),
            ("user@localhost", false),
        ] {
            assert_eq!(is_loopback_host(host), allowed, "{host}");
        }
    }

    #[test]
    fn requests_of_other_origins_are_recognised() {
        for (lines, expected) in [
            (&[("host", "localhost:9103")][..], false),
            (&[("sec-fetch-site", "same-origin"), ("sec-fetch-mode", "cors")], false),
            (&[("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")], false),
            (&[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")], true),
            // Another port of the same machine.
            (&[("sec-fetch-site", "same-site"), ("sec-fetch-mode", "cors")], true),
            (
                &[
                    ("sec-fetch-site", "cross-site"),
                    ("sec-fetch-mode", "navigate"),
                    ("sec-fetch-dest", "document"),
                ],
                false,
            ),
            (
                &[
                    ("sec-fetch-site", "cross-site"),
                    ("sec-fetch-mode", "navigate"),
                    ("sec-fetch-dest", "iframe"),
                ],
                true,
            ),
            (&[("host", "localhost:9103"), ("origin", "http://localhost:9103")], false),
            (&[("host", "localhost:9103"), ("origin", "http://localhost:9104")], true),
            (&[("host", "localhost:9103"), ("origin", "null")], true),
            (&[("host", "localhost:9103"), ("origin", "https://evil.example")], true),
            (&[("origin", "http://localhost:9103")], true),
        ] {
            let headers = lines.iter().map(|(name, value)| {
                (axum::http::HeaderName::from_static(name), axum::http::HeaderValue::from_static(value))
            });
            assert_eq!(is_of_another_origin(&headers.collect()), expected, "{lines:?}");
        }
    }
}

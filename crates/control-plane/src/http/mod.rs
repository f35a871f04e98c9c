//! Calls to a control plane's HTTP API, whichever it is: few connections and not for ever, every wait bounded, every
//! answer bounded in what of it is held, tokens read anew, and none of them in a message.

mod client;
mod failure;
mod item_stream;
mod settings;
#[cfg(any(test, feature = "testing"))]
pub mod tls_server;
mod token;
mod transport;

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

pub use client::HttpTransport;
pub use item_stream::{ItemHandler, ItemStream, TooLarge};
pub use settings::{Credential, Product, ConnectionSettings, TextSources};
pub use transport::{
    HttpResponse, ResponseHead, HttpMethod, BodySink, StreamTransport, Transport, TransportError, TransportErrorKind,
};

/// What a path's segment may hold as it is (RFC 3986, unreserved).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A name as one segment of a path.
pub fn segment(name: &str) -> Cow<'_, str> {
    utf8_percent_encode(name, SEGMENT).into()
}

/// On one line and not too long: a server's own words in a message of ours.
pub fn quotable(text: &str, longest: usize) -> String {
    let mut line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((cut, _)) = line.char_indices().nth(longest) {
        line.truncate(cut);
        line.push('…');
    }
    line
}

/// What a body that cannot be read looks like, without repeating much of it.
pub fn appearance(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(400)]);
    match text.trim() {
        "" => "an empty body".to_owned(),
        text if text.starts_with('<') => format!("a page of HTML, {} bytes", body.len()),
        text => format!("{} bytes that begin {:?}", body.len(), quotable(text, 60)),
    }
}

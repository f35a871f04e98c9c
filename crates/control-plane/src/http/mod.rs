//! HTTP transport for all control planes: few, short-lived connections, bounded waits, bounded memory per response. A
//! token is read for each call and never appears in a message.

mod allowed_file;
mod client;
mod client_source;
mod endpoint;
mod failure;
mod item_stream;
#[cfg(test)]
mod lease_tests;
mod permitted_body;
#[cfg(test)]
mod proxy_tests;
mod quote;
mod secret_text;
mod settings;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod tls_failure;
#[cfg(test)]
mod tls_tests;
mod token;
mod transport;
mod trust;

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

pub use client::HttpTransport;
pub use client_source::ClientError;
pub use item_stream::{ItemHandler, ItemStream, TooLarge};
pub use quote::{describe_body, describe_json_error, quote, quote_name};
pub use secret_text::{SecretTextError, read_secret};
pub use settings::{AddressRule, ConnectionSettings, Credential, Product, SettingsError, TextSources};
pub use transport::{
    BodySink, HttpMethod, HttpResponse, ResponseHead, StreamTransport, Transport, TransportError,
    TransportErrorKind,
};
pub use trust::{InvalidCa, TlsConfigError};

/// Characters that a path segment may contain unencoded (RFC 3986, unreserved).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Encodes a name as one segment of a path.
pub fn segment(name: &str) -> Cow<'_, str> {
    utf8_percent_encode(name, SEGMENT).into()
}

//! The files of the page, which the program carries.

/// A file of the page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asset {
    /// Its media type.
    pub(super) content_type: &'static str,
    /// Its content.
    pub(super) content: &'static [u8],
    /// A digest of its content, in quotes.
    pub(super) etag: &'static str,
}

/// The file at this path; `/` is the page itself.
pub(super) fn find(_path: &str) -> Option<Asset> {
    None
}

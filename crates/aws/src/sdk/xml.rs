//! Reads XML responses, as those of EC2 and S3.

use aws_smithy_xml::decode::{Document, ScopedDecoder, XmlDecodeError, try_data};

/// An element of a response.
#[derive(Debug, Default)]
pub(super) struct Element {
    pub(super) name: String,
    text: String,
    children: Vec<Element>,
}

/// Deeper elements of a response are skipped: those that are read are at most this deep.
const MAX_DEPTH: usize = 12;

impl Element {
    /// The root of a document. Text is read of the `leaves` alone.
    pub(super) fn root(document: &str, leaves: &[&str]) -> Result<Self, XmlDecodeError> {
        let mut document = Document::new(document);
        let mut root = document.root_element()?;
        Self::read(&mut root, leaves, 0)
    }

    fn read(
        scope: &mut ScopedDecoder<'_, '_>,
        leaves: &[&str],
        depth: usize,
    ) -> Result<Self, XmlDecodeError> {
        let mut element = Self { name: scope.start_el().local().to_owned(), ..Self::default() };
        if leaves.contains(&element.name.as_str()) {
            element.text = try_data(scope)?.into_owned();
        } else if depth < MAX_DEPTH {
            while let Some(mut child) = scope.next_tag() {
                element.children.push(Self::read(&mut child, leaves, depth + 1)?);
            }
        }
        Ok(element)
    }

    pub(super) fn children<'e>(&'e self, name: &str) -> impl Iterator<Item = &'e Self> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The items of a set.
    pub(super) fn items<'e>(&'e self, set: &str) -> impl Iterator<Item = &'e Self> {
        self.children(set).flat_map(|set| set.children("item"))
    }

    /// A child's text; empty without one.
    pub(super) fn text(&self, name: &str) -> &str {
        self.children(name).next().map_or("", |child| child.text.as_str())
    }
}

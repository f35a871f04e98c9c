//! Typed reading of JSON. Errors have the location and never content.

use std::borrow::Cow;
use std::ops::Deref;

use serde::Deserialize;

use super::poison::{PoisonMessage, PoisonReason};
use ecs_mesh_model::Timestamp;

/// A text, borrowed from the body unless it has escapes.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct BorrowedText<'a>(#[serde(borrow)] Cow<'a, str>);

impl Deref for BorrowedText<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

/// Reads a whole body. Unknown fields are skipped without recursion, so nesting needs no stack.
pub(super) fn read<'a, T: Deserialize<'a>>(body: &'a str) -> Result<T, PoisonMessage> {
    serde_json::from_str(body).map_err(|error| match explain::<T>(body, &error) {
        (reason, Some(path)) => PoisonMessage::new(reason, path),
        (reason, None) => PoisonMessage::new(reason, "the body"),
    })
}

/// Reads the raw JSON of the field `detail`.
pub(super) fn read_detail<'a, D: Deserialize<'a>>(detail: &'a str) -> Result<D, PoisonMessage> {
    serde_json::from_str(detail).map_err(|error| match explain::<D>(detail, &error) {
        (reason, Some(path)) => PoisonMessage::new(reason, format!("detail.{path}")),
        (reason, None) => PoisonMessage::new(reason, "detail"),
    })
}

/// The reason and location of an error; no location for the whole text. Only the category and the location are used, since
/// serde's message quotes the value. The path comes from a second read, so that valid bodies do not pay for it.
fn explain<'a, T: Deserialize<'a>>(
    text: &'a str,
    error: &serde_json::Error,
) -> (PoisonReason, Option<String>) {
    if !error.is_data() {
        return (PoisonReason::NotJson, Some(format!("line {} column {}", error.line(), error.column())));
    }
    let path = serde_path_to_error::deserialize::<_, T>(&mut serde_json::Deserializer::from_str(text))
        .err()
        .map(|error| error.path().to_string());
    (PoisonReason::WrongType, path.filter(|path| path != "." && path != "?"))
}

/// The text of a required, non-empty field.
pub(super) fn need<'t>(
    field: Option<&'t BorrowedText<'_>>,
    path: &'static str,
) -> Result<&'t str, PoisonMessage> {
    given(field).ok_or_else(|| PoisonMessage::new(PoisonReason::MissingField, path))
}

/// The text of an optional field; empty counts as absent.
pub(super) fn given<'t>(field: Option<&'t BorrowedText<'_>>) -> Option<&'t str> {
    field.map(|text| &**text).filter(|text| !text.is_empty())
}

/// The time of an optional field. An unreadable time is an error, since its format is not the documented one.
pub(super) fn time(
    field: Option<&BorrowedText<'_>>,
    path: &'static str,
) -> Result<Option<Timestamp>, PoisonMessage> {
    given(field)
        .map(|text| {
            Timestamp::parse(text).ok_or_else(|| PoisonMessage::new(PoisonReason::InvalidTimestamp, path))
        })
        .transpose()
}

//! Typed reading of JSON that names the place of an error and never its content.

use std::borrow::Cow;
use std::ops::Deref;

use serde::Deserialize;

use super::poison::{PoisonMessage, PoisonReason};
use ecs_mesh_model::Timestamp;

/// A text that is borrowed from the body wherever JSON's escapes allow it.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct BorrowedText<'a>(#[serde(borrow)] Cow<'a, str>);

impl Deref for BorrowedText<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

/// Reads a whole body. Fields that the type does not name are skipped without recursion, so nesting costs nothing.
pub(super) fn read<'a, T: Deserialize<'a>>(body: &'a str) -> Result<T, PoisonMessage> {
    serde_json::from_str(body).map_err(|error| explain::<T>(body, &error))
}

/// The field `detail` of an event.
pub(super) fn detail<'a, D: Deserialize<'a>>(body: &'a str) -> Result<D, PoisonMessage> {
    #[derive(Deserialize)]
    struct EventDetail<D> {
        detail: Option<D>,
    }
    let event: EventDetail<D> = read(body)?;
    event.detail.ok_or_else(|| PoisonMessage::new(PoisonReason::MissingField, "detail"))
}

/// Serde's own message quotes the value; only the category and the place are taken from it. The path is worked out
/// by reading again, so that good bodies do not pay for it.
fn explain<'a, T: Deserialize<'a>>(body: &'a str, error: &serde_json::Error) -> PoisonMessage {
    if !error.is_data() {
        return PoisonMessage::new(
            PoisonReason::NotJson,
            format!("line {} column {}", error.line(), error.column()),
        );
    }
    let path = serde_path_to_error::deserialize::<_, T>(&mut serde_json::Deserializer::from_str(body))
        .err()
        .map(|error| error.path().to_string());
    match path.as_deref() {
        None | Some("." | "?") => PoisonMessage::new(PoisonReason::WrongType, "the body"),
        Some(path) => PoisonMessage::new(PoisonReason::WrongType, path),
    }
}

/// The text of a field that must be there and not be empty.
pub(super) fn need<'t>(field: Option<&'t BorrowedText<'_>>, path: &'static str) -> Result<&'t str, PoisonMessage> {
    given(field).ok_or_else(|| PoisonMessage::new(PoisonReason::MissingField, path))
}

/// The text of a field that may be missing; empty is missing.
pub(super) fn given<'t>(field: Option<&'t BorrowedText<'_>>) -> Option<&'t str> {
    field.map(|text| &**text).filter(|text| !text.is_empty())
}

/// The time in a field that may be missing. One that is there but cannot be read is an error: its format is not
/// what we think it is.
pub(super) fn time(field: Option<&BorrowedText<'_>>, path: &'static str) -> Result<Option<Timestamp>, PoisonMessage> {
    given(field)
        .map(|text| Timestamp::parse(text).ok_or_else(|| PoisonMessage::new(PoisonReason::InvalidTimestamp, path)))
        .transpose()
}

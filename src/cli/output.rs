//! Standard output. Ignores EPIPE: a reader such as `head` may close the pipe early.

use std::io::{self, Write as _};

/// Prints the result. After a closed pipe, the command keeps the exit code of its result.
pub(super) fn print(text: &str) -> Result<(), String> {
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| format!("writing standard output: {error}")),
    }
}

/// The value as indented JSON with a final newline.
pub(super) fn to_json(value: &impl serde::Serialize) -> Result<String, String> {
    let json = serde_json::to_string_pretty(value).map_err(|error| format!("writing JSON: {error}"))?;
    Ok(json + "\n")
}

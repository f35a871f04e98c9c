//! Standard output. Who closes the pipe early has had enough, as `head` does: nothing is said of that.

use std::io::{self, Write as _};

/// Prints what was found out. Where the pipe is closed the exit code still tells.
pub(super) fn print(text: &str) -> Result<(), String> {
    let mut out = anstream::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| format!("standard output cannot be written: {error}")),
    }
}

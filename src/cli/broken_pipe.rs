//! Standard output of the sandbox, which stops when its reader closes the pipe.

use std::io::{self, Write};

use tokio_util::sync::CancellationToken;

/// The exit code that a shell reports for a program ended by SIGPIPE: 128 and the number of the signal.
pub(super) const PIPE_CLOSED: u8 = 141;

/// A writer that cancels a token when the pipe is closed.
pub(super) struct CancelOnBrokenPipe<W> {
    out: W,
    pipe_closed: CancellationToken,
}

impl<W: Write> CancelOnBrokenPipe<W> {
    /// Cancels `pipe_closed` at the first write to a closed pipe.
    pub(super) fn new(out: W, pipe_closed: CancellationToken) -> Self {
        Self { out, pipe_closed }
    }

    fn check_broken_pipe<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|error| {
            if error.kind() == io::ErrorKind::BrokenPipe {
                self.pipe_closed.cancel();
            }
        })
    }
}

impl<W: Write> Write for CancelOnBrokenPipe<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes);
        self.check_broken_pipe(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.out.flush();
        self.check_broken_pipe(flushed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writer_cancels_when_its_pipe_is_closed() {
        let (reader, writer) = io::pipe().unwrap();
        let pipe_closed = CancellationToken::new();
        let mut out = CancelOnBrokenPipe::new(writer, pipe_closed.clone());
        out.write_all(b"a line\n").unwrap();
        assert!(!pipe_closed.is_cancelled());
        drop(reader);
        out.write_all(b"another\n").unwrap_err();
        assert!(pipe_closed.is_cancelled());
    }
}

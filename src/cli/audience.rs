//! Standard output of a show, which ends when nobody looks any more.

use std::io::{self, Write};

use tokio_util::sync::CancellationToken;

/// What a shell reports of a program that a closed pipe has ended: 128 and the number of SIGPIPE.
pub(super) const PIPE_CLOSED: u8 = 141;

/// Standard output of a show, which ends when nobody looks any more.
pub(super) struct CancelOnBrokenPipe<W> {
    out: W,
    /// Cancelled when the pipe is closed.
    gone: CancellationToken,
}

impl<W: Write> CancelOnBrokenPipe<W> {
    /// `gone` is cancelled when what is written reaches nobody.
    pub(super) fn new(out: W, gone: CancellationToken) -> Self {
        Self { out, gone }
    }

    fn check_broken_pipe<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|error| {
            if error.kind() == io::ErrorKind::BrokenPipe {
                self.gone.cancel();
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
    fn a_show_ends_when_its_pipe_is_closed() {
        let (reader, writer) = io::pipe().unwrap();
        let gone = CancellationToken::new();
        let mut out = CancelOnBrokenPipe::new(writer, gone.clone());
        out.write_all(b"a line\n").unwrap();
        assert!(!gone.is_cancelled());
        drop(reader);
        out.write_all(b"another\n").unwrap_err();
        assert!(gone.is_cancelled());
    }
}

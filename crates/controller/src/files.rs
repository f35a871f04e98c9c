//! Reads the files that a user names: regular files of limited size, whatever stands at the path.
//!
//! Kind and size are checked before the file is opened, since opening a FIFO or a device can block or have effects. They are
//! checked again on the open file, since another file may have taken its place. The size is enforced while reading, too:
//! files of `/proc` have the size 0.

use std::fs::{FileType, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadFileError {
    /// The file system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The path is no regular file.
    #[error("not a regular file but {0}")]
    NotRegular(&'static str),
    /// The file is larger than the limit.
    #[error("larger than {}", size(*.0))]
    TooLarge(u64),
}

/// Reads a regular file, or the one that a symbolic link names, of at most `max_bytes`. Never waits for a writer of a FIFO.
/// Blocks on the file system, so async code calls it on a [`BlockingLane`](super::BlockingLane).
///
/// ```
/// use ecs_mesh_controller::{ReadFileError, read_file};
///
/// let error = read_file("/dev/zero".as_ref(), 1024).unwrap_err();
/// assert!(matches!(error, ReadFileError::NotRegular("a device")));
/// ```
///
/// # Errors
/// If the path is no regular file, the file is larger, or the file system refuses.
pub fn read_file(path: &Path, max_bytes: u64) -> Result<Vec<u8>, ReadFileError> {
    check(&std::fs::metadata(path)?, max_bytes)?;
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    check(&file.metadata()?, max_bytes)?;
    let mut bytes = Vec::new();
    file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        return Err(ReadFileError::TooLarge(max_bytes));
    }
    Ok(bytes)
}

fn check(found: &Metadata, max_bytes: u64) -> Result<(), ReadFileError> {
    if !found.is_file() {
        return Err(ReadFileError::NotRegular(kind(found.file_type())));
    }
    if found.len() > max_bytes {
        return Err(ReadFileError::TooLarge(max_bytes));
    }
    Ok(())
}

fn kind(found: FileType) -> &'static str {
    if found.is_dir() {
        "a directory"
    } else if found.is_fifo() {
        "a FIFO"
    } else if found.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 2] = [(1024 * 1024, "MiB"), (1024, "KiB")];
    match UNITS.into_iter().find(|(unit, _)| bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{} {name}", bytes / unit),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn refused(path: &Path) -> String {
        read_file(path, 1024).unwrap_err().to_string()
    }

    #[test]
    fn regular_file_is_read_through_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("file"), directory.path().join("link"));
        std::fs::write(&file, "text").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(read_file(&link, 4).unwrap(), b"text");
    }

    #[test]
    fn fifo_is_refused_without_waiting_for_a_writer() {
        let directory = tempfile::tempdir().unwrap();
        let (fifo, link) = (directory.path().join("fifo"), directory.path().join("link"));
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        std::os::unix::fs::symlink(&fifo, &link).unwrap();
        for path in [fifo, link] {
            assert_eq!(refused(&path), "not a regular file but a FIFO");
        }
    }

    #[test]
    fn device_socket_and_directory_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert_eq!(refused("/dev/zero".as_ref()), "not a regular file but a device");
        assert_eq!(refused(&socket), "not a regular file but a socket");
        assert_eq!(refused(directory.path()), "not a regular file but a directory");
    }

    #[test]
    fn file_over_the_limit_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        // Sparse: reading it whole would need 1 TiB.
        std::fs::File::create(&file).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(refused(&file), "larger than 1 KiB");
        // Its size is 0, and its content is not.
        let error = read_file("/proc/self/status".as_ref(), 7).unwrap_err();
        assert_eq!(error.to_string(), "larger than 7 bytes");
    }
}

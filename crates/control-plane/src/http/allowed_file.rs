//! Reads the files that a manifest names, as far as the operator's [`AllowList`] permits.

use std::path::{Path, PathBuf};

use ecs_mesh_api::{AllowList, RefusedSource};
use ecs_mesh_controller::{ReadFileError, read_file};

/// Why a file that a manifest names was not read.
#[derive(Debug)]
pub(super) enum AllowedFileError {
    /// Manifests may not name it.
    Refused(RefusedSource),
    /// It cannot be read.
    Read(ReadFileError),
}

/// Reads a file of at most `max_bytes` from an allowed directory. Links are resolved first, and the file where they lead is
/// read: a link out of the directories is refused. Blocks on the file system.
pub(super) fn read_allowed(
    allowed: &AllowList,
    path: &Path,
    max_bytes: u64,
) -> Result<Vec<u8>, AllowedFileError> {
    let location = match std::fs::canonicalize(path) {
        Ok(location) => location,
        // Whether a file exists elsewhere is not for the author of a manifest to know.
        Err(error) => {
            allowed.check_path(path).map_err(AllowedFileError::Refused)?;
            return Err(AllowedFileError::Read(error.into()));
        }
    };
    // A directory that does not exist contains nothing.
    let directories: Vec<PathBuf> =
        allowed.directories().iter().filter_map(|directory| std::fs::canonicalize(directory).ok()).collect();
    allowed.check_location(path, &location, &directories).map_err(AllowedFileError::Refused)?;
    read_file(&location, max_bytes).map_err(AllowedFileError::Read)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// The content, or whether the file was refused.
    fn read(allowed: &AllowList, path: &Path) -> Result<String, bool> {
        let read = read_allowed(allowed, path, 64).map(|bytes| String::from_utf8(bytes).unwrap());
        read.map_err(|error| matches!(error, AllowedFileError::Refused(_)))
    }

    #[test]
    fn file_is_read_from_where_its_links_lead() {
        let root = tempfile::tempdir().unwrap();
        let (inside, outside) = (root.path().join("inside"), root.path().join("outside"));
        std::fs::create_dir(&inside).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(inside.join("token"), "yes").unwrap();
        std::fs::write(outside.join("token"), "no").unwrap();
        symlink("token", inside.join("near")).unwrap();
        symlink(outside.join("token"), inside.join("far")).unwrap();
        symlink(&outside, inside.join("elsewhere")).unwrap();
        symlink(&inside, root.path().join("alias")).unwrap();
        let allowed = AllowList::new(["*"], [&inside]);
        for (path, expected) in [
            ("inside/token", Ok("yes")),
            ("inside/near", Ok("yes")),
            ("alias/token", Ok("yes")),
            ("outside/../inside/token", Ok("yes")),
            ("inside/missing", Err(false)),
            ("outside/token", Err(true)),
            ("outside/missing", Err(true)),
            ("inside/far", Err(true)),
            ("inside/elsewhere/token", Err(true)),
            ("inside/../outside/token", Err(true)),
            // `..` is that of the directory where the link leads.
            ("inside/elsewhere/../outside/token", Err(true)),
        ] {
            assert_eq!(read(&allowed, &root.path().join(path)), expected.map(str::to_owned), "{path}");
        }
        // A directory of the list may be a link.
        let through = AllowList::new(["*"], [root.path().join("alias")]);
        assert_eq!(read(&through, &inside.join("token")), Ok("yes".to_owned()));
        assert_eq!(read(&through, &outside.join("token")), Err(true));
    }
}

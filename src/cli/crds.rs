//! `ecs-mesh-operator crds`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::output::print;
use ecs_mesh_api::schema::{self, SchemaFile};
use ecs_mesh_controller::{ReadFileError, read_file};

/// Limit of a file that is compared: far more than a schema has.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Arguments of `crds`.
#[derive(clap::Args)]
pub(super) struct CrdsArgs {
    /// Output directory; `-` prints the CustomResourceDefinitions to stdout
    #[arg(long, default_value = "crds", value_name = "DIR")]
    output_dir: PathBuf,

    /// Exit with 2 if the files are out of date; write nothing
    #[arg(long)]
    check: bool,
}

/// The state of a file in the output directory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FileState {
    Current,
    Outdated,
    Missing,
}

impl CrdsArgs {
    pub(super) fn run(&self) -> Result<ExitCode, String> {
        if self.output_dir == Path::new("-") {
            if self.check {
                return Err("--check needs a directory to compare with; use --output-dir DIR".to_owned());
            }
            return print(&schema::definitions()).map(|()| ExitCode::SUCCESS);
        }
        let files = schema::files();
        if self.check { self.compare(&files) } else { self.write(&files) }
    }

    fn write(&self, files: &[SchemaFile]) -> Result<ExitCode, String> {
        let directory = &self.output_dir;
        fs::create_dir_all(directory).map_err(|error| {
            format!("creating {}: {error}; help: use another --output-dir", directory.display())
        })?;
        let mut lines = Vec::new();
        for file in files {
            let path = directory.join(&file.name);
            // A current file keeps its modification time, which build tools compare.
            let outcome = if state(&path, &file.text)? == FileState::Current {
                "unchanged"
            } else {
                fs::write(&path, &file.text)
                    .map_err(|error| format!("writing {}: {error}", path.display()))?;
                "written"
            };
            lines.push(format!("{}: {outcome}\n", path.display()));
        }
        print(&lines.concat()).map(|()| ExitCode::SUCCESS)
    }

    fn compare(&self, files: &[SchemaFile]) -> Result<ExitCode, String> {
        let mut lines = Vec::new();
        for file in files {
            let path = self.output_dir.join(&file.name);
            match state(&path, &file.text)? {
                FileState::Current => {}
                FileState::Outdated => lines.push(format!("{}: out of date\n", path.display())),
                FileState::Missing => lines.push(format!("{}: missing\n", path.display())),
            }
        }
        if lines.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        lines.push(format!("help: run ecs-mesh-operator crds --output-dir {}\n", self.output_dir.display()));
        print(&lines.concat())?;
        Ok(ExitCode::from(2))
    }
}

fn state(path: &Path, expected: &str) -> Result<FileState, String> {
    match read_file(path, MAX_FILE_BYTES) {
        Ok(found) if found == expected.as_bytes() => Ok(FileState::Current),
        Ok(_) | Err(ReadFileError::TooLarge(_)) => Ok(FileState::Outdated),
        Err(ReadFileError::Io(error)) if error.kind() == io::ErrorKind::NotFound => Ok(FileState::Missing),
        Err(error) => Err(format!("reading {}: {error}", path.display())),
    }
}

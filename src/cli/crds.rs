//! `ecs-mesh-operator crds`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::output::print;
use ecs_mesh_api::schema::{self, SchemaFile};

/// What `crds` takes.
#[derive(clap::Args)]
pub(super) struct CrdsArgs {
    /// Where the files go; `-` prints the Kubernetes definitions to standard output, for `kubectl apply -f -`.
    #[arg(long, default_value = "crds", value_name = "DIR")]
    output_dir: PathBuf,

    /// Write nothing; exit with 2 if the files in the directory are not what this version would write.
    #[arg(long)]
    check: bool,
}

/// What had to be done for a file.
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
                return Err(
                    "--check compares files with those of a directory: give --output-dir DIR".to_owned()
                );
            }
            return print(&schema::definitions()).map(|()| ExitCode::SUCCESS);
        }
        let files = schema::files();
        if self.check { self.compare(&files) } else { self.write(&files) }
    }

    fn write(&self, files: &[SchemaFile]) -> Result<ExitCode, String> {
        let directory = &self.output_dir;
        fs::create_dir_all(directory).map_err(|error| {
            format!("{} cannot be made: {error}; give another with --output-dir", directory.display())
        })?;
        let mut told = Vec::new();
        for file in files {
            let path = directory.join(&file.name);
            // A file that is as it should be keeps its time, which build tools look at.
            let done = if state(&path, &file.text)? == FileState::Current {
                "unchanged"
            } else {
                fs::write(&path, &file.text)
                    .map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
                "written"
            };
            told.push(format!("{}: {done}\n", path.display()));
        }
        print(&told.concat()).map(|()| ExitCode::SUCCESS)
    }

    fn compare(&self, files: &[SchemaFile]) -> Result<ExitCode, String> {
        let mut told = Vec::new();
        for file in files {
            let path = self.output_dir.join(&file.name);
            match state(&path, &file.text)? {
                FileState::Current => {}
                FileState::Outdated => told.push(format!("{}: not what this version writes\n", path.display())),
                FileState::Missing => told.push(format!("{}: missing\n", path.display())),
            }
        }
        if told.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        told.push(format!("To renew: ecs-mesh-operator crds --output-dir {}\n", self.output_dir.display()));
        print(&told.concat())?;
        Ok(ExitCode::from(2))
    }
}

fn state(path: &Path, wanted: &str) -> Result<FileState, String> {
    match fs::read(path) {
        Ok(found) if found == wanted.as_bytes() => Ok(FileState::Current),
        Ok(_) => Ok(FileState::Outdated),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(FileState::Missing),
        Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
    }
}

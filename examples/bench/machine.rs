//! The machine and the code of a measurement.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Serialize;

/// Machine and code.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub kernel: String,
    pub rustc: String,
    pub commit: String,
    pub profile: String,
    pub command: String,
    /// Load average before the benchmark; other load distorts the figures.
    pub load: String,
}

impl Machine {
    /// This machine, and the code of this program, which its command line calls `program`.
    pub(crate) fn here(program: &str) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let cpus = read("/proc/cpuinfo");
        let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
        let dirty = !output_of("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty();
        let commit = output_of("git", &["rev-parse", "--short", "HEAD"]);
        Self {
            cpu: model.unwrap_or("unknown").to_owned(),
            cores: std::thread::available_parallelism().map_or(0, Into::into),
            kernel: read("/proc/sys/kernel/osrelease"),
            rustc: output_of("rustc", &["--version"]),
            commit: if dirty { format!("{commit} with changes") } else { commit },
            profile: profile().unwrap_or_default(),
            command: std::env::args().skip(1).fold(program.to_owned(), |all, next| format!("{all} {next}")),
            load: read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "),
        }
    }
}

fn output_of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// The directory of this build's profile: `…/release` for `…/release/examples/bench`.
fn profile_directory() -> Option<PathBuf> {
    std::env::current_exe().ok()?.parent()?.parent().map(Path::to_owned)
}

fn profile() -> Option<String> {
    Some(profile_directory()?.file_name()?.to_string_lossy().into_owned())
}

/// Builds the operator with this program's profile, so that the current code is measured.
///
/// # Errors
/// Describes the failure.
pub(crate) fn build_operator() -> Result<PathBuf, String> {
    let directory = profile_directory().ok_or("cannot determine the directory of this program")?;
    let profile = profile().filter(|name| name != "debug").unwrap_or_else(|| "dev".to_owned());
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--locked", "--quiet", "--bin", "ecs-mesh-operator", "--profile", &profile])
        .arg("--target-dir")
        .arg(directory.parent().unwrap_or(&directory))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    match built {
        Ok(status) if status.success() => Ok(directory.join("ecs-mesh-operator")),
        Ok(status) => Err(format!("building the operator: cargo exited with {status}")),
        Err(error) => Err(format!("building the operator: starting cargo: {error}")),
    }
}

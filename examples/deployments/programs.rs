//! The programs that are measured, named by environment variables.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The variable of kuma-cp.
pub(crate) const KUMA_CP: &str = "KUMA_CP_BIN";
/// The variable of kuma-dp.
pub(crate) const KUMA_DP: &str = "KUMA_DP_BIN";
/// The variable of Envoy.
pub(crate) const ENVOY: &str = "ENVOY_BIN";
/// The variable of the operator; without it, this repository's is built.
pub(crate) const OPERATOR: &str = "OPERATOR_BIN";

/// The programs of a measurement, as absolute paths.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub kuma_cp: PathBuf,
    pub kuma_dp: PathBuf,
    pub envoy: PathBuf,
    /// Set once it is built or named.
    pub operator: PathBuf,
}

impl Programs {
    /// Reads the variables.
    ///
    /// # Errors
    /// Names each variable that is not set or names no file.
    pub(crate) fn from_environment() -> Result<Self, String> {
        let needed = [(KUMA_CP, "kuma-cp 2.14"), (KUMA_DP, "kuma-dp 2.14"), (ENVOY, "Envoy")];
        let mut problems = Vec::new();
        let mut found = Vec::new();
        for (variable, program) in needed {
            match path(variable) {
                Ok(Some(path)) => found.push(path),
                Ok(None) => problems.push(format!("{variable} is not set: it names the program {program}")),
                Err(error) => problems.push(error),
            }
        }
        let operator = path(OPERATOR).unwrap_or_else(|error| {
            problems.push(error);
            None
        });
        match <[PathBuf; 3]>::try_from(found) {
            Ok([kuma_cp, kuma_dp, envoy]) if problems.is_empty() => {
                Ok(Self { kuma_cp, kuma_dp, envoy, operator: operator.unwrap_or_default() })
            }
            _ => Err(format!("{}; help: CONTRIBUTING.md, Real Kuma and Envoy", problems.join("\nerror: "))),
        }
    }

    /// Takes the operator from `build` if no variable names one.
    ///
    /// # Errors
    /// That of `build`.
    pub(crate) fn with_operator(
        self,
        build: impl FnOnce() -> Result<PathBuf, String>,
    ) -> Result<Self, String> {
        let is_named = !self.operator.as_os_str().is_empty();
        Ok(if is_named { self } else { Self { operator: build()?, ..self } })
    }

    /// The variables that name these programs.
    pub(crate) fn environment(&self) -> [(&'static str, &Path); 4] {
        [(KUMA_CP, &self.kuma_cp), (KUMA_DP, &self.kuma_dp), (ENVOY, &self.envoy), (OPERATOR, &self.operator)]
    }

    /// The versions of all programs, as they report them.
    pub(crate) fn versions(&self) -> String {
        let kuma = |program: &Path| last_word(&first_line(program, "version"));
        // `…/envoy  version: COMMIT/1.40.0/Clean/RELEASE/BoringSSL`
        let envoy = last_word(&first_line(&self.envoy, "--version"));
        let envoy = envoy.split('/').nth(1).unwrap_or("unknown").to_owned();
        // `ecs-mesh-operator VERSION (COMMIT)`
        let operator = first_line(&self.operator, "--version");
        let operator = operator.split_once(' ').map_or("unknown", |(_, version)| version);
        format!(
            "kuma-cp {}, kuma-dp {}, Envoy {envoy}, operator {operator}",
            kuma(&self.kuma_cp),
            kuma(&self.kuma_dp)
        )
    }
}

/// The file that a variable names.
fn path(variable: &str) -> Result<Option<PathBuf>, String> {
    let Some(value) = std::env::var_os(variable).filter(|value| !value.is_empty()) else { return Ok(None) };
    let named = PathBuf::from(value);
    let path = named.canonicalize().map_err(|error| format!("{variable}: {}: {error}", named.display()))?;
    if path.is_file() { Ok(Some(path)) } else { Err(format!("{variable}: {}: not a file", path.display())) }
}

/// The first line of output that is not blank.
fn first_line(program: &Path, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned()
}

fn last_word(line: &str) -> String {
    line.split_whitespace().last().unwrap_or("unknown").to_owned()
}

//! Processes that end with their owner.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

/// Lines of a log that an error repeats.
const LOG_LINES: usize = 5;

/// A process, killed when it is dropped.
pub(crate) struct OwnedProcess {
    child: Child,
    log: PathBuf,
}

impl OwnedProcess {
    /// Starts the process with its output in `log`. Standard output may go elsewhere.
    ///
    /// # Errors
    /// Describes the failure.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self, String> {
        let file = File::create(log).map_err(|error| format!("{}: {error}", log.display()))?;
        let child = command.stdin(Stdio::null()).stderr(file).spawn();
        let child = child
            .map_err(|error| format!("starting {}: {error}", command.get_program().to_string_lossy()))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// As [`Self::start`], with standard output in the log, too.
    ///
    /// # Errors
    /// Describes the failure.
    pub(crate) fn start_logged(command: &mut Command, log: &Path) -> Result<Self, String> {
        let out = log.with_extension("out.log");
        let file = File::create(&out).map_err(|error| format!("{}: {error}", out.display()))?;
        Self::start(command.stdout(file), log)
    }

    /// The piped standard output, once.
    pub(crate) fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Sends SIGTERM.
    ///
    /// # Errors
    /// Describes the failure.
    pub(crate) fn terminate(&self) -> Result<(), String> {
        run_tool(Command::new("kill").args(["-TERM", &self.child.id().to_string()]))
    }

    /// Kills the process, which may have exited already.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
    }

    /// The exit code of a process that has exited; 137 if a signal ended it.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(status.code().unwrap_or(137))
    }

    /// Fails with the end of the log if the process has exited.
    ///
    /// # Errors
    /// Names the process.
    pub(crate) fn must_run(&mut self, name: &str) -> Result<(), String> {
        let Some(code) = self.exit_code() else { return Ok(()) };
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(LOG_LINES).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        Err(format!("{name} exited early with {code}; the end of its log:\n{}", last.join("\n")))
    }
}

impl Drop for OwnedProcess {
    fn drop(&mut self) {
        // The process may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a tool of the system to its end.
///
/// # Errors
/// The tool's own message.
pub(crate) fn run_tool(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("starting {name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
    Err(format!("{name} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

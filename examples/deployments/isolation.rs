//! Namespaces of network, processes and mounts around the measurement. The kernel ends all processes in them, and removes
//! the networks, when the first process ends.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::programs::Programs;

/// Environment variable with the directory of a run's files, in the namespaces.
const DIRECTORY: &str = "DEPLOYMENTS_DIRECTORY";
/// Interval at which the end of the measurement is looked for.
const LOOK: Duration = Duration::from_millis(50);
/// Exit code after a signal, as shells report SIGINT.
const INTERRUPTED: u8 = 130;

/// The directory of this run's files, if this process is in namespaces of its own.
pub(crate) fn directory() -> Option<PathBuf> {
    std::env::var_os(DIRECTORY).map(PathBuf::from)
}

/// Starts this program with the same arguments in new namespaces, and waits for its end. A signal ends the measurement,
/// and its directory is removed in any case.
///
/// # Errors
/// Describes the failure.
pub(crate) fn run(programs: &Programs) -> Result<ExitCode, String> {
    let directory = tempfile::Builder::new().prefix("ecs-mesh-deployments-").tempdir();
    let directory = directory.map_err(|error| format!("creating a directory: {error}"))?;
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let child = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(own)
        .args(std::env::args_os().skip(1))
        .env(DIRECTORY, directory.path())
        .envs(programs.environment())
        // Files of all processes go below the directory.
        .env("TMPDIR", directory.path())
        // Its end shows that this process has ended.
        .stdin(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|error| format!("starting unshare: {error}; help: install util-linux"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.map_err(|error| error.to_string())?.block_on(end_or_signal(&mut child))?;
    Ok(match ended {
        Some(status) => ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)),
        None => {
            // All processes in the namespaces end with it. It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
            ExitCode::from(INTERRUPTED)
        }
    })
}

/// The child's status, or `None` after a signal that asks for an end.
async fn end_or_signal(child: &mut Child) -> Result<Option<ExitStatus>, String> {
    let wait_for = |kind| signal(kind).map_err(|error| error.to_string());
    let mut interrupt = wait_for(SignalKind::interrupt())?;
    let mut terminate = wait_for(SignalKind::terminate())?;
    let mut hang_up = wait_for(SignalKind::hangup())?;
    loop {
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            return Ok(Some(status));
        }
        tokio::select! {
            _ = interrupt.recv() => return Ok(None),
            _ = terminate.recv() => return Ok(None),
            _ = hang_up.recv() => return Ok(None),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Ends this process, and so all in its namespaces, when the process that started it has ended.
pub(crate) fn end_with_parent() {
    std::thread::spawn(|| {
        // Nothing is ever written. An error is an end, too.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(1);
    });
}

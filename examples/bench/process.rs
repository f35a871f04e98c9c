//! Measured processes: started, read through `/proc`, and ended with the benchmark.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::control::{AccountSize, Order, SandboxAddresses, SandboxSnapshot};

/// Linux counts CPU time in hundredths of a second on all architectures.
const TICK: Duration = Duration::from_millis(10);

/// Time limit of a clean exit of the sandbox.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A process that ends with its owner.
pub(crate) struct ChildProcess(Child);

/// Memory of a process, in MB of 1,000,000 bytes.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Memory {
    /// Current resident size.
    pub resident: f64,
    /// Peak resident size.
    pub peak: f64,
    /// Current proportional set size; absent if the kernel does not report it.
    pub proportional: Option<f64>,
    /// Current anonymous memory: that of the program itself.
    pub anonymous: f64,
}

impl ChildProcess {
    /// Starts the process with its standard error in `log`.
    ///
    /// # Errors
    /// Describes the failure.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self, String> {
        let name = command.get_program().to_string_lossy().into_owned();
        let file = File::create(log).map_err(|error| format!("{}: {error}", log.display()))?;
        let child = command.stderr(file).spawn();
        child.map(Self).map_err(|error| format!("starting {name}: {error}"))
    }

    /// Fails with the end of the log if the process has exited.
    ///
    /// # Errors
    /// Describes the failure.
    pub(crate) fn must_run(&mut self, log: &Path) -> Result<(), String> {
        match self.0.try_wait() {
            Ok(None) => Ok(()),
            _ => {
                let log = fs::read_to_string(log).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(5).collect();
                Err(format!("the process exited early; the end of its log:\n{}", last.join("\n")))
            }
        }
    }

    /// CPU time of all threads.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = self.proc_file("stat");
        // The process name may contain blanks; the fields after its bracket do not. The 12th and 13th are user and system time.
        let fields: Vec<&str> =
            stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
        let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<u32>().ok()).unwrap_or(0);
        TICK * (ticks(11) + ticks(12))
    }

    /// Memory of the process.
    pub(crate) fn memory(&self) -> Memory {
        let (status, rollup) = (self.proc_file("status"), self.proc_file("smaps_rollup"));
        Memory {
            resident: megabytes(&status, "VmRSS:").unwrap_or_default(),
            peak: megabytes(&status, "VmHWM:").unwrap_or_default(),
            proportional: megabytes(&rollup, "Pss:"),
            anonymous: megabytes(&status, "RssAnon:").unwrap_or_default(),
        }
    }

    fn proc_file(&self, name: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{name}", self.0.id())).unwrap_or_default()
    }
}

fn megabytes(text: &str, field: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    let kibibytes: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1_024.0 / 1_000_000.0)
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        // The process may have exited already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The sandbox process, which reads orders.
pub(crate) struct SandboxProcess {
    pub process: ChildProcess,
    pub place: SandboxAddresses,
    /// Closing it ends the sandbox and its child processes.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl SandboxProcess {
    /// Starts this program as the sandbox.
    ///
    /// # Errors
    /// Describes the failure.
    pub(crate) fn start(directory: &Path, consul: Option<&Path>, size: AccountSize) -> Result<Self, String> {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(own);
        command.env_remove(crate::consul::PROGRAM).env(crate::consul::DIRECTORY, directory);
        if let Some(program) = consul {
            command.env(crate::consul::PROGRAM, program);
        }
        let AccountSize { clusters, services } = size;
        command.args(["sandbox", "--clusters", &clusters.to_string(), "--services", &services.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = ChildProcess::start(&mut command, &directory.join("sandbox.log"))?;
        let (Some(orders), Some(answers)) = (process.0.stdin.take(), process.0.stdout.take()) else {
            return Err("the sandbox has no standard input and output".to_owned());
        };
        let mut answers = BufReader::new(answers);
        let place = match read_lines(&mut answers) {
            Ok(place) => place,
            Err(error) => {
                let log = fs::read_to_string(directory.join("sandbox.log")).unwrap_or_default();
                return Err(format!(
                    "{error}; the end of its log: {}",
                    log.lines().last().unwrap_or_default()
                ));
            }
        };
        Ok(Self { process, place, orders: Some(orders), answers })
    }

    /// Sends an order and waits for its response.
    ///
    /// # Errors
    /// Describes the failure.
    pub(crate) fn order(&mut self, order: &Order) -> Result<SandboxSnapshot, String> {
        let line = serde_json::to_string(order).map_err(|error| error.to_string())?;
        let orders = self.orders.as_mut().ok_or("the sandbox has exited")?;
        writeln!(orders, "{line}").map_err(|error| format!("writing to the sandbox: {error}"))?;
        read_lines(&mut self.answers)
    }
}

impl Drop for SandboxProcess {
    fn drop(&mut self) {
        self.orders = None;
        let until = Instant::now() + TIMEOUT;
        while matches!(self.process.0.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(TICK);
        }
    }
}

fn read_lines<T: serde::de::DeserializeOwned>(answers: &mut BufReader<ChildStdout>) -> Result<T, String> {
    let mut line = String::new();
    answers.read_line(&mut line).map_err(|error| error.to_string())?;
    if line.is_empty() {
        return Err("the sandbox has exited".to_owned());
    }
    serde_json::from_str(&line).map_err(|error| format!("reading the response of the sandbox: {error}"))
}

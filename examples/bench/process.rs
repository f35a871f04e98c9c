//! The processes that are measured: started, watched through `/proc`, and ended with the bench.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::control::{Order, SandboxSnapshot, SandboxAddresses};

/// Linux counts CPU time in hundredths of a second, on every architecture.
const TICK: Duration = Duration::from_millis(10);

/// How long the sandbox may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// A process that ends with its owner.
pub(crate) struct ChildProcess(Child);

/// Memory of a process, in MB of 1,000,000 bytes.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Memory {
    /// Resident now.
    pub resident: f64,
    /// The most that was ever resident.
    pub peak: f64,
    /// Resident now, shared pages counted by their share; absent where the kernel does not tell.
    pub proportional: Option<f64>,
    /// Resident now and backed by no file: what the program itself took.
    pub anonymous: f64,
}

impl ChildProcess {
    /// Starts it, with what it says in `log`.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self, String> {
        let name = command.get_program().to_string_lossy().into_owned();
        let file = File::create(log).map_err(|error| format!("{}: {error}", log.display()))?;
        let child = command.stderr(file).spawn();
        child.map(Self).map_err(|error| format!("{name} cannot be started: {error}"))
    }

    /// Fails, with the end of its log, if it has ended.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn must_run(&mut self, log: &Path) -> Result<(), String> {
        match self.0.try_wait() {
            Ok(None) => Ok(()),
            _ => {
                let said = fs::read_to_string(log).unwrap_or_default();
                let last: Vec<&str> = said.lines().rev().take(5).collect();
                Err(format!("a process ended too early; it last said:\n{}", last.join("\n")))
            }
        }
    }

    /// CPU time so far, of all its threads.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = self.proc_file("stat");
        // The name may hold blanks; what follows its bracket does not. The 12th and 13th after it are user and system.
        let fields: Vec<&str> =
            stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
        let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<u32>().ok()).unwrap_or(0);
        TICK * (ticks(11) + ticks(12))
    }

    /// Its memory.
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
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The sandbox's process, which takes orders.
pub(crate) struct SandboxProcess {
    pub process: ChildProcess,
    pub place: SandboxAddresses,
    /// Closed, it ends the sandbox, and with it what the sandbox started.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl SandboxProcess {
    /// Starts this program once more, as the sandbox.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn start(directory: &Path, consul: Option<&Path>) -> Result<Self, String> {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(own);
        command.env_remove(crate::consul::PROGRAM).env(crate::consul::DIRECTORY, directory);
        if let Some(program) = consul {
            command.env(crate::consul::PROGRAM, program);
        }
        command.arg("sandbox").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = ChildProcess::start(&mut command, &directory.join("sandbox.log"))?;
        let (Some(orders), Some(answers)) = (process.0.stdin.take(), process.0.stdout.take()) else {
            return Err("the sandbox has no standard input and output".to_owned());
        };
        let mut answers = BufReader::new(answers);
        let place = match read_lines(&mut answers) {
            Ok(place) => place,
            Err(why) => {
                let said = fs::read_to_string(directory.join("sandbox.log")).unwrap_or_default();
                return Err(format!("{why}; it last said: {}", said.lines().last().unwrap_or_default()));
            }
        };
        Ok(Self { process, place, orders: Some(orders), answers })
    }

    /// Gives an order and waits until it is carried out.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn order(&mut self, order: &Order) -> Result<SandboxSnapshot, String> {
        let line = serde_json::to_string(order).map_err(|error| error.to_string())?;
        let orders = self.orders.as_mut().ok_or("the sandbox was ended")?;
        writeln!(orders, "{line}").map_err(|error| format!("the sandbox is gone: {error}"))?;
        read_lines(&mut self.answers)
    }
}

impl Drop for SandboxProcess {
    fn drop(&mut self) {
        self.orders = None;
        let until = Instant::now() + PATIENCE;
        while matches!(self.process.0.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(TICK);
        }
    }
}

fn read_lines<T: serde::de::DeserializeOwned>(answers: &mut BufReader<ChildStdout>) -> Result<T, String> {
    let mut line = String::new();
    answers.read_line(&mut line).map_err(|error| error.to_string())?;
    if line.is_empty() {
        return Err("the sandbox has ended".to_owned());
    }
    serde_json::from_str(&line).map_err(|error| format!("the sandbox broke down: {error}"))
}

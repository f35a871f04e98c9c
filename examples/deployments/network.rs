//! A network namespace for each task, joined by a bridge, as `awsvpc` gives each task an interface and a loopback of its
//! own.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

use super::process::run_tool;

/// The range of the tasks' addresses. The emulated subnet keeps its first four addresses free.
pub(crate) const SUBNET: &str = "10.88.0.0/24";
/// The address of the control plane, which is on the bridge.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);
/// The address of the client's namespace.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 2);

/// Prepares this process's namespaces: loopback, a directory for the names of networks that no other process sees, and the
/// bridge.
///
/// # Errors
/// The message of the tool that failed.
pub(crate) fn create_bridge() -> Result<(), String> {
    run_tool(Command::new("mount").args(["-t", "tmpfs", "tmpfs", "/run"]))?;
    ip(
        &[],
        &format!(
            "link set lo up
link add mesh type bridge forward_delay 0
address add {GATEWAY}/24 dev mesh
link set mesh up
"
        ),
    )
}

/// A network namespace on the bridge. Its processes end with it.
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// Creates a namespace with this address. Names have at most 13 characters, since the interface is named by it.
    ///
    /// # Errors
    /// The message of the tool that failed.
    pub(crate) fn create(name: &str, address: Ipv4Addr) -> Result<Self, String> {
        let namespace = Self { name: name.to_owned() };
        ip(
            &[],
            &format!(
                "netns add {name}
link add v-{name} type veth peer name eth0 netns {name}
link set v-{name} master mesh up
"
            ),
        )?;
        ip(
            &["-n", name],
            &format!(
                "address add {address}/24 dev eth0
link set eth0 up
link set lo up
route add default via {GATEWAY}
"
            ),
        )?;
        Ok(namespace)
    }

    /// A command that runs in the namespace.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Kills all processes in the namespace at once.
    ///
    /// # Errors
    /// The message of the tool that failed.
    pub(crate) fn kill_all(&self) -> Result<(), String> {
        let listed = Command::new("ip").args(["netns", "pids", &self.name]).output();
        let listed = listed.map_err(|error| format!("listing processes: {error}"))?;
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let processes: Vec<&str> = listed.split_whitespace().collect();
        if !processes.is_empty() {
            // Some may have ended since.
            let _ = run_tool(Command::new("kill").arg("-KILL").args(processes));
        }
        Ok(())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The rest ends with the namespaces around it. The kernel removes a network some time after its name, and its
        // interface would keep the name until then.
        let _ = self.kill_all();
        let _ = run_tool(Command::new("ip").args(["link", "delete", &format!("v-{}", self.name)]));
        let _ = run_tool(Command::new("ip").args(["netns", "delete", &self.name]));
    }
}

/// Runs a batch of `ip` commands.
fn ip(options: &[&str], batch: &str) -> Result<(), String> {
    let started = Command::new("ip")
        .args(options)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = started.map_err(|error| format!("starting ip: {error}; help: install iproute2"))?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(batch.as_bytes()).map_err(|error| format!("writing to ip: {error}"))?;
    }
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

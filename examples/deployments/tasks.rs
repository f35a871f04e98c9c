//! The processes of the tasks: app and sidecar in a network namespace, which follow the containers of the emulated ECS, and
//! which ECS follows where they exit by themselves.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ecs_mesh_api::HumanDuration;
use ecs_mesh_sandbox::aws::{ContainerState, ContainerStatus};

use crate::ecs::{APP, APP_PORT, EmulatedEcs, EmulatedTask, SIDECAR};
use crate::mesh;
use crate::network::Namespace;
use crate::process::OwnedProcess;
use crate::programs::Programs;
use crate::timeline::Timeline;

/// The processes of all tasks.
pub(crate) struct TaskProcesses {
    programs: Programs,
    directory: PathBuf,
    /// How long apps serve after SIGTERM.
    serving: Duration,
    /// `--drain-time` of the sidecars.
    drain_time: Duration,
    tasks: BTreeMap<Arc<str>, RunningTask>,
}

/// Dropped in this order: processes before their network.
#[derive(Default)]
struct RunningTask {
    app: Option<ContainerProcess>,
    sidecar: Option<ContainerProcess>,
    network: Option<Namespace>,
    /// Its processes were killed, and ECS has not detected it yet.
    is_killed: bool,
}

struct ContainerProcess {
    process: OwnedProcess,
    is_terminated: bool,
    is_reported: bool,
}

impl TaskProcesses {
    pub(crate) fn new(
        programs: &Programs,
        directory: &Path,
        serving: Duration,
        drain_time: Duration,
    ) -> Self {
        let (programs, directory) = (programs.clone(), directory.to_owned());
        Self { programs, directory, serving, drain_time, tasks: BTreeMap::new() }
    }

    /// Starts, terminates and kills processes as ECS's containers have changed, and reports exits to ECS.
    ///
    /// # Errors
    /// Describes the failure.
    pub(crate) fn follow(&mut self, ecs: &EmulatedEcs, timeline: &mut Timeline) -> Result<(), String> {
        for view in ecs.tasks() {
            timeline.observe(&format!("task {}", mesh::short(&view.id)), view.status.clone());
            if view.is_stopped {
                self.tasks.remove(&view.arn);
            } else {
                self.follow_task(&view, ecs, timeline)?;
            }
        }
        Ok(())
    }

    /// Kills all processes of a task at once, as the loss of its host does.
    ///
    /// # Errors
    /// Describes the failure.
    pub(crate) fn kill(&mut self, arn: &str) -> Result<(), String> {
        let Some(task) = self.tasks.get_mut(arn) else { return Ok(()) };
        task.is_killed = true;
        task.network.as_ref().map_or(Ok(()), Namespace::kill_all)
    }

    fn follow_task(
        &mut self,
        view: &EmulatedTask,
        ecs: &EmulatedEcs,
        timeline: &mut Timeline,
    ) -> Result<(), String> {
        let Some(address) = view.address else { return Ok(()) };
        let name = mesh::short(&view.id);
        let task = self.tasks.entry(Arc::clone(&view.arn)).or_default();
        let network = match &mut task.network {
            Some(network) => network,
            empty => empty.insert(Namespace::create(name, address)?),
        };
        if task.sidecar.is_none() && view.sidecar.status == ContainerStatus::Running {
            let directory = self.directory.join(name);
            std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
            let mut command = mesh::sidecar(network, &self.programs, &view.id, &directory, self.drain_time);
            let log = self.directory.join(format!("{name}-sidecar.log"));
            task.sidecar = Some(ContainerProcess::start(&mut command, &log)?);
            timeline.record(&format!("task {name} sidecar started"));
        }
        if task.app.is_none() && view.app.status == ContainerStatus::Running {
            let own = std::env::current_exe().map_err(|error| error.to_string())?;
            let mut command = network.command(&own);
            let serving = HumanDuration(self.serving).to_string();
            command.args(["app", "--port", &APP_PORT.to_string(), "--serve", &serving]);
            let log = self.directory.join(format!("{name}-app.log"));
            task.app = Some(ContainerProcess::start(&mut command, &log)?);
            timeline.record(&format!("task {name} app started"));
        }
        if task.is_killed {
            return Ok(());
        }
        let containers = [(APP, &view.app, &mut task.app), (SIDECAR, &view.sidecar, &mut task.sidecar)];
        for (container, state, process) in containers {
            let Some(running) = process else { continue };
            let Some(code) = running.follow(state, &format!("task {name} {container}"), timeline)? else {
                continue;
            };
            ecs.exit(&view.arn, container, code);
        }
        if view.sidecar.status == ContainerStatus::Stopped {
            // Envoy is a child of kuma-dp.
            network.kill_all()?;
        }
        Ok(())
    }
}

impl ContainerProcess {
    fn start(command: &mut std::process::Command, log: &Path) -> Result<Self, String> {
        let process = OwnedProcess::start_logged(command, log)?;
        Ok(Self { process, is_terminated: false, is_reported: false })
    }

    /// Sends SIGTERM where ECS has. Returns the exit code once, when the process has exited and its container has not.
    fn follow(
        &mut self,
        state: &ContainerState,
        name: &str,
        timeline: &mut Timeline,
    ) -> Result<Option<i32>, String> {
        if let Some(code) = self.process.exit_code() {
            let is_new = !std::mem::replace(&mut self.is_reported, true);
            if is_new {
                timeline.record(&format!("{name} exited with {code}"));
            }
            return Ok((is_new && state.status == ContainerStatus::Running).then_some(code));
        }
        if state.status == ContainerStatus::Stopped {
            // Its `stopTimeout` is over.
            self.process.kill();
        } else if state.sigterm_at.is_some() && !self.is_terminated {
            self.process.terminate()?;
            self.is_terminated = true;
            timeline.record(&format!("{name} SIGTERM"));
        }
        Ok(None)
    }
}

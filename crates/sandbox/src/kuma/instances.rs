//! The processes of one control plane, which share its store.
//!
//! During a rolling upgrade, an old and a new instance answer in turn behind one address. Each reads the stored objects
//! by its own release, and what it writes has only the fields of that release.

use super::release::EmulatedRelease;

/// One process of the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KumaInstance {
    /// Distinguishes the processes, as `instanceId` does.
    pub(super) number: u32,
    pub(super) release: EmulatedRelease,
    /// The version that `GET /` shows.
    pub(super) version: String,
}

impl KumaInstance {
    fn new(number: u32, release: EmulatedRelease) -> Self {
        let version = match release {
            EmulatedRelease::V2_14 => "2.14.3".to_owned(),
            EmulatedRelease::V3_0 => "3.0.1".to_owned(),
            older => format!("{older}.0"),
        };
        Self { number, release, version }
    }
}

/// The running instances.
#[derive(Clone, Debug)]
pub(super) struct KumaInstances {
    /// Generates `MeshService`s, and cleans up.
    pub(super) leader: KumaInstance,
    joining: Option<KumaInstance>,
    /// Whether the joining instance handles the current request or health report.
    joining_acts: bool,
    /// Whether the joining instance handled the last request.
    joining_answered: bool,
    /// Whether the joining instance received the last health report.
    joining_received: bool,
}

impl KumaInstances {
    /// One instance.
    pub(super) fn new(release: EmulatedRelease) -> Self {
        let leader = KumaInstance::new(1, release);
        Self { leader, joining: None, joining_acts: false, joining_answered: false, joining_received: false }
    }

    /// The instance that acts now: the one that handles the request or health report, or else the leader.
    pub(super) fn acting(&self) -> &KumaInstance {
        self.joining.as_ref().filter(|_| self.joining_acts).unwrap_or(&self.leader)
    }

    /// Begins a request, which the instances handle in turn.
    pub(super) fn begin_request(&mut self) {
        self.joining_answered = !self.joining_answered;
        self.joining_acts = self.joining_answered;
    }

    /// Begins a health report. A sidecar is connected to one of the instances, which stores what it reports.
    pub(super) fn begin_report(&mut self) {
        self.joining_received = !self.joining_received;
        self.joining_acts = self.joining_received;
    }

    /// Ends a request or a health report.
    pub(super) fn end(&mut self) {
        self.joining_acts = false;
    }

    /// Starts an instance of another release beside the leader.
    pub(super) fn join(&mut self, release: EmulatedRelease) {
        let number = self.joining.as_ref().unwrap_or(&self.leader).number + 1;
        self.joining = Some(KumaInstance::new(number, release));
        self.joining_answered = false;
        self.joining_received = false;
    }

    /// Replaces all instances by one of this release: the joining one if it is of that release.
    pub(super) fn replace(&mut self, release: EmulatedRelease) {
        let number = self.joining.as_ref().unwrap_or(&self.leader).number + 1;
        let joined = self.joining.take().filter(|joining| joining.release == release);
        self.leader = joined.unwrap_or_else(|| KumaInstance::new(number, release));
    }
}

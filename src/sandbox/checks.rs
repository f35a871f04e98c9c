//! Checks of a demo beside the invariants, each judged by the state of the emulated servers.

use std::fmt;

use serde_json::{Value, json};

/// A part of the demo that is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DemoSubject {
    /// Tasks on EC2 in network mode `host`.
    HostMode,
    /// The mesh is switched to MeshServices alone.
    ExclusiveMesh,
    /// Sidecars that bind their outbounds.
    BoundOutbounds,
    /// Zone ingress and egress.
    ZoneProxies,
    /// The upgrade of the control plane.
    Upgrade,
    /// Another replica leads and writes after the leader was killed.
    Takeover,
}

impl DemoSubject {
    /// The key in JSON.
    pub fn key(self) -> &'static str {
        match self {
            Self::HostMode => "hostMode",
            Self::ExclusiveMesh => "exclusiveMesh",
            Self::BoundOutbounds => "bindOutbounds",
            Self::ZoneProxies => "zoneProxies",
            Self::Upgrade => "upgrade",
            Self::Takeover => "takeover",
        }
    }
}

impl fmt::Display for DemoSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HostMode => "network mode host",
            Self::ExclusiveMesh => "move to MeshServices",
            Self::BoundOutbounds => "bound outbounds",
            Self::ZoneProxies => "zone proxies",
            Self::Upgrade => "upgrade of Kuma",
            Self::Takeover => "takeover",
        })
    }
}

/// The state of a part of the demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DemoCheckStatus {
    /// It is as it should be.
    Passed,
    /// It is not yet as it should be. At the end of a demo that was not interrupted, this is a failure.
    Pending,
    /// It was wrong at some time.
    Failed,
    /// This demo does not have it.
    Skipped,
}

impl DemoCheckStatus {
    fn text(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Pending => "pending",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// A judged part of the demo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DemoCheck {
    /// The judged behaviour.
    pub subject: DemoSubject,
    /// How it is.
    pub status: DemoCheckStatus,
    /// The observation, or the reason for none.
    pub message: String,
}

impl DemoCheck {
    pub(super) fn new(subject: DemoSubject, status: DemoCheckStatus, message: impl Into<String>) -> Self {
        Self { subject, status, message: message.into() }
    }

    /// Makes what is pending a failure, since the demo is over.
    pub(super) fn at_end(self) -> Self {
        match self.status {
            DemoCheckStatus::Pending => Self { status: DemoCheckStatus::Failed, ..self },
            _ => self,
        }
    }

    /// The value in JSON.
    pub(super) fn json(&self) -> Value {
        json!({"status": self.status.text(), "message": self.message})
    }

    /// The cell of the table.
    pub(super) fn cell(&self) -> String {
        match self.status {
            DemoCheckStatus::Passed => format!("ok: {}", self.message),
            DemoCheckStatus::Pending => format!("not finished: {}", self.message),
            DemoCheckStatus::Failed => format!("FAILED: {}", self.message),
            DemoCheckStatus::Skipped => format!("not shown: {}", self.message),
        }
    }
}

//! Selection of the emulated control planes.

/// The emulated control planes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ControlPlanes {
    /// Kuma: the operator registers tasks.
    #[default]
    Kuma,
    /// Consul: tasks register themselves, and the operator cleans up.
    Consul,
    /// Both, with each task in both.
    Both,
}

impl ControlPlanes {
    /// Whether Kuma is among them.
    pub fn has_kuma(self) -> bool {
        self != Self::Consul
    }

    /// Whether Consul is among them.
    pub fn has_consul(self) -> bool {
        self != Self::Kuma
    }
}

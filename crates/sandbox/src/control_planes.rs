//! Which control planes the sandbox has.

/// Which control planes there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ControlPlanes {
    /// Kuma, where the operator registers tasks.
    #[default]
    Kuma,
    /// Consul, where tasks register themselves.
    Consul,
    /// Each task is in both.
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

//! The containers of a task that belong to the mesh: Kuma's data plane proxy, Consul's, and Consul's health sync.
//!
//! Sources: <https://github.com/kumahq/kuma/blob/master/pkg/config/app/kuma-dp/config.go> (`KUMA_DATAPLANE_…`),
//! <https://developer.konghq.com/mesh/ecs/> (`--auth-type=aws`) and
//! <https://developer.hashicorp.com/consul/docs/ecs/architecture> (containers of a task).

use std::collections::BTreeSet;

use crate::facts::AuditedDefinition;
use ecs_mesh_aws::inspect::FullContainer;
use ecs_mesh_model::{HiddenSetting, KumaSidecarStart, SidecarSetting};

/// The only value of `--auth-type`.
const AWS: &str = "aws";
/// The options by which a sidecar authenticates, with the variables of their meaning.
const AUTHENTICATION: [(&str, &str); 3] = [
    ("auth-type", ""),
    ("dataplane-token", "KUMA_DATAPLANE_RUNTIME_TOKEN"),
    ("dataplane-token-file", "KUMA_DATAPLANE_RUNTIME_TOKEN_PATH"),
];
/// Variables that move a port of Kuma's sidecar.
const PORT_VARIABLES: [(&str, u16, &str); 2] = [
    ("KUMA_DATAPLANE_ADMIN_PORT", 9901, "the sidecar's admin port"),
    ("KUMA_READINESS_PORT", 9902, "the sidecar's readiness port"),
];

/// Kinds of containers of the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SidecarKind {
    /// Kuma's data plane proxy: a sidecar, or a zone ingress or egress.
    KumaDataplane,
    /// Consul's proxy.
    ConsulDataplane,
    /// Consul's health sync.
    ConsulHealthSync,
}

/// A container of the mesh.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SidecarContainer<'a> {
    /// Its index.
    pub(crate) index: usize,
    /// The container.
    pub(crate) container: &'a FullContainer,
    /// Its kind.
    pub(crate) kind: SidecarKind,
}

/// How a sidecar proves to the control plane who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SidecarAuthentication {
    /// By the task role, or by a token.
    Given,
    /// In no way that the container definition shows.
    Absent,
    /// In a way that Kong Mesh does not have: this value of `--auth-type`.
    OtherType(String),
    /// The container definition does not show it, for this reason.
    Hidden(HiddenSetting),
}

/// The containers of the mesh.
pub(crate) fn of(definition: &AuditedDefinition) -> Vec<SidecarContainer<'_>> {
    definition
        .containers()
        .filter_map(|(index, container)| Some(SidecarContainer { index, container, kind: kind(container)? }))
        .collect()
}

/// Whether a container runs Kuma's data plane proxy.
pub(crate) fn has_kuma(definition: &AuditedDefinition) -> bool {
    definition.containers().any(|(_, container)| kind(container) == Some(SidecarKind::KumaDataplane))
}

fn kind(container: &FullContainer) -> Option<SidecarKind> {
    let start = container.start();
    if start.kuma_sidecar().is_some() {
        return Some(SidecarKind::KumaDataplane);
    }
    let words = start.words();
    let runs = |program: &str| words.iter().any(|word| word.rsplit('/').next() == Some(program));
    let image = container.image.rsplit('/').next().unwrap_or_default();
    if container.name == "consul-ecs-health-sync" || runs("health-sync") {
        Some(SidecarKind::ConsulHealthSync)
    } else if container.name == "consul-dataplane"
        || image.contains("consul-dataplane")
        || runs("consul-dataplane")
    {
        Some(SidecarKind::ConsulDataplane)
    } else {
        None
    }
}

impl SidecarContainer<'_> {
    /// How Kuma's data plane proxy is started; `None` for a container of Consul.
    pub(crate) fn start(&self) -> Option<KumaSidecarStart<'_>> {
        self.container.start().kuma_sidecar()
    }

    /// How a data plane proxy of Kuma proves to the control plane who it is.
    pub(crate) fn authentication(&self) -> SidecarAuthentication {
        let Some(start) = self.start() else { return SidecarAuthentication::Absent };
        let mut found = SidecarAuthentication::Absent;
        if let SidecarSetting::Given(kind) = start.setting("auth-type", "")
            && kind != AWS
            && !kind.contains('$')
        {
            return SidecarAuthentication::OtherType(kind.to_owned());
        }
        for (option, variable) in AUTHENTICATION {
            match start.setting(option, variable) {
                // A token is best given as a secret.
                SidecarSetting::Given(_) | SidecarSetting::Hidden(HiddenSetting::Secret) => {
                    return SidecarAuthentication::Given;
                }
                SidecarSetting::Hidden(reason) => found = SidecarAuthentication::Hidden(reason),
                SidecarSetting::Absent => {}
            }
        }
        found
    }

    /// The ports that Kuma's sidecar uses itself, as far as variables move them, with the defaults that are then free.
    pub(crate) fn moved_ports(&self) -> Vec<MovedPort> {
        let Some(start) = self.start() else { return Vec::new() };
        let moved = |(name, default, user): &(&str, u16, &'static str)| {
            let port = start.variable(name)?.parse().ok()?;
            Some(MovedPort { port, default: *default, user })
        };
        PORT_VARIABLES.iter().filter_map(moved).collect()
    }
}

/// A port of Kuma's sidecar that a variable moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MovedPort {
    /// The port.
    pub(crate) port: u16,
    /// The port without the variable.
    pub(crate) default: u16,
    /// The sidecar's use of it.
    pub(crate) user: &'static str,
}

/// Whether a container starts after another one, directly or through others.
pub(crate) fn starts_after(definition: &AuditedDefinition, later: &str, earlier: &str) -> bool {
    let mut open = vec![later];
    let mut seen = BTreeSet::new();
    while let Some(name) = open.pop() {
        let Some((_, container)) = definition.containers().find(|(_, container)| container.name == name)
        else {
            continue;
        };
        for dependency in &container.depends_on {
            let first = dependency.container_name.as_str();
            if first == earlier {
                return true;
            }
            if seen.insert(first) {
                open.push(first);
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_mesh_aws::inspect::{Redacted, Variable};

    fn container(image: &str, command: &str) -> FullContainer {
        FullContainer {
            name: "sidecar".to_owned(),
            image: image.to_owned(),
            command: vec![Redacted::new(command)],
            ..FullContainer::default()
        }
    }

    fn sidecar(container: &FullContainer) -> SidecarContainer<'_> {
        SidecarContainer { index: 0, container, kind: SidecarKind::KumaDataplane }
    }

    #[test]
    fn sidecar_is_known_by_image_program_or_name() {
        for (image, command, expected) in [
            ("docker.io/kong/kuma-dp:2.14.0", "", Some(SidecarKind::KumaDataplane)),
            (
                "registry:5000/mesh/proxy@sha256:0",
                "exec /usr/bin/kuma-dp run",
                Some(SidecarKind::KumaDataplane),
            ),
            ("hashicorp/consul-dataplane:1.5", "", Some(SidecarKind::ConsulDataplane)),
            ("hashicorp/consul-ecs:0.10.0", "health-sync", Some(SidecarKind::ConsulHealthSync)),
            ("hashicorp/consul-ecs:0.10.0", "mesh-init", None),
            ("kuma-dp.example.com/app:1", "run", None),
        ] {
            assert_eq!(kind(&container(image, command)), expected, "{image} {command}");
        }
    }

    #[test]
    fn authentication_is_read_from_flags_and_variables() {
        use SidecarAuthentication::{Absent, Given, Hidden, OtherType};
        let hidden = Hidden(HiddenSetting::OwnCommand);
        for (command, expected) in [
            ("kuma-dp run --auth-type=aws", Given),
            ("kuma-dp run --auth-type=\"aws\"", Given),
            ("id=1; exec kuma-dp run --name \"$id\" --auth-type aws", Given),
            ("kuma-dp run --auth-type=$TYPE", Given),
            ("kuma-dp run --auth-type=iam", OtherType("iam".to_owned())),
            ("kuma-dp run --dataplane-token-file=/run/token", Given),
            ("kuma-dp run --dataplane-token-file=", Absent),
            ("kuma-dp run --cp-address https://cp:5678", Absent),
            ("", hidden),
        ] {
            let container = container("kuma-dp", command);
            assert_eq!(sidecar(&container).authentication(), expected, "{command}");
        }
        let mut with_variable = container("kuma-dp", "kuma-dp run");
        with_variable.environment = vec![Variable {
            name: "KUMA_DATAPLANE_RUNTIME_TOKEN_PATH".to_owned(),
            value: Redacted::new("/run/token"),
        }];
        assert_eq!(sidecar(&with_variable).authentication(), Given);
        let mut with_file = container("kuma-dp", "kuma-dp run");
        with_file.environment_files = vec![serde_json::Value::Bool(true)];
        assert!(matches!(sidecar(&with_file).authentication(), Hidden(_)));
    }
}

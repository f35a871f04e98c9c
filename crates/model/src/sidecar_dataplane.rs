//! How a Kuma sidecar gets its Dataplane, as its container definition shows.

use crate::KumaSidecarStart;

/// Flags with a Dataplane, or with the path of one.
///
/// Source: `app/kuma-dp/cmd/run.go` of Kuma.
const TEMPLATE_FLAGS: [&str; 3] = ["--dataplane-file", "--dataplane", "-d"];

/// Variables with the same meaning.
///
/// Source: `pkg/config/app/kuma-dp/config.go` of Kuma.
const TEMPLATE_VARIABLES: [&str; 2] =
    ["KUMA_DATAPLANE_RUNTIME_RESOURCE", "KUMA_DATAPLANE_RUNTIME_RESOURCE_PATH"];

/// The flag and the variable with the name of a Dataplane that another writer creates. Beside a template, kuma-dp refuses them.
const NAME_FLAG: &str = "--name";
const NAME_VARIABLE: &str = "KUMA_DATAPLANE_NAME";

/// How a Kuma sidecar gets its Dataplane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SidecarDataplane {
    /// The sidecar has a template, from which the control plane creates the Dataplane at each connect. It overwrites what
    /// others wrote, labels included.
    Template,
    /// The sidecar starts by name, and waits for the Dataplane.
    Named,
}

impl KumaSidecarStart<'_> {
    /// How the sidecar gets its Dataplane; `None` if its definition does not show that.
    pub fn dataplane(&self) -> Option<SidecarDataplane> {
        let has_option = |flag: &str| self.has_option(flag);
        let has_variable = |name: &str| self.has_variable(name);
        if TEMPLATE_FLAGS.into_iter().any(has_option) || TEMPLATE_VARIABLES.into_iter().any(has_variable) {
            return Some(SidecarDataplane::Template);
        }
        (has_option(NAME_FLAG) || has_variable(NAME_VARIABLE)).then_some(SidecarDataplane::Named)
    }
}

#[cfg(test)]
mod tests {
    use super::SidecarDataplane::{Named, Template};
    use crate::ContainerStart;

    const IMAGE: &str = "registry.example:5000/kong/kuma-dp:2.14.3";

    #[test]
    fn flags_show_template_mode_or_a_name() {
        for (image, arguments, expected) in [
            (IMAGE, &["run", "--dataplane-file=/dp.yaml"][..], Some(Template)),
            (IMAGE, &["run", "--dataplane-file", "/dp.yaml"], Some(Template)),
            (IMAGE, &["run", "-d", "/dp.yaml"], Some(Template)),
            (IMAGE, &["run", "--dataplane=$DP"], Some(Template)),
            (
                "own",
                &["sh", "-c", "kuma-dp run '--dataplane-file=/dp.yaml' --dataplane-var a=b"],
                Some(Template),
            ),
            ("own", &["sh", "-c", "kuma-dp run --name \"${id%%-*}\" --mesh default"], Some(Named)),
            (IMAGE, &["run", "--name=web-1"], Some(Named)),
            // Options of other commands.
            (
                "own",
                &["sh", "-c", "kuma-dp run --name \"$id\" --dataplane-token \"$(echo $T | base64 -d)\""],
                Some(Named),
            ),
            ("own", &["sh", "-c", "kuma-dp run --name $id || curl -d failed http://alerts"], Some(Named)),
            ("own", &["sh", "-c", "curl -d x http://a; exec kuma-dp run --name=$id"], Some(Named)),
            ("own", &["sh", "-c", "su kuma -c 'kuma-dp run --dataplane-file=/dp.yaml'"], Some(Template)),
            ("own", &["sh", "-c", "kuma-dp run \"$@\"; exit 1", "sh", "-d", "/dp.yaml"], Some(Template)),
            ("own", &["sh", "-c", "$(which kuma-dp) run --name $id"], Some(Named)),
            // Flags that only begin alike.
            (IMAGE, &["run", "--dataplane-token-file=/token", "--dataplane-var", "a=b"], None),
            (IMAGE, &["run", "--cp-address=https://cp:5678"], None),
            ("own/app", &["run", "--name", "web"], None),
            ("own/kuma-dp", &["/start.sh"], None),
        ] {
            let start = ContainerStart { image, arguments: arguments.to_vec(), ..ContainerStart::default() };
            assert_eq!(
                start.kuma_sidecar().and_then(|sidecar| sidecar.dataplane()),
                expected,
                "{image} {arguments:?}"
            );
        }
    }

    #[test]
    fn variables_show_template_mode_or_a_name() {
        for (name, value, expected) in [
            ("KUMA_DATAPLANE_RUNTIME_RESOURCE", Some("type: Dataplane"), Some(Template)),
            ("KUMA_DATAPLANE_RUNTIME_RESOURCE_PATH", Some("/dp.yaml"), Some(Template)),
            // A secret, whose value the definition does not show.
            ("KUMA_DATAPLANE_RUNTIME_RESOURCE", None, Some(Template)),
            ("KUMA_DATAPLANE_RUNTIME_RESOURCE", Some(""), None),
            ("KUMA_DATAPLANE_NAME", Some("web-1"), Some(Named)),
            ("KUMA_DATAPLANE_RUNTIME_TOKEN", None, None),
        ] {
            let start = ContainerStart {
                image: IMAGE,
                arguments: vec!["run"],
                environment: vec![(name, value)],
                has_environment_files: false,
            };
            assert_eq!(
                start.kuma_sidecar().and_then(|sidecar| sidecar.dataplane()),
                expected,
                "{name} {value:?}"
            );
        }
    }
}

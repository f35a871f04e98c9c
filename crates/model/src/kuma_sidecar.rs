//! The Kuma sidecar among the containers of a task definition, and how it gets its outbounds.

/// The flag of a sidecar that binds services on their own addresses (Kuma 2.11 and later).
///
/// Source: `app/kuma-dp/cmd/run.go` of Kuma.
pub const BIND_OUTBOUNDS_FLAG: &str = "--bind-outbounds";

/// The variable with the flag's meaning. `kuma-dp` reads it after the flags, so it takes precedence.
///
/// Source: `pkg/config/app/kuma-dp/config.go` of Kuma.
const BIND_OUTBOUNDS_VARIABLE: &str = "KUMA_DATAPLANE_RUNTIME_BIND_OUTBOUNDS";

/// How a Kuma sidecar gets its outbounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SidecarOutbounds {
    /// It listens as its Dataplane says.
    Listeners,
    /// It binds services on their own addresses, and the control plane ignores the Dataplane's listeners.
    Bound,
}

/// The parts of a container definition that show how the container is started. Values of variables may be secrets, so it has no
/// `Debug`.
#[derive(Clone, Default)]
pub struct ContainerStart<'a> {
    /// `image`.
    pub image: &'a str,
    /// `entryPoint` and `command`, in this order.
    pub arguments: Vec<&'a str>,
    /// `environment`, and the names of `secrets` without a value.
    pub environment: Vec<(&'a str, Option<&'a str>)>,
    /// Whether the container has `environmentFiles`, whose contents are not known.
    pub has_environment_files: bool,
}

impl ContainerStart<'_> {
    /// How the container gets its outbounds; `None` if it is no Kuma sidecar, or if its definition does not show that.
    ///
    /// A sidecar is a container that runs `kuma-dp run`: the word `run` is among its arguments, and the image or the program
    /// is named `kuma-dp`, or `--cp-address` is among the arguments, too. A shell gets its command line as one argument, so
    /// arguments are split at white space.
    pub fn sidecar_outbounds(&self) -> Option<SidecarOutbounds> {
        let words: Vec<&str> =
            self.arguments.iter().flat_map(|argument| argument.split_whitespace()).collect();
        let words: Vec<&str> = words.iter().map(|word| word.trim_matches(['"', '\''])).collect();
        let run = words.iter().position(|word| *word == "run")?;
        let (program, options) = words.split_at(run);
        let is_kuma_dp = image_name(self.image).contains("kuma-dp")
            || program.iter().any(|word| word.rsplit('/').next() == Some("kuma-dp"))
            || options.iter().any(|word| word.starts_with("--cp-address"));
        if !is_kuma_dp {
            return None;
        }
        let binds = match self.environment.iter().find(|(name, _)| *name == BIND_OUTBOUNDS_VARIABLE) {
            Some((_, value)) => parse_go_bool((*value)?)?,
            None => match flag(options) {
                Some(FlagValue::Given(is_set)) => is_set,
                Some(FlagValue::Hidden) => return None,
                None if self.has_environment_files || may_expand_to_options(options) => return None,
                None => false,
            },
        };
        Some(if binds { SidecarOutbounds::Bound } else { SidecarOutbounds::Listeners })
    }
}

/// `kuma-dp` of `registry:5000/kong/kuma-dp:2.14.3`.
fn image_name(image: &str) -> &str {
    let name = image.rsplit('/').next().unwrap_or_default();
    name.split([':', '@']).next().unwrap_or_default()
}

/// The value of the flag.
enum FlagValue {
    Given(bool),
    /// The definition does not show it, such as that of a shell variable.
    Hidden,
}

/// The value of the flag, if it is given. The last one counts.
fn flag(options: &[&str]) -> Option<FlagValue> {
    let value = |option: &&str| {
        let word = option.trim_end_matches([';', '&', '|', ')']);
        match word.strip_prefix(BIND_OUTBOUNDS_FLAG)? {
            "" => Some(FlagValue::Given(true)),
            value => {
                let value = value.strip_prefix('=')?.trim_matches(['"', '\'']);
                Some(parse_go_bool(value).map_or(FlagValue::Hidden, FlagValue::Given))
            }
        }
    };
    options.iter().rev().find_map(value)
}

/// Whether a shell may expand a word to further options, such as `$OPTIONS`. The value of an option is none.
fn may_expand_to_options(options: &[&str]) -> bool {
    let is_value_of = |option: &str| option.starts_with("--") && !option.contains('=');
    options.windows(2).any(|pair| pair[1].starts_with('$') && !is_value_of(pair[0]))
}

/// A boolean as Go reads it (`strconv.ParseBool`).
fn parse_go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::SidecarOutbounds::{Bound, Listeners};
    use super::*;

    const IMAGE: &str = "registry.example:5000/kong/kuma-dp:2.14.3";

    #[test]
    fn flag_is_found_in_the_command_of_a_sidecar() {
        for (image, arguments, expected) in [
            (IMAGE, &["run", "--cp-address=https://cp:5678"][..], Some(Listeners)),
            (IMAGE, &["run", "--bind-outbounds"], Some(Bound)),
            (IMAGE, &["run", "--bind-outbounds=false"], Some(Listeners)),
            (IMAGE, &["run", "--bind-outbounds=$BIND"], None),
            (IMAGE, &["run", "--bind-outbounds", "--bind-outbounds=${BIND}"], None),
            (IMAGE, &["sh", "-c", "kuma-dp run --bind-outbounds; exit 1"], Some(Bound)),
            (IMAGE, &["sh", "-c", "kuma-dp run --bind-outbounds=\"true\" --mesh a"], Some(Bound)),
            (
                "own/proxy",
                &["sh", "-c", "id=$(hostname)\nexec /usr/bin/kuma-dp run \\\n '--bind-outbounds'"],
                Some(Bound),
            ),
            ("own/proxy", &["sh", "-c", "kuma-dp run --name \"${id%%-*}\" --mesh default"], Some(Listeners)),
            ("own/proxy", &["start", "run", "--cp-address", "$CP"], Some(Listeners)),
            ("own/proxy", &["sh", "-c", "kuma-dp run --name $ID $OPTIONS"], None),
            ("own/kuma-dp", &["/start.sh"], None),
            ("own/kuma-dp", &[], None),
            ("own/app", &["run", "--port", "80"], None),
        ] {
            let start = ContainerStart { image, arguments: arguments.to_vec(), ..ContainerStart::default() };
            assert_eq!(start.sidecar_outbounds(), expected, "{image} {arguments:?}");
        }
    }

    #[test]
    fn variable_takes_precedence_over_the_flag() {
        for (value, arguments, has_environment_files, expected) in [
            (Some(Some("true")), &["run"][..], false, Some(Bound)),
            (Some(Some("1")), &["run"], true, Some(Bound)),
            (Some(Some("false")), &["run", "--bind-outbounds"], false, Some(Listeners)),
            (Some(Some("yes")), &["run"], false, None),
            (Some(None), &["run"], false, None),
            (None, &["run"], true, None),
            (None, &["run", "--bind-outbounds"], true, Some(Bound)),
        ] {
            let environment = value.map(|value| (BIND_OUTBOUNDS_VARIABLE, value)).into_iter().collect();
            let arguments = arguments.to_vec();
            let start = ContainerStart { image: IMAGE, arguments, environment, has_environment_files };
            assert_eq!(start.sidecar_outbounds(), expected, "{value:?} {has_environment_files}");
        }
    }
}

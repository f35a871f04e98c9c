//! The Kuma sidecar among the containers of a task definition: which container it is, and what its definition shows of its
//! settings. The operator, `doctor` and `audit` all find sidecars by these rules.

use std::fmt;

use crate::shell_words::{self, ShellToken};

/// The flag of a sidecar that binds services on their own addresses (Kuma 2.11 and later).
///
/// Source: `app/kuma-dp/cmd/run.go` of Kuma.
pub const BIND_OUTBOUNDS_FLAG: &str = "--bind-outbounds";

/// The variable with the flag's meaning. `kuma-dp` reads it after the flags, so it takes precedence.
///
/// Source: `pkg/config/app/kuma-dp/config.go` of Kuma.
const BIND_OUTBOUNDS_VARIABLE: &str = "KUMA_DATAPLANE_RUNTIME_BIND_OUTBOUNDS";

/// The program of Kuma's data plane proxy, and the name of its image.
const KUMA_DP: &str = "kuma-dp";

/// How a Kuma sidecar gets its outbounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SidecarOutbounds {
    /// It listens as its Dataplane says.
    Listeners,
    /// It binds services on their own addresses, and the control plane ignores the Dataplane's listeners.
    Bound,
    /// The definition does not show it.
    Hidden,
}

/// A setting of a sidecar, as far as the container definition shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SidecarSetting<'a> {
    /// Its value, which a shell may still expand.
    Given(&'a str),
    /// It has its default.
    Absent,
    /// The definition does not show it.
    Hidden(HiddenSetting),
}

/// Why a container definition does not show a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HiddenSetting {
    /// The arguments of `kuma-dp run` are in the image or in a script.
    OwnCommand,
    /// The container has environment files.
    EnvironmentFile,
    /// A shell may expand a variable to further options.
    ShellVariable,
    /// ECS reads the variable from a secret.
    Secret,
}

impl fmt::Display for HiddenSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OwnCommand => "the command is the image's own or a script, which is not read",
            Self::EnvironmentFile => "it may be in an environment file, which is not read",
            Self::ShellVariable => "a shell variable may give further options",
            Self::Secret => "its variable comes from a secret, which is not read",
        })
    }
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

impl<'a> ContainerStart<'a> {
    /// The words of entry point and command, of all commands that a command line has; quotes are removed.
    pub fn words(&self) -> Vec<String> {
        let is_end = |c: char| c.is_whitespace() || matches!(c, ';' | '|' | '&' | '(' | ')');
        let words = self.arguments.iter().flat_map(|argument| argument.split(is_end));
        words.map(|word| word.replace(['"', '\''], "")).filter(|word| !word.is_empty()).collect()
    }

    /// The sidecar, if the container is one of Kuma, also behind a command that hides its settings: the image or a word of the
    /// command is named `kuma-dp`, or `--cp-address` is an option of `run`.
    pub fn kuma_sidecar(&self) -> Option<KumaSidecarStart<'a>> {
        let options = self.run_options();
        let has_address =
            options.as_ref().is_some_and(|options| options.iter().any(|one| one.starts_with("--cp-address")));
        let is_named = || self.words().iter().any(|word| is_program(word));
        let is_sidecar = image_name(self.image).contains(KUMA_DP) || has_address || is_named();
        is_sidecar.then(|| KumaSidecarStart { start: self.clone(), options })
    }

    /// The options of `run`, if an argument shows it: the words after it up to the end of the command, and the arguments after
    /// that, which a shell passes on.
    fn run_options(&self) -> Option<Vec<String>> {
        let arguments: Vec<Vec<ShellToken>> =
            self.arguments.iter().map(|argument| shell_words::split(argument, may_start_sidecar)).collect();
        let words = arguments.iter().enumerate().flat_map(|(argument, tokens)| {
            tokens.iter().enumerate().filter_map(move |(at, token)| match token {
                ShellToken::Word(word) => Some((argument, at, word.as_str())),
                ShellToken::End => None,
            })
        });
        let mut after = words.clone();
        if words.clone().any(|(_, _, word)| is_program(word)) {
            after.find(|(_, _, word)| is_program(word));
        }
        let (argument, at, _) = after.find(|(_, _, word)| *word == "run")?;
        let word = |token: &ShellToken| match token {
            ShellToken::Word(word) => Some(word.clone()),
            ShellToken::End => None,
        };
        let own = arguments[argument].iter().skip(at + 1).map_while(word);
        Some(own.chain(arguments.iter().skip(argument + 1).flatten().filter_map(word)).collect())
    }

    fn variable(&self, name: &str) -> Option<VariableValue<'a>> {
        let (_, value) = self.environment.iter().find(|(found, _)| *found == name)?;
        Some(value.map_or(VariableValue::Secret, VariableValue::Plain))
    }
}

/// The value of a variable.
#[derive(Clone, Copy, PartialEq, Eq)]
enum VariableValue<'a> {
    /// In the definition.
    Plain(&'a str),
    /// In a secret, which is not read.
    Secret,
}

/// The value of a flag.
#[derive(Clone, Copy)]
enum FlagValue {
    Given(bool),
    /// Such as that of a shell variable.
    Hidden,
}

/// How a sidecar of Kuma is started. Values of variables may be secrets, so it has no `Debug`.
#[derive(Clone)]
pub struct KumaSidecarStart<'a> {
    start: ContainerStart<'a>,
    /// The options of `kuma-dp run`; `None` where the definition does not show them.
    options: Option<Vec<String>>,
}

impl KumaSidecarStart<'_> {
    /// How the container gets its outbounds.
    pub fn outbounds(&self) -> SidecarOutbounds {
        let binds = match self.start.variable(BIND_OUTBOUNDS_VARIABLE) {
            Some(VariableValue::Plain(text)) => parse_go_bool(text),
            Some(VariableValue::Secret) => None,
            None => match self.options.as_deref().and_then(bind_flag) {
                Some(FlagValue::Given(binds)) => Some(binds),
                Some(FlagValue::Hidden) => None,
                None if self.hidden().is_some() => None,
                None => Some(false),
            },
        };
        match binds {
            Some(true) => SidecarOutbounds::Bound,
            Some(false) => SidecarOutbounds::Listeners,
            None => SidecarOutbounds::Hidden,
        }
    }

    /// The setting of an option with a value (`name` of `--name`) and of the variable with its meaning. `kuma-dp` reads
    /// variables after the flags, so they take precedence. The last option counts.
    pub fn setting(&self, option: &str, variable: &str) -> SidecarSetting<'_> {
        match self.start.variable(variable) {
            Some(VariableValue::Plain("")) | None => {}
            Some(VariableValue::Plain(value)) => return SidecarSetting::Given(value),
            Some(VariableValue::Secret) => return SidecarSetting::Hidden(HiddenSetting::Secret),
        }
        let options = self.options.as_deref().unwrap_or_default();
        let given = options.iter().enumerate().rev().find_map(|(at, word)| {
            match word.strip_prefix("--")?.strip_prefix(option)? {
                "" => Some(options.get(at + 1).map_or("", String::as_str)),
                rest => rest.strip_prefix('='),
            }
        });
        match (given, self.hidden()) {
            (Some(value), _) if !value.is_empty() => SidecarSetting::Given(value),
            (_, Some(hidden)) => SidecarSetting::Hidden(hidden),
            _ => SidecarSetting::Absent,
        }
    }

    /// The values of an option that may be given several times, as far as the definition shows them.
    pub fn values(&self, option: &str) -> Vec<&str> {
        let options = self.options.as_deref().unwrap_or_default();
        let value = |(at, word): (usize, &'_ String)| -> Option<usize> {
            let rest = word.strip_prefix("--")?.strip_prefix(option)?;
            match rest {
                "" => Some(at + 1),
                _ => rest.starts_with('=').then_some(at),
            }
        };
        let found = options.iter().enumerate().filter_map(value);
        found
            .filter_map(|at| {
                let word = options.get(at)?.as_str();
                let prefix = word.strip_prefix("--").and_then(|word| word.strip_prefix(option));
                Some(prefix.and_then(|rest| rest.strip_prefix('=')).unwrap_or(word))
            })
            .collect()
    }

    /// The value of a variable that has no option, in plain text.
    pub fn variable(&self, name: &str) -> Option<&str> {
        match self.start.variable(name)? {
            VariableValue::Plain(value) => Some(value),
            VariableValue::Secret => None,
        }
    }

    /// Whether an option is given, with or without a value.
    pub(super) fn has_option(&self, flag: &str) -> bool {
        let is_flag = |word: &String| {
            word.strip_prefix(flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
        };
        self.options.iter().flatten().any(is_flag)
    }

    /// Whether a variable has a value, be it a secret.
    pub(super) fn has_variable(&self, name: &str) -> bool {
        self.start.variable(name).is_some_and(|value| value != VariableValue::Plain(""))
    }

    /// Why settings that are not shown may be given all the same.
    fn hidden(&self) -> Option<HiddenSetting> {
        match &self.options {
            None => Some(HiddenSetting::OwnCommand),
            Some(_) if self.start.has_environment_files => Some(HiddenSetting::EnvironmentFile),
            Some(options) => may_expand_to_options(options).then_some(HiddenSetting::ShellVariable),
        }
    }
}

/// Whether a word is the path of `kuma-dp`.
fn is_program(word: &str) -> bool {
    word.rsplit('/').next() == Some(KUMA_DP)
}

/// Whether a quoted word may be a command line that starts the sidecar.
fn may_start_sidecar(word: &str) -> bool {
    word.contains(KUMA_DP)
}

/// `kuma-dp` of `registry:5000/kong/kuma-dp:2.14.3`.
fn image_name(image: &str) -> &str {
    let name = image.rsplit('/').next().unwrap_or_default();
    name.split([':', '@']).next().unwrap_or_default()
}

/// The value of the flag, if it is given. The last one counts.
fn bind_flag(options: &[String]) -> Option<FlagValue> {
    let value = |option: &String| match option.strip_prefix(BIND_OUTBOUNDS_FLAG)? {
        "" => Some(FlagValue::Given(true)),
        value => Some(parse_go_bool(value.strip_prefix('=')?).map_or(FlagValue::Hidden, FlagValue::Given)),
    };
    options.iter().rev().find_map(value)
}

/// Whether a shell may expand a word to further options, such as `$OPTIONS`. The value of an option is none.
fn may_expand_to_options(options: &[String]) -> bool {
    let is_value_of = |option: &str| option.starts_with("--") && !option.contains('=');
    let is_expanded = |at: usize, word: &String| {
        word.starts_with('$') && !at.checked_sub(1).is_some_and(|before| is_value_of(&options[before]))
    };
    options.iter().enumerate().any(|(at, word)| is_expanded(at, word))
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
    use super::SidecarOutbounds::{Bound, Hidden, Listeners};
    use super::*;

    const IMAGE: &str = "registry.example:5000/kong/kuma-dp:2.14.3";

    fn start<'a>(image: &'a str, arguments: &[&'a str]) -> ContainerStart<'a> {
        ContainerStart { image, arguments: arguments.to_vec(), ..ContainerStart::default() }
    }

    fn outbounds(start: &ContainerStart<'_>) -> Option<SidecarOutbounds> {
        start.kuma_sidecar().map(|sidecar| sidecar.outbounds())
    }

    #[test]
    fn flag_is_found_in_the_command_of_a_sidecar() {
        for (image, arguments, expected) in [
            (IMAGE, &["run", "--cp-address=https://cp:5678"][..], Some(Listeners)),
            (IMAGE, &["run", "--bind-outbounds"], Some(Bound)),
            (IMAGE, &["run", "--bind-outbounds=false"], Some(Listeners)),
            (IMAGE, &["run", "--bind-outbounds=$BIND"], Some(Hidden)),
            (IMAGE, &["run", "--bind-outbounds", "--bind-outbounds=${BIND}"], Some(Hidden)),
            (IMAGE, &["sh", "-c", "kuma-dp run --bind-outbounds; exit 1"], Some(Bound)),
            (IMAGE, &["sh", "-c", "kuma-dp run --bind-outbounds=\"true\" --mesh a"], Some(Bound)),
            (
                "own/proxy",
                &["sh", "-c", "id=$(hostname)\nexec /usr/bin/kuma-dp run \\\n '--bind-outbounds'"],
                Some(Bound),
            ),
            ("own/proxy", &["sh", "-c", "kuma-dp run --name \"${id%%-*}\" --mesh default"], Some(Listeners)),
            ("own/proxy", &["start", "run", "--cp-address", "$CP"], Some(Listeners)),
            ("own/proxy", &["sh", "-c", "kuma-dp run --name $ID $OPTIONS"], Some(Hidden)),
            ("own/proxy", &["sh", "-c", "npm run build; kuma-dp run --bind-outbounds"], Some(Bound)),
            ("own/proxy", &["/wrap", "kuma-dp"], Some(Hidden)),
            ("own/kuma-dp", &["/start.sh"], Some(Hidden)),
            ("own/kuma-dp", &[], Some(Hidden)),
            ("kuma-dp.example.com/app:1", &["run"], None),
            ("own/app", &["run", "--port", "80"], None),
        ] {
            assert_eq!(outbounds(&start(image, arguments)), expected, "{image} {arguments:?}");
        }
    }

    #[test]
    fn variable_takes_precedence_over_the_flag() {
        for (value, arguments, has_environment_files, expected) in [
            (Some(Some("true")), &["run"][..], false, Bound),
            (Some(Some("1")), &["run"], true, Bound),
            (Some(Some("true")), &[], false, Bound),
            (Some(Some("false")), &["run", "--bind-outbounds"], false, Listeners),
            (Some(Some("yes")), &["run"], false, Hidden),
            (Some(None), &["run"], false, Hidden),
            (None, &["run"], true, Hidden),
            (None, &["run", "--bind-outbounds"], true, Bound),
        ] {
            let environment = value.map(|value| (BIND_OUTBOUNDS_VARIABLE, value)).into_iter().collect();
            let arguments = arguments.to_vec();
            let start = ContainerStart { image: IMAGE, arguments, environment, has_environment_files };
            assert_eq!(outbounds(&start), Some(expected), "{value:?} {has_environment_files}");
        }
    }

    #[test]
    fn option_has_the_values_that_are_given() {
        let line = "kuma-dp run --dataplane-var port=15000 --dataplane-var=address=`hostname -i` --mesh a";
        let start = start(IMAGE, &["sh", "-c", line]);
        assert_eq!(start.kuma_sidecar().unwrap().values("dataplane-var"), ["port=15000", "address=$()"]);
    }

    #[test]
    fn setting_is_shown_absent_or_hidden() {
        use HiddenSetting::{EnvironmentFile, OwnCommand, Secret, ShellVariable};
        use SidecarSetting::{Absent, Given};
        let read = |start: &ContainerStart<'_>, expected: SidecarSetting<'_>| {
            let sidecar = start.kuma_sidecar().unwrap();
            assert_eq!(sidecar.setting("mesh", "KUMA_DATAPLANE_MESH"), expected, "{:?}", start.arguments);
        };
        for (arguments, expected) in [
            (&["run", "--mesh", "a"][..], Given("a")),
            (&["run", "--mesh=a", "--mesh=\"b\""], Given("b")),
            (&["sh", "-c", "exec kuma-dp run --mesh $MESH --name a"], Given("$MESH")),
            (&["run", "--mesh="], Absent),
            (&["run", "--mesh-like", "a"], Absent),
            (&["run", "$OPTIONS"], SidecarSetting::Hidden(ShellVariable)),
            (&["/start.sh"], SidecarSetting::Hidden(OwnCommand)),
        ] {
            read(&start(IMAGE, arguments), expected);
        }
        let run = start(IMAGE, &["run", "--mesh=a"]);
        let with =
            |value| ContainerStart { environment: vec![("KUMA_DATAPLANE_MESH", value)], ..run.clone() };
        read(&with(Some("b")), Given("b"));
        read(&with(None), SidecarSetting::Hidden(Secret));
        let from_file = ContainerStart { has_environment_files: true, ..start(IMAGE, &["run"]) };
        read(&from_file, SidecarSetting::Hidden(EnvironmentFile));
    }
}

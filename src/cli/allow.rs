//! Arguments that bound which environment variables and files manifests may name.

use std::path::PathBuf;

use ecs_mesh_api::AllowList;
use ecs_mesh_model::Glob;

/// Environment variables and directories that manifests may name.
#[derive(clap::Args)]
pub(super) struct AllowArgs {
    /// Environment variables that manifests may name, `*` and `?` allowed; replaces the default
    #[arg(long, env = "ECS_MESH_ALLOW_ENV", value_name = "NAME", value_parser = variable, value_delimiter = ',')]
    #[arg(default_values = AllowList::DEFAULT_VARIABLES)]
    allow_env: Vec<Glob>,

    /// Directories of the files that manifests may name; replaces the default
    #[arg(long, env = "ECS_MESH_ALLOW_DIR", value_name = "DIR", value_parser = directory, value_delimiter = ',')]
    #[arg(default_values = AllowList::DEFAULT_DIRECTORIES)]
    allow_dir: Vec<PathBuf>,
}

impl AllowArgs {
    /// The list.
    pub(super) fn list(&self) -> AllowList {
        AllowList::new(self.allow_env.iter().map(Glob::as_str), &self.allow_dir)
    }
}

fn variable(text: &str) -> Result<Glob, String> {
    let is_pattern = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'*' | b'?');
    if text.is_empty() || !text.bytes().all(is_pattern) {
        return Err("write a variable's name, or a pattern with * and ?".to_owned());
    }
    let never = AllowList::NEVER_VARIABLES;
    if never.iter().any(|never| text.starts_with(never.trim_end_matches('*'))) {
        return Err(format!(
            "{} are never allowed: they have credentials of AWS or ECS",
            never.join(" and ")
        ));
    }
    Ok(Glob::new(text))
}

fn directory(text: &str) -> Result<PathBuf, String> {
    if text.starts_with('/') { Ok(text.into()) } else { Err("write an absolute path".to_owned()) }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        allow: AllowArgs,
    }

    fn list(arguments: &[&str]) -> Result<AllowList, ()> {
        let arguments = std::iter::once("command").chain(arguments.iter().copied());
        Command::try_parse_from(arguments).map(|command| command.allow.list()).map_err(drop)
    }

    #[test]
    fn flags_replace_the_default() {
        assert_eq!(list(&[]), Ok(AllowList::default()));
        let given = list(&["--allow-env", "A_*,B", "--allow-env=C", "--allow-dir", "/a,/b"]).unwrap();
        assert_eq!(given, AllowList::new(["A_*", "B", "C"], ["/a", "/b"]));
    }

    #[test]
    fn credentials_and_relative_directories_are_refused() {
        for refused in [
            ["--allow-env", "AWS_SECRET_ACCESS_KEY"],
            ["--allow-env", "AWS_*"],
            ["--allow-env", "ECS_CONTAINER_METADATA_URI_V4"],
            ["--allow-env", ""],
            ["--allow-env", "not a name"],
            ["--allow-dir", "secrets"],
            ["--allow-dir", ""],
        ] {
            assert_eq!(list(&refused), Err(()), "{refused:?}");
        }
    }
}

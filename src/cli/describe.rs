//! `ecs-mesh-operator describe`.

use std::io::{self, BufRead as _};
use std::process::ExitCode;

use super::api_client_args::{ApiClientArgs, notice};
use super::get::objects;
use super::output::print;
use super::terminal;
use ecs_mesh_client::change_selector::ChangeSelector;
use ecs_mesh_client::describe::describe;
use ecs_mesh_client::get::{GetError, GetRequest};
use ecs_mesh_client::output::description::render_description;
use ecs_mesh_clock::Clock;

/// Most names of standard input.
const MAX_NAMES: usize = 1_000;

/// Arguments of `describe`.
#[derive(clap::Args)]
pub(super) struct DescribeArgs {
    /// Kind of objects (task, service, binding or identity, or another kind of `get`), KIND/NAME, or `-` for KIND/NAME lines of standard input
    #[arg(value_name = "KIND")]
    kind: String,

    /// Names of objects
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    #[command(flatten)]
    api: ApiClientArgs,
}

impl DescribeArgs {
    pub(super) async fn run(self) -> Result<ExitCode, String> {
        let groups = if self.kind == "-" { listed(&self.names)? } else { vec![(self.kind, self.names)] };
        let client = self.api.client().map_err(|error| error.to_string())?;
        let (mut is_first, mut missing) = (true, false);
        for (kind, names) in groups {
            let (kind, names) = objects(&kind, names)?;
            if names.is_empty() {
                return Err(format!(
                    "name a {0}, as in describe {0} NAME; `get {1}` lists all",
                    kind.singular(),
                    kind.plural()
                ));
            }
            let selector = ChangeSelector::default();
            let request = GetRequest { kind, names: Vec::new(), query: Vec::new(), selector, sort_by: None };
            for name in names {
                let found = match describe(&client, &request, &name).await {
                    Ok(found) => found,
                    // The others are described all the same, as kubectl does.
                    Err(error @ (GetError::Missing { .. } | GetError::Ambiguous { .. })) => {
                        notice(&format!("error: {error}"));
                        missing = true;
                        continue;
                    }
                    Err(error) => return Err(error.to_string()),
                };
                for one in found {
                    let now = Clock::system().wall();
                    let text = render_description(kind, &one, now, terminal::line_limit())
                        .map_err(|error| format!("rendering {name}: {error}"))?;
                    let gap = if std::mem::take(&mut is_first) { "" } else { "\n\n" };
                    print(&format!("{gap}{text}"))?;
                }
            }
        }
        Ok(if missing { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

/// The names of standard input, one a line, as `get -o name` prints them.
fn listed(names: &[String]) -> Result<Vec<(String, Vec<String>)>, String> {
    if !names.is_empty() {
        return Err("names are read from standard input: give none beside `-`".to_owned());
    }
    let mut found = Vec::new();
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|error| format!("reading standard input: {error}"))?;
        let name = line.trim();
        if name.is_empty() {
            continue;
        }
        if !name.contains('/') {
            return Err(format!(
                "standard input: found {name:?}, expected KIND/NAME, as `get -o name` prints"
            ));
        }
        if found.len() == MAX_NAMES {
            return Err(format!("standard input: more than {MAX_NAMES} names"));
        }
        found.push((name.to_owned(), Vec::new()));
    }
    Ok(found)
}

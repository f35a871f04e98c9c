//! `ecs-mesh-operator changes`: the history, from a running operator or from its log.

use std::fs::File;
use std::io::{self, BufWriter, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::Value;

use super::api_client_args::{ApiClientArgs, OutputArgs, notice};
use super::get::{show, time};
use super::terminal::count;
use ecs_mesh_client::Page;
use ecs_mesh_client::change_selector::ChangeSelector;
use ecs_mesh_client::get::GetRequest;
use ecs_mesh_client::log::{LogReader, LogStep, LogSummary};
use ecs_mesh_client::output::printer::ObjectPrinter;
use ecs_mesh_client::resource::ResourceKind;
use ecs_mesh_model::{Glob, Timestamp};

/// Rows that are printed together, so that their columns have one width.
const ROWS: usize = 500;

/// Arguments of `changes`.
#[derive(clap::Args)]
pub(super) struct ChangesArgs {
    /// Read the operator's log instead of a running operator: files, or `-` for standard input
    #[arg(long, value_name = "FILE", num_args = 1.., value_delimiter = ',', conflicts_with = "watch")]
    audit_log: Vec<PathBuf>,

    /// First time: a duration ago, or a time in UTC such as `2026-11-29T22:00`
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,

    /// Time before which changes are shown, in the same form
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Timestamp>,

    /// Service in the mesh or in ECS, or Workload; `*` and `?` in a log
    #[arg(long)]
    service: Option<String>,

    /// Task: id or ARN; in a log also the beginning of an id
    #[arg(long)]
    task: Option<String>,

    /// Kind of change, such as `drain`, or of changed object, such as `data_plane_token`
    #[arg(long)]
    kind: Option<String>,

    /// Also show warnings about tasks; of a running operator also their ends
    #[arg(long, conflicts_with = "watch")]
    warnings: bool,

    /// After the history, print each change until interrupted
    #[arg(short, long)]
    watch: bool,

    #[command(flatten)]
    output: OutputArgs,

    #[command(flatten)]
    api: ApiClientArgs,
}

impl ChangesArgs {
    pub(super) async fn run(self) -> Result<ExitCode, String> {
        let selector = ChangeSelector {
            since: self.since,
            until: self.until,
            services: self.service.iter().map(Glob::new).collect(),
            tasks: self.task.iter().cloned().collect(),
            binding: None,
            kinds: self.kind.iter().cloned().collect(),
            search: None,
        };
        if !self.audit_log.is_empty() {
            let (log, output, warnings) = (self.audit_log, self.output, self.warnings);
            // Standard input may be a log that goes on.
            let read = tokio::task::spawn_blocking(move || read_logs(&log, &selector, warnings, &output));
            return read.await.map_err(|error| format!("reading the log: {error}"))?;
        }
        let time = |at: Option<Timestamp>| at.map(|at| at.to_string());
        let query = [
            ("since", time(self.since)),
            ("until", time(self.until)),
            ("service", self.service),
            ("task", self.task),
            ("kind", self.kind),
            ("warnings", self.warnings.then(|| "true".to_owned())),
        ];
        let query = query.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
        let kind = ResourceKind::Changes;
        let request = GetRequest { kind, names: Vec::new(), query, selector, sort_by: None };
        show(self.api, &request, &self.output, self.watch).await
    }
}

/// Prints the changes of logs, one after the other.
fn read_logs(
    logs: &[PathBuf],
    selector: &ChangeSelector,
    with_warnings: bool,
    output: &OutputArgs,
) -> Result<ExitCode, String> {
    let mut printer = output.printer(ResourceKind::Changes);
    let mut shown = 0;
    for log in logs {
        let input: Box<dyn Read> = if is_stdin(log) {
            Box::new(io::stdin().lock())
        } else {
            Box::new(File::open(log).map_err(|error| format!("opening {}: {error}", log.display()))?)
        };
        let mut reader = LogReader::new(input, selector.clone(), with_warnings);
        match print_log(&mut reader, &mut printer) {
            Ok(count) => shown += count,
            Err(LogError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                return Ok(ExitCode::SUCCESS);
            }
            Err(LogError::Output(error)) => return Err(format!("writing standard output: {error}")),
            Err(LogError::Input(error)) => return Err(format!("reading {}: {error}", log.display())),
        }
        report(log, reader.summary());
    }
    printer.finish().map_err(|error| format!("writing standard output: {error}"))?;
    if shown == 0 && output.is_silent_when_empty() {
        notice("No resources found.");
    }
    Ok(ExitCode::SUCCESS)
}

fn is_stdin(log: &Path) -> bool {
    log.as_os_str() == "-"
}

enum LogError {
    Input(io::Error),
    Output(io::Error),
}

/// Prints the changes of a log, and their number. Rows are printed before the log is waited for.
fn print_log(
    reader: &mut LogReader<Box<dyn Read>>,
    printer: &mut ObjectPrinter<BufWriter<io::Stdout>>,
) -> Result<usize, LogError> {
    let mut shown = 0;
    let mut rows: Vec<Value> = Vec::new();
    // An empty page begins the list of an empty result.
    let mut print = |rows: &mut Vec<Value>| {
        shown += rows.len();
        let page = Page {
            api_version: "ecs-mesh.dev/v1".to_owned(),
            kind: "ChangeList".to_owned(),
            items: std::mem::take(rows),
        };
        printer.page(&page).map_err(LogError::Output)
    };
    loop {
        match reader.next_step().map_err(LogError::Input)? {
            LogStep::Change(change) => rows.push(change),
            LogStep::Idle => print(&mut rows)?,
            LogStep::End => break,
        }
        if rows.len() == ROWS {
            print(&mut rows)?;
        }
    }
    print(&mut rows)?;
    Ok(shown)
}

/// Names the lines that could not be read.
fn report(log: &Path, summary: LogSummary) {
    if let Some(first) = summary.first_malformed {
        let lines = count(usize::try_from(summary.malformed).unwrap_or(usize::MAX), "line");
        let (log, total) = (log.display(), summary.lines);
        notice(&format!(
            "{log}: {lines} of {total} skipped: neither JSON nor logfmt, or cut off; the first is {first}"
        ));
    }
}

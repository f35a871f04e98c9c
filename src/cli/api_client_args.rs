//! Where a running operator is read, and how what it answers is printed.

use std::io::{self, BufWriter, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use super::duration;
use super::terminal;
use ecs_mesh_client::http::{ApiClient, ApiClientSettings};
use ecs_mesh_client::output::printer::{ObjectFormat, ObjectPrinter};
use ecs_mesh_client::resource::ResourceKind;
use ecs_mesh_client::{ApiAddress, ApiError};
use ecs_mesh_clock::Clock;

/// Arguments of commands that read a running operator.
#[derive(clap::Args, Clone)]
pub(super) struct ApiClientArgs {
    /// Address of the operator's read API: a URL or HOST:PORT
    #[arg(
        long,
        env = "ECS_MESH_API_ADDRESS",
        default_value = "http://127.0.0.1:9103",
        value_name = "ADDRESS"
    )]
    api_address: ApiAddress,

    /// File with the bearer token of the read API; read for each call
    #[arg(long, env = "ECS_MESH_API_TOKEN_FILE", value_name = "FILE")]
    api_token_file: Option<PathBuf>,

    /// File with the CA (PEM) of the read API's certificate [default: the system's]
    #[arg(long, env = "ECS_MESH_API_CA_FILE", value_name = "FILE")]
    api_ca_file: Option<PathBuf>,

    /// Time limit of each call of the read API
    #[arg(long, env = "ECS_MESH_API_REQUEST_TIMEOUT", default_value = "30s", value_parser = duration)]
    request_timeout: Duration,
}

impl ApiClientArgs {
    /// The client.
    pub(super) fn client(self) -> Result<ApiClient, ApiError> {
        let client = ApiClient::new(ApiClientSettings {
            address: self.api_address,
            token_file: self.api_token_file,
            ca_file: self.api_ca_file,
            timeout: self.request_timeout,
            seed: fastrand::u64(..),
        })?;
        if client.exposes_token() {
            notice(&format!(
                "warning: the token is sent to {} without encryption; help: serve the API with \
                 --api-tls-cert-file and use its https address",
                client.address(),
            ));
        }
        Ok(client)
    }
}

/// Arguments of commands that print objects.
#[derive(clap::Args)]
pub(super) struct OutputArgs {
    /// Output format: `table`, `wide`, `json`, `yaml` or `name`
    #[arg(short, long, value_enum, default_value = "table")]
    pub(super) output: ListOutput,

    /// Print no column names
    #[arg(long)]
    no_headers: bool,
}

/// A format of lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ListOutput {
    #[value(alias = "text")]
    Table,
    Wide,
    Json,
    Yaml,
    Name,
}

impl OutputArgs {
    /// Prints objects of this kind to standard output.
    pub(super) fn printer(&self, kind: ResourceKind) -> ObjectPrinter<BufWriter<io::Stdout>> {
        let format = match self.output {
            ListOutput::Table => ObjectFormat::Table,
            ListOutput::Wide => ObjectFormat::Wide,
            ListOutput::Json => ObjectFormat::Json,
            ListOutput::Yaml => ObjectFormat::Yaml,
            ListOutput::Name => ObjectFormat::Name,
        };
        let out = BufWriter::new(io::stdout());
        ObjectPrinter::new(kind, format, !self.no_headers, terminal::line_limit(), Clock::system(), out)
    }

    /// Whether an empty result prints nothing.
    pub(super) fn is_silent_when_empty(&self) -> bool {
        !matches!(self.output, ListOutput::Json | ListOutput::Yaml)
    }
}

/// Prints what is no result: to standard error, so that the output stays what a program reads.
pub(super) fn notice(text: &str) {
    // A failure to print cannot be reported.
    let _ = writeln!(io::stderr(), "{text}");
}

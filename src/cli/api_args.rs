//! The flags of the read API.

use std::path::PathBuf;
use std::sync::Arc;

use crate::operator::Operator;
use crate::read_api::{ReadApiOptions, ReadServer, ReadTokenSource};
use crate::telemetry::server::ListenAddress;
use ecs_mesh_controller::Secrets;
use ecs_mesh_model::SecretRef;

/// Arguments that serve the read API.
#[derive(clap::Args)]
#[allow(clippy::struct_field_names)] // the flags' names
pub(super) struct ApiArgs {
    /// Listen address of the read API and its page: IP:PORT, or none; other than loopback needs a token
    #[arg(long, env = "ECS_MESH_API_ADDRESS", default_value = "127.0.0.1:9103")]
    api_address: ListenAddress,

    /// File with the token that readers of the API present; read again when it changes
    #[arg(long, value_name = "FILE", conflicts_with = "api_token_secret")]
    api_token_file: Option<PathBuf>,

    /// Secret with the token that readers of the API present: its ARN, or `ARN:KEY::`
    #[arg(long, value_name = "ARN", value_parser = secret)]
    api_token_secret: Option<SecretRef>,

    /// File with the API's certificate chain in PEM; read again when it changes
    #[arg(long, value_name = "FILE", requires = "api_tls_key_file")]
    api_tls_cert_file: Option<PathBuf>,

    /// File with the private key of that certificate in PEM
    #[arg(long, value_name = "FILE", requires = "api_tls_cert_file")]
    api_tls_key_file: Option<PathBuf>,

    /// Changes and warnings that the API keeps in memory
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    history_entries: u32,
}

fn secret(text: &str) -> Result<SecretRef, String> {
    SecretRef::parse(text).map_err(|error| error.to_string())
}

impl ApiArgs {
    /// Serves the API of this operator, which has not started. `None` where it is turned off.
    pub(super) async fn serve(
        &self,
        operator: &Operator,
        secrets: Arc<dyn Secrets>,
    ) -> Result<Option<ReadServer>, String> {
        let ListenAddress::At(address) = self.api_address else { return Ok(None) };
        let token = match (&self.api_token_file, &self.api_token_secret) {
            (Some(file), _) => Some(ReadTokenSource::File(file.clone())),
            (None, secret) => secret.clone().map(ReadTokenSource::Secret),
        };
        let tls = self.api_tls_cert_file.clone().zip(self.api_tls_key_file.clone());
        let reads = operator.reads(usize::try_from(self.history_entries).unwrap_or(usize::MAX));
        let metrics = operator.metrics().api.clone();
        let options = ReadApiOptions { address, token, tls, metrics };
        let server = ReadServer::start(options, secrets, reads, fastrand::u64(..)).await;
        server.map(Some).map_err(|error| error.to_string())
    }
}

//! Connection settings of a control plane. A connection built from them has a valid address and at most one source for
//! the CA and one for the token.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use reqwest::Url;

use super::client_source::ClientError;
use super::trust::InvalidCa;
use ecs_mesh_api::{AllowList, RefusedSource};
use ecs_mesh_controller::{ProxyVariables, ReadFileError};
use ecs_mesh_model::{SecretRef, TlsServerName};

/// The properties of a product's connections: names for messages, ports and how a token is sent.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// `Kuma`.
    pub name: &'static str,
    /// The manifest's block: `spec.kuma`.
    pub block: &'static str,
    /// The default ports for http and https.
    pub ports: (u16, u16),
    /// The product's name for a token: `a user token`.
    pub token: &'static str,
    /// How the token is sent.
    pub credential: Credential,
    /// The next step if a server requires a client certificate, which is not supported.
    pub client_certificate_help: &'static str,
    /// The maximum number of concurrent calls, which bounds the connections.
    pub max_concurrent_calls: Option<usize>,
}

/// How a token is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// `Authorization: Bearer TOKEN`.
    Bearer,
    /// `X-Consul-Token: TOKEN`.
    ConsulToken,
}

/// The source of a text; at most one field is set.
#[derive(Clone, Debug, Default)]
pub struct TextSources {
    /// A file.
    pub file: Option<PathBuf>,
    /// An environment variable.
    pub env: Option<String>,
    /// A secret, or a key of its JSON text.
    pub secret: Option<SecretRef>,
}

/// The connection to one control plane.
#[derive(Clone, Debug)]
pub struct ConnectionSettings {
    /// The product.
    pub product: Product,
    /// The API's address.
    pub address: String,
    /// The name in the server's certificate, where it is not the address's host.
    pub tls_server_name: Option<TlsServerName>,
    /// PEM text of the CA that signed the server's certificate; without a source the system's roots are trusted.
    pub ca: TextSources,
    /// The token.
    pub token: TextSources,
    /// The files and environment variables that the sources may name.
    pub allowed: AllowList,
    /// The proxy for HTTPS, if any.
    pub proxy: Option<ProxyVariables>,
    /// The time limit of one response.
    pub timeout: Duration,
}

/// Settings without a usable connection. The message names the field at fault and the next step.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The process has no default rustls provider.
    #[error("no TLS provider is installed in this process; help: install rustls' ring provider first")]
    NoTlsProvider,
    /// Two sources for one text.
    #[error("{block} has both {name}{first} and {name}{second}; help: set one of them")]
    TwoSources {
        /// The manifest's block.
        block: &'static str,
        /// The prefix of the fields: `ca`, `token`.
        name: &'static str,
        /// The rest of the first field's name.
        first: &'static str,
        /// The rest of the second field's name.
        second: &'static str,
    },
    /// The address is not a URL.
    #[error("{block}.address {address:?} is not a URL: {source}; help: {rule}")]
    NotUrl {
        /// The manifest's block.
        block: &'static str,
        /// The address.
        address: String,
        /// The allowed forms.
        rule: AddressRule,
        /// The parser's error.
        source: UrlError,
    },
    /// The address contains a user or a password.
    #[error("{block}.address contains a user or password; help: remove it and set tokenFile; {rule}")]
    Credentials {
        /// The manifest's block.
        block: &'static str,
        /// The allowed forms.
        rule: AddressRule,
    },
    /// The address is a URL of another form.
    #[error("{block}.address {address:?} is not a control plane's address; help: {rule}")]
    NotAddress {
        /// The manifest's block.
        block: &'static str,
        /// The address.
        address: String,
        /// The allowed forms.
        rule: AddressRule,
    },
    /// The CA's file cannot be read.
    #[error("{block}.caFile: reading {}: {source}", file.display())]
    CaFile {
        /// The manifest's block.
        block: &'static str,
        /// The file.
        file: PathBuf,
        /// The failed read.
        source: ReadFileError,
    },
    /// Manifests may not name the file or the environment variable.
    #[error("{block}.{name}{kind}: {source}")]
    Refused {
        /// The manifest's block.
        block: &'static str,
        /// The prefix of the field: `ca`, `token`.
        name: &'static str,
        /// The rest of the field's name.
        kind: &'static str,
        /// The rule that refuses it.
        source: RefusedSource,
    },
    /// The CA's environment variable is not set.
    #[error("{block}.caEnv: reading {name}: environment variable not found")]
    CaEnv {
        /// The manifest's block.
        block: &'static str,
        /// The variable.
        name: String,
    },
    /// The CA is not PEM text.
    #[error(transparent)]
    Ca(#[from] InvalidCa),
    /// A TLS server name for an address without TLS.
    #[error(
        "{block}.tlsServerName has no use for an http:// address; help: use https:// (port {tls}), or leave it out"
    )]
    NameWithoutTls {
        /// The manifest's block.
        block: &'static str,
        /// The default port for https.
        tls: u16,
    },
    /// A proxy for an address without TLS.
    #[error(
        "{block}.proxy has no use for an http:// address; help: use https:// (port {tls}), or leave it out"
    )]
    ProxyWithoutTls {
        /// The manifest's block.
        block: &'static str,
        /// The default port for https.
        tls: u16,
    },
    /// A proxy for a connection to another name than the certificate's.
    #[error(
        "{block}.proxy cannot be used with tlsServerName, since the proxy would be asked for that name; help: leave one out, or \
         name the host in NO_PROXY and leave proxy out"
    )]
    ProxyWithServerName {
        /// The manifest's block.
        block: &'static str,
    },
    /// The proxy's URL is not valid.
    #[error("HTTPS_PROXY {address:?} cannot be used: {source}; help: write http://HOST:PORT")]
    Proxy {
        /// The URL without user and password.
        address: String,
        /// The library's error.
        source: ClientError,
    },
    /// A TLS server name that no URL can have.
    #[error(
        "{block}.tlsServerName: {name} cannot be the host of a URL; help: write the name in the certificate"
    )]
    TlsServerName {
        /// The manifest's block.
        block: &'static str,
        /// The name.
        name: TlsServerName,
    },
    /// No client can be built, for example without root certificates.
    #[error("building the client for {base}: {source}; help: set {block}.caFile")]
    Client {
        /// The address.
        base: String,
        /// The manifest's block.
        block: &'static str,
        /// The failed build.
        source: ClientError,
    },
}

/// The error of the URL parser.
type UrlError = <Url as FromStr>::Err;

/// The allowed forms of an address.
#[derive(Clone, Copy, Debug)]
pub struct AddressRule {
    pub(super) plain: u16,
    pub(super) tls: u16,
}

impl fmt::Display for AddressRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plain, tls } = self;
        write!(f, "write http://HOST:{plain} or https://HOST:{tls}, with a path only where a proxy adds one")
    }
}

/// One source, or none.
pub(super) enum TextSource {
    None,
    File(PathBuf),
    Env(String),
    Secret(SecretRef),
}

impl TextSources {
    /// The source that is set. `name` is the prefix of the field: `ca`, `token`. A variable is one of the allowed; a file is
    /// checked when it is read.
    pub(super) fn one(
        &self,
        block: &'static str,
        name: &'static str,
        allowed: &AllowList,
    ) -> Result<TextSource, SettingsError> {
        let given = [
            ("File", self.file.clone().map(TextSource::File)),
            ("Env", self.env.clone().map(TextSource::Env)),
            ("Secret", self.secret.clone().map(TextSource::Secret)),
        ];
        let mut given = given.into_iter().filter_map(|(kind, source)| Some((kind, source?)));
        let Some((first, source)) = given.next() else { return Ok(TextSource::None) };
        if let Some((second, _)) = given.next() {
            return Err(SettingsError::TwoSources { block, name, first, second });
        }
        if let TextSource::Env(variable) = &source {
            let refused = |source| SettingsError::Refused { block, name, kind: "Env", source };
            allowed.check_variable(variable).map_err(refused)?;
        }
        Ok(source)
    }
}

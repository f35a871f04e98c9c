//! Connection settings of a control plane. A connection built from them has a valid address and at most one source for
//! the CA and one for the token.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use reqwest::{Certificate, Url};

use super::failure::innermost_cause;
use ecs_mesh_controller::ReadFileError;
use ecs_mesh_model::SecretRef;

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
    /// PEM text of the CA that signed the server's certificate; without a source the system's roots are trusted.
    pub ca: TextSources,
    /// The token.
    pub token: TextSources,
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
    /// No client can be built, for example without root certificates.
    #[error("building the client for {base}: {}; help: set {block}.caFile", innermost_cause(source))]
    Client {
        /// The address.
        base: String,
        /// The manifest's block.
        block: &'static str,
        /// The failed build.
        source: reqwest::Error,
    },
}

/// The error of the URL parser.
type UrlError = <Url as FromStr>::Err;

/// The allowed forms of an address.
#[derive(Clone, Copy, Debug)]
pub struct AddressRule {
    plain: u16,
    tls: u16,
}

impl fmt::Display for AddressRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plain, tls } = self;
        write!(f, "write http://HOST:{plain} or https://HOST:{tls}, with a path only where a proxy adds one")
    }
}

/// A CA that is not PEM text of certificates.
#[derive(Debug, thiserror::Error)]
pub enum InvalidCa {
    /// The text cannot be parsed.
    #[error("parsing {from}: {}; help: {PEM_HELP}", innermost_cause(source))]
    Unreadable {
        /// The source of the text.
        from: String,
        /// The parser's error.
        source: reqwest::Error,
    },
    /// The text contains no certificate.
    #[error("parsing {from}: no certificate found; help: {PEM_HELP}")]
    Empty {
        /// The source of the text.
        from: String,
    },
}

const PEM_HELP: &str = "use PEM text with -----BEGIN CERTIFICATE----- blocks";

/// One source, or none.
pub(super) enum TextSource {
    None,
    File(PathBuf),
    Env(String),
    Secret(SecretRef),
}

impl TextSources {
    /// The source that is set. `name` is the prefix of the field: `ca`, `token`.
    pub(super) fn one(&self, block: &'static str, name: &'static str) -> Result<TextSource, SettingsError> {
        let given = [
            ("File", self.file.clone().map(TextSource::File)),
            ("Env", self.env.clone().map(TextSource::Env)),
            ("Secret", self.secret.clone().map(TextSource::Secret)),
        ];
        let mut given = given.into_iter().filter_map(|(kind, source)| Some((kind, source?)));
        let Some((first, source)) = given.next() else { return Ok(TextSource::None) };
        match given.next() {
            None => Ok(source),
            Some((second, _)) => Err(SettingsError::TwoSources { block, name, first, second }),
        }
    }
}

impl Product {
    /// Validates the address and removes a trailing slash.
    pub(super) fn base_url(&self, address: &str) -> Result<String, SettingsError> {
        let Self { block, ports: (plain, tls), .. } = *self;
        let rule = AddressRule { plain, tls };
        let url = Url::parse(address).map_err(|source| SettingsError::NotUrl {
            block,
            address: address.to_owned(),
            rule,
            source,
        })?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(SettingsError::Credentials { block, rule });
        }
        let fits = matches!(url.scheme(), "http" | "https") && url.has_host();
        if !fits || url.query().is_some() || url.fragment().is_some() {
            return Err(SettingsError::NotAddress { block, address: address.to_owned(), rule });
        }
        Ok(url.as_str().trim_end_matches('/').to_owned())
    }
}

/// Parses the certificates of a CA's PEM text, which was read from `from`.
pub(super) fn certificates(pem: &[u8], from: &str) -> Result<Vec<Certificate>, InvalidCa> {
    let certificates = Certificate::from_pem_bundle(pem)
        .map_err(|source| InvalidCa::Unreadable { from: from.to_owned(), source })?;
    if certificates.is_empty() {
        return Err(InvalidCa::Empty { from: from.to_owned() });
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KUMA: Product = Product {
        name: "Kuma",
        block: "spec.kuma",
        ports: (5681, 5682),
        token: "a user token",
        credential: Credential::Bearer,
        client_certificate_help: "let it accept user tokens",
        max_concurrent_calls: Some(16),
    };

    #[test]
    fn invalid_address_is_rejected_with_allowed_forms() {
        for bad in ["", "kuma:5681", "ftp://kuma", "http://kuma?x=1", "http://kuma#x", "//kuma"] {
            let error = KUMA.base_url(bad).unwrap_err().to_string();
            assert!(error.contains("http://HOST:5681"), "{error}");
        }
        let error = KUMA.base_url("http://user:hunter2@kuma:5681").unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn settings_error_prints_its_source_once() {
        let error = KUMA.base_url("kuma").unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(error.to_string().matches(&source).count(), 1, "{error}");
    }

    #[test]
    fn address_may_contain_a_proxy_path() {
        assert_eq!(KUMA.base_url("https://proxy.example/kuma/").unwrap(), "https://proxy.example/kuma");
        assert_eq!(KUMA.base_url("http://cp:5681").unwrap(), "http://cp:5681");
    }
}

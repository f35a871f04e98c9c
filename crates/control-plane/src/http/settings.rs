//! Connection settings of a control plane. A connection built from them has a valid address and at most one source for
//! the CA and one for the token.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Certificate, Url};

use super::failure::innermost_cause;

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
    /// The ARN of a secret.
    pub secret: Option<String>,
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

/// One source, or none.
pub(super) enum TextSource {
    None,
    File(PathBuf),
    Env(String),
    Secret(String),
}

impl TextSources {
    /// The source that is set. `name` is the prefix of the field: `ca`, `token`.
    pub(super) fn one(&self, block: &str, name: &str) -> Result<TextSource, String> {
        let given = [
            ("File", self.file.clone().map(TextSource::File)),
            ("Env", self.env.clone().map(TextSource::Env)),
            ("Secret", self.secret.clone().map(TextSource::Secret)),
        ];
        let mut given = given.into_iter().filter_map(|(kind, source)| Some((kind, source?)));
        let Some((first, source)) = given.next() else { return Ok(TextSource::None) };
        match given.next() {
            None => Ok(source),
            Some((second, _)) => {
                Err(format!("{block} has both {name}{first} and {name}{second}; help: set one of them"))
            }
        }
    }
}

impl Product {
    /// Validates the address and removes a trailing slash.
    pub(super) fn base_url(&self, address: &str) -> Result<String, String> {
        let Self { block, ports: (plain, tls), .. } = self;
        let rule = format!(
            "write http://HOST:{plain} or https://HOST:{tls}, with a path only where a proxy adds one"
        );
        let url = Url::parse(address)
            .map_err(|error| format!("{block}.address {address:?} is not a URL: {error}; help: {rule}"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(format!(
                "{block}.address contains a user or password; help: remove it and set tokenFile; {rule}"
            ));
        }
        let fits = matches!(url.scheme(), "http" | "https") && url.has_host();
        if !fits || url.query().is_some() || url.fragment().is_some() {
            return Err(format!(
                "{block}.address {address:?} is not a control plane's address; help: {rule}"
            ));
        }
        Ok(url.as_str().trim_end_matches('/').to_owned())
    }
}

/// Parses the certificates of a CA's PEM text, which was read from `source`.
pub(super) fn certificates(pem: &[u8], source: &str) -> Result<Vec<Certificate>, String> {
    let invalid = |cause: &str| {
        format!("parsing {source}: {cause}; help: use PEM text with -----BEGIN CERTIFICATE----- blocks")
    };
    let certificates =
        Certificate::from_pem_bundle(pem).map_err(|error| invalid(&innermost_cause(&error)))?;
    if certificates.is_empty() {
        return Err(invalid("no certificate found"));
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
            let error = KUMA.base_url(bad).unwrap_err();
            assert!(error.contains("http://HOST:5681"), "{error}");
        }
        let error = KUMA.base_url("http://user:hunter2@kuma:5681").unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn address_may_contain_a_proxy_path() {
        assert_eq!(KUMA.base_url("https://proxy.example/kuma/").unwrap(), "https://proxy.example/kuma");
        assert_eq!(KUMA.base_url("http://cp:5681").unwrap(), "http://cp:5681");
    }
}

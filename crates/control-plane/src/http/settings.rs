//! How a control plane is reached. A connection that is made from these settings has an address that is one, and at
//! most one source for each of CA and token.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Certificate, Url};

use super::failure::causes;

/// What tells one product's connection from another's: names for messages, ports, and how it takes a token.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// `Kuma`.
    pub name: &'static str,
    /// The manifest's block: `spec.kuma`.
    pub block: &'static str,
    /// Its ports for http and https.
    pub ports: (u16, u16),
    /// What it calls a token: `user token`.
    pub token: &'static str,
    /// How the token is sent.
    pub credential: Credential,
    /// What to do where a server wants a client certificate, which is not supported.
    pub instead_of_certificate: &'static str,
    /// Most calls under way at a time, which bounds the connections.
    pub most_calls: Option<usize>,
}

/// How a token is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// `Authorization: Bearer TOKEN`.
    Bearer,
    /// `X-Consul-Token: TOKEN`.
    ConsulToken,
}

/// Where a text comes from; at most one is given.
#[derive(Clone, Debug, Default)]
pub struct TextSources {
    /// A file.
    pub file: Option<PathBuf>,
    /// An environment variable.
    pub env: Option<String>,
    /// The ARN of a secret.
    pub secret: Option<String>,
}

/// How one control plane is reached.
#[derive(Clone, Debug)]
pub struct ConnectionSettings {
    /// Which product it is.
    pub product: Product,
    /// The API's address.
    pub address: String,
    /// PEM text of the CA that signed the server's certificate; without it the system's roots count.
    pub ca: TextSources,
    /// The token.
    pub token: TextSources,
    /// Longest wait for one answer.
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
    /// The one that is given. `name` is the field's beginning: `ca`, `token`.
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
                Err(format!("{block} has both {name}{first} and {name}{second}: give one of them"))
            }
        }
    }
}

impl Product {
    /// The address without a slash at the end.
    pub(super) fn base_url(&self, address: &str) -> Result<String, String> {
        let Self { block, ports: (plain, tls), .. } = self;
        let rule = format!(
            "write http://HOST:{plain} or https://HOST:{tls}, with a path only where a proxy adds one"
        );
        let url = Url::parse(address)
            .map_err(|error| format!("{block}.address {address:?} is not a URL ({error}): {rule}"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(format!(
                "{block}.address holds a user or password: leave it out, and give a token as tokenFile; {rule}"
            ));
        }
        let fits = matches!(url.scheme(), "http" | "https") && url.has_host();
        if !fits || url.query().is_some() || url.fragment().is_some() {
            return Err(format!("{block}.address {address:?} is not a control plane's address: {rule}"));
        }
        Ok(url.as_str().trim_end_matches('/').to_owned())
    }
}

/// The certificates of a CA's PEM text, which came from `source`.
pub(super) fn certificates(pem: &[u8], source: &str) -> Result<Vec<Certificate>, String> {
    let refused = |why: &str| {
        format!("{source} is not usable ({why}): it must be PEM text with -----BEGIN CERTIFICATE----- blocks")
    };
    let certificates = Certificate::from_pem_bundle(pem).map_err(|error| refused(&causes(&error)))?;
    if certificates.is_empty() {
        return Err(refused("it holds no certificate"));
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
        instead_of_certificate: "let it accept user tokens",
        most_calls: Some(16),
    };

    #[test]
    fn an_address_is_refused_with_what_is_allowed() {
        for bad in ["", "kuma:5681", "ftp://kuma", "http://kuma?x=1", "http://kuma#x", "//kuma"] {
            let error = KUMA.base_url(bad).unwrap_err();
            assert!(error.contains("http://HOST:5681"), "{error}");
        }
        let error = KUMA.base_url("http://user:hunter2@kuma:5681").unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn an_address_may_carry_a_proxys_path() {
        assert_eq!(KUMA.base_url("https://proxy.example/kuma/").unwrap(), "https://proxy.example/kuma");
        assert_eq!(KUMA.base_url("http://cp:5681").unwrap(), "http://cp:5681");
    }
}

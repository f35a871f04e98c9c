//! The address of a control plane, and how a call reaches it when the server's certificate has another name.
//!
//! A TLS client sends and checks the name of the host that it calls. Where the certificate's name is another one
//! (`tlsServerName`), requests are made for that name, while connections still go to the address's host and the `Host`
//! header still names it. TLS sends no IP address as SNI, so an address as the name changes the check alone.

use std::net::SocketAddr;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::HeaderValue;
use reqwest::{NoProxy, Proxy, Url};
use rustls::pki_types::ServerName;

use super::client_source::ClientError;
use super::settings::{AddressRule, Product, SettingsError};
use ecs_mesh_controller::ProxyVariables;
use ecs_mesh_model::TlsServerName;

/// The validated address of a control plane.
pub(super) struct Endpoint {
    /// The address without a trailing slash, for messages.
    pub(super) base: String,
    /// The name in the server's certificate, where it is not the address's host.
    pub(super) server_name: Option<ServerName<'static>>,
    /// Where requests are not made for the address's host.
    renamed: Option<RenamedHost>,
}

/// A host under another name.
struct RenamedHost {
    /// As `base`, with the other name.
    base: String,
    /// The address's host and port.
    header: HeaderValue,
    /// The address's host.
    resolver: Arc<FixedHost>,
}

impl Endpoint {
    /// Validates the address and the TLS server name.
    pub(super) fn new(
        product: &Product,
        address: &str,
        tls_server_name: Option<TlsServerName>,
    ) -> Result<Self, SettingsError> {
        let Product { block, ports: (plain, tls), .. } = *product;
        let rule = AddressRule { plain, tls };
        let not_address = || SettingsError::NotAddress { block, address: address.to_owned(), rule };
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
            return Err(not_address());
        }
        let base = trimmed(&url);
        let Some(name) = tls_server_name else {
            return Ok(Self { base, server_name: None, renamed: None });
        };
        if url.scheme() != "https" {
            return Err(SettingsError::NameWithoutTls { block, tls });
        }
        let named = match name.ip() {
            Some(address) => Some((ServerName::from(address), None)),
            None => dns_name(&url, &name).map(|(name, renamed)| (name, Some(renamed))),
        };
        let (name, renamed) = named.ok_or(SettingsError::TlsServerName { block, name })?;
        Ok(Self { base, server_name: Some(name), renamed })
    }

    pub(super) fn is_secure(&self) -> bool {
        self.base.starts_with("https://")
    }

    /// The URL of a request.
    pub(super) fn url(&self, path_and_query: &str) -> String {
        let base = self.renamed.as_ref().map_or(&self.base, |renamed| &renamed.base);
        format!("{base}{path_and_query}")
    }

    /// The `Host` header where the URL does not have the address's host.
    pub(super) fn host_header(&self) -> Option<&HeaderValue> {
        self.renamed.as_ref().map(|renamed| &renamed.header)
    }

    /// The proxy for calls to this address.
    pub(super) fn proxy(&self, product: &Product, proxy: &ProxyVariables) -> Result<Proxy, SettingsError> {
        let Product { block, ports: (_, tls), .. } = *product;
        if !self.is_secure() {
            return Err(SettingsError::ProxyWithoutTls { block, tls });
        }
        if self.renamed.is_some() {
            return Err(SettingsError::ProxyWithServerName { block });
        }
        let invalid =
            |source| SettingsError::Proxy { address: proxy.address(), source: ClientError::Http(source) };
        let https = Proxy::https(proxy.https.as_str()).map_err(invalid)?;
        Ok(https.no_proxy(NoProxy::from_string(&proxy.no_proxy)))
    }

    /// The resolver to use where the URL does not have the address's host.
    pub(super) fn resolver(&self) -> Option<Arc<FixedHost>> {
        self.renamed.as_ref().map(|renamed| Arc::clone(&renamed.resolver))
    }
}

/// The address under this name; `None` if a URL or a certificate cannot have it.
fn dns_name(url: &Url, name: &TlsServerName) -> Option<(ServerName<'static>, RenamedHost)> {
    let host = url.host_str()?;
    let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let mut renamed = url.clone();
    renamed.set_host(Some(name.as_str())).ok()?;
    let renamed = RenamedHost {
        base: trimmed(&renamed),
        header: HeaderValue::try_from(authority).ok()?,
        resolver: Arc::new(FixedHost(host.trim_matches(['[', ']']).into())),
    };
    Some((ServerName::try_from(name.as_str().to_owned()).ok()?, renamed))
}

fn trimmed(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

/// Resolves one host, whatever name is asked for.
pub(super) struct FixedHost(Arc<str>);

impl Resolve for FixedHost {
    fn resolve(&self, _: Name) -> Resolving {
        let host = Arc::clone(&self.0);
        Box::pin(async move {
            // The caller replaces the port.
            let found: Vec<SocketAddr> = tokio::net::lookup_host((&*host, 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::Credential;
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

    fn endpoint(address: &str, name: Option<&str>) -> Result<Endpoint, SettingsError> {
        Endpoint::new(&KUMA, address, name.map(|name| TlsServerName::parse(name).unwrap()))
    }

    #[test]
    fn invalid_address_is_rejected_with_allowed_forms() {
        for bad in ["", "kuma:5681", "ftp://kuma", "http://kuma?x=1", "http://kuma#x", "//kuma"] {
            let error = endpoint(bad, None).err().unwrap().to_string();
            assert!(error.contains("http://HOST:5681"), "{error}");
        }
        let error = endpoint("http://user:hunter2@kuma:5681", None).err().unwrap().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn settings_error_prints_its_source_once() {
        let error = endpoint("kuma", None).err().unwrap();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(error.to_string().matches(&source).count(), 1, "{error}");
    }

    #[test]
    fn address_may_contain_a_proxy_path() {
        let of_proxy = endpoint("https://proxy.example/kuma/", None).unwrap();
        assert_eq!(of_proxy.url("/meshes"), "https://proxy.example/kuma/meshes");
        assert_eq!(of_proxy.host_header(), None);
        assert_eq!(endpoint("http://cp:5681", None).unwrap().url("/"), "http://cp:5681/");
    }

    #[test]
    fn request_is_made_for_the_tls_server_name() {
        for (address, url, host) in [
            ("https://10.0.0.7:5682", "https://cp.internal:5682/x", "10.0.0.7:5682"),
            ("https://[fd00::7]:5682/kuma/", "https://cp.internal:5682/kuma/x", "[fd00::7]:5682"),
            ("https://proxy.example", "https://cp.internal/x", "proxy.example"),
        ] {
            let named = endpoint(address, Some("cp.internal")).unwrap();
            assert_eq!(named.url("/x"), url);
            assert_eq!(named.host_header().unwrap(), host);
        }
        let of_address = endpoint("https://cp:5682", Some("10.0.0.7")).unwrap();
        assert_eq!((of_address.url("/"), of_address.host_header()), ("https://cp:5682/".to_owned(), None));
    }

    #[test]
    fn tls_server_name_is_refused_without_tls() {
        for name in ["cp.internal", "10.0.0.7"] {
            let error = endpoint("http://cp:5681", Some(name)).err().unwrap();
            assert!(matches!(error, SettingsError::NameWithoutTls { tls: 5682, .. }), "{error}");
        }
        // A URL's host is decoded, which this name does not allow.
        let error = endpoint("https://cp:5682", Some("xn--a.internal")).err().unwrap();
        assert!(matches!(error, SettingsError::TlsServerName { .. }), "{error}");
    }
}

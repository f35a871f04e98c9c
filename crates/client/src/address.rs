//! The address of a read API.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use url::Url;

/// The port that an operator's read API has unless it is configured.
const DEFAULT_PORT: u16 = 9103;

/// Where an operator serves its read API: a URL, or the listen address that the operator itself has as `--api-address`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiAddress {
    /// `http://HOST:PORT` or `https://HOST:PORT`.
    Url(Url),
    /// `HOST:PORT`, by HTTPS where a CA is given.
    HostPort(String),
    /// `none`.
    Disabled,
}

impl ApiAddress {
    /// The URL below which the API is; `None` without an API.
    pub(crate) fn base(&self, has_ca: bool) -> Option<Result<Url, String>> {
        match self {
            Self::Url(url) => Some(Ok(url.clone())),
            Self::HostPort(address) => {
                let scheme = if has_ca { "https" } else { "http" };
                Some(Url::parse(&format!("{scheme}://{address}/")).map_err(|error| error.to_string()))
            }
            Self::Disabled => None,
        }
    }
}

impl FromStr for ApiAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = |cause: &str| {
            format!(
                "{text:?} is not the address of an API: {cause}; use a URL such as http://127.0.0.1:9103, or HOST:PORT"
            )
        };
        if matches!(text, "none" | "off") {
            return Ok(Self::Disabled);
        }
        if text.contains("://") {
            let url = Url::parse(text).map_err(|error| invalid(&error.to_string()))?;
            if !matches!(url.scheme(), "http" | "https") {
                return Err(invalid("its scheme is neither http nor https"));
            }
            if !url.username().is_empty() || url.password().is_some() {
                return Err(
                    "an address of an API has no user and no password; give --api-token-file".to_owned()
                );
            }
            if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
                return Err(invalid("it has a path"));
            }
            return Ok(Self::Url(url));
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self::HostPort(reachable(address).to_string()));
        }
        let with_port = if text.contains(':') { text.to_owned() } else { format!("{text}:{DEFAULT_PORT}") };
        let url = Url::parse(&format!("http://{with_port}/")).map_err(|error| invalid(&error.to_string()))?;
        if url.host_str().is_none() || url.path() != "/" || url.query().is_some() || url.username() != "" {
            return Err(invalid("it is no HOST:PORT"));
        }
        Ok(Self::HostPort(with_port))
    }
}

/// An operator that listens everywhere is reached on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_a_url_or_the_listen_address_of_the_operator() {
        for (text, has_ca, expected) in [
            ("http://127.0.0.1:9103", false, "http://127.0.0.1:9103/"),
            ("https://mesh.internal", true, "https://mesh.internal/"),
            ("127.0.0.1:9103", false, "http://127.0.0.1:9103/"),
            ("0.0.0.0:9103", false, "http://127.0.0.1:9103/"),
            ("[::]:9103", false, "http://[::1]:9103/"),
            ("mesh.internal:9000", true, "https://mesh.internal:9000/"),
            ("mesh.internal", false, "http://mesh.internal:9103/"),
        ] {
            let address: ApiAddress = text.parse().unwrap();
            assert_eq!(address.base(has_ca).unwrap().unwrap().as_str(), expected, "{text}");
        }
        assert_eq!("none".parse(), Ok(ApiAddress::Disabled));
    }

    #[test]
    fn address_without_a_host_or_with_a_secret_is_an_error() {
        for text in [
            "",
            "ftp://a",
            "http://",
            "http://a/path",
            "http://user:secret@a",
            "a b:1",
            "a:port",
            "http://a?token=x",
        ] {
            let error = text.parse::<ApiAddress>().unwrap_err();
            assert!(!error.contains("user:secret"), "{error}");
        }
    }
}

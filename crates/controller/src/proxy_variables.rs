//! The proxy that the environment names: `HTTPS_PROXY`, `NO_PROXY` and their forms in lower case.

use std::fmt;

/// Hosts that are never reached through a proxy: the endpoints of instance and task credentials, and this host.
///
/// Sources: <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html>,
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-iam-roles.html>.
const ALWAYS_DIRECT: &str =
    "169.254.169.254,169.254.170.2,169.254.170.23,fd00:ec2::254,fd00:ec2::23,localhost,127.0.0.0/8,::1";

/// The proxy for HTTPS, and the hosts that are reached without it. `Debug` shows no password.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyVariables {
    /// The proxy's URL, possibly with user and password.
    pub https: String,
    /// Hosts without a proxy, separated by commas.
    pub no_proxy: String,
}

impl ProxyVariables {
    /// The proxy of the process's environment; `None` where none is set.
    pub fn from_environment() -> Option<Self> {
        Self::read(|name| std::env::var(name).ok())
    }

    /// The proxy that these variables name: `HTTPS_PROXY`, or `ALL_PROXY`. A name in upper case wins.
    ///
    /// ```
    /// use ecs_mesh_controller::ProxyVariables;
    ///
    /// let of = |name: &str| (name == "https_proxy").then(|| "proxy.internal:3128".to_owned());
    /// let proxy = ProxyVariables::read(of).unwrap();
    /// assert_eq!(proxy.https, "http://proxy.internal:3128");
    /// assert!(proxy.no_proxy.contains("169.254.170.2"), "credentials are local");
    /// ```
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let first = |name: &str| {
            let found = variable(name).or_else(|| variable(&name.to_lowercase()));
            found.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
        };
        let https = first("HTTPS_PROXY").or_else(|| first("ALL_PROXY"))?;
        let https = if https.contains("://") { https } else { format!("http://{https}") };
        let no_proxy = first("NO_PROXY").map_or_else(String::new, |hosts| format!("{hosts},"));
        Some(Self { https, no_proxy: no_proxy + ALWAYS_DIRECT })
    }

    /// The proxy's URL without user and password, for messages.
    pub fn address(&self) -> String {
        match (self.https.split_once("://"), self.https.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
            _ => self.https.clone(),
        }
    }
}

impl fmt::Debug for ProxyVariables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyVariables")
            .field("https", &self.address())
            .field("no_proxy", &self.no_proxy)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Option<ProxyVariables> {
        ProxyVariables::read(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn proxy_is_read_from_either_case() {
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[("HTTPS_PROXY", "")]), None);
        assert_eq!(read(&[("HTTP_PROXY", "http://p:1")]), None, "it is for plain HTTP");
        let upper = read(&[("HTTPS_PROXY", "http://a:1"), ("https_proxy", "http://b:1")]).unwrap();
        assert_eq!(upper.https, "http://a:1");
        assert_eq!(read(&[("all_proxy", "http://c:1")]).unwrap().https, "http://c:1");
        let hosts = read(&[("HTTPS_PROXY", "p:1"), ("NO_PROXY", ".internal")]).unwrap().no_proxy;
        assert!(hosts.starts_with(".internal,169.254.169.254,"), "{hosts}");
    }

    #[test]
    fn proxy_password_is_never_shown() {
        let proxy = read(&[("HTTPS_PROXY", "http://user:hunter2@proxy:3128")]).unwrap();
        assert_eq!(proxy.address(), "http://proxy:3128");
        assert!(!format!("{proxy:?}").contains("hunter2"));
    }
}

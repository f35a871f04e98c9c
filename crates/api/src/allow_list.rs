//! The environment variables and directories that manifests may name.
//!
//! A manifest also names the address to which its token is sent, so without a limit its author could send any variable and
//! any one-line file of the operator anywhere.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use ecs_mesh_model::Glob;

/// The environment variables and directories that `caEnv`, `tokenEnv`, `caFile` and `tokenFile` may name.
///
/// A reader of a file checks where the file is, too, once links are resolved ([`Self::check_location`]).
///
/// ```
/// use ecs_mesh_api::AllowList;
///
/// let allowed = AllowList::default();
/// assert!(allowed.check_variable("KUMA_TOKEN").is_ok());
/// assert!(allowed.check_variable("AWS_SECRET_ACCESS_KEY").is_err());
/// assert!(allowed.check_path("/run/secrets/kuma-token".as_ref()).is_ok());
/// assert!(allowed.check_path("/run/secrets/../../etc/shadow".as_ref()).is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowList {
    variables: Arc<[Glob]>,
    directories: Arc<[PathBuf]>,
}

impl Default for AllowList {
    fn default() -> Self {
        Self::new(Self::DEFAULT_VARIABLES, Self::DEFAULT_DIRECTORIES)
    }
}

/// A source that manifests may not name. Contains no value of a variable and no content of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefusedSource {
    /// A variable that no pattern matches.
    Variable {
        /// The name, where it looks like one.
        name: String,
        /// The patterns.
        allowed: String,
    },
    /// A variable with credentials of AWS or ECS, which no pattern allows.
    Credentials {
        /// The name.
        name: String,
    },
    /// A file outside the directories.
    Path {
        /// The path in the manifest.
        path: PathBuf,
        /// The directories.
        allowed: String,
    },
    /// A directory with tokens of Kubernetes or EKS, which no directory allows.
    WorkloadToken {
        /// The path in the manifest.
        path: PathBuf,
    },
}

impl fmt::Display for RefusedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable { name, allowed } => write!(
                f,
                "{name} is no variable that manifests may name (allowed: {allowed}); help: rename it, or allow it with \
                 --allow-env"
            ),
            Self::Credentials { name } => write!(
                f,
                "{name} has credentials of AWS or ECS, which are never sent to a control plane (not allowed: {}); help: \
                 use a variable of its own",
                AllowList::NEVER_VARIABLES.join(", ")
            ),
            Self::Path { path, allowed } => write!(
                f,
                "{} is, or leads, outside the directories that manifests may name (allowed: {allowed}); help: move the \
                 file, or allow its directory with --allow-dir",
                path.display()
            ),
            Self::WorkloadToken { path } => write!(
                f,
                "{} is, or leads to, a token of Kubernetes or EKS, which is never sent to a control plane (not allowed: \
                 directories named *{}); help: use a file of its own",
                path.display(),
                AllowList::NEVER_DIRECTORIES.join(", *")
            ),
        }
    }
}

impl std::error::Error for RefusedSource {}

impl AllowList {
    /// The variables that are allowed by default: those that Kuma, Kong Mesh, Consul and this operator have named.
    pub const DEFAULT_VARIABLES: [&str; 4] = ["CONSUL_*", "ECS_MESH_*", "KONG_MESH_*", "KUMA_*"];

    /// The directories that are allowed by default: those for configuration and secrets of a container.
    pub const DEFAULT_DIRECTORIES: [&str; 4] =
        ["/etc/ecs-mesh", "/etc/mesh", "/run/secrets", "/var/run/secrets"];

    /// Variables that no pattern allows: the SDK and ECS's agent read credentials from them.
    pub const NEVER_VARIABLES: [&str; 2] = ["AWS_*", "ECS_CONTAINER_*"];

    /// Ends of directory names that are never allowed: Kubernetes and EKS mount tokens below `/var/run/secrets` in
    /// directories that are named for their domains.
    ///
    /// Source: <https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/> and
    /// <https://docs.aws.amazon.com/eks/latest/userguide/pod-configuration.html>.
    pub const NEVER_DIRECTORIES: [&str; 2] = ["kubernetes.io", "eks.amazonaws.com"];

    /// A list of patterns of variables and of directories, each with everything below it.
    pub fn new(
        variables: impl IntoIterator<Item = impl Into<String>>,
        directories: impl IntoIterator<Item = impl Into<PathBuf>>,
    ) -> Self {
        Self {
            variables: variables.into_iter().map(Glob::new).collect(),
            directories: directories.into_iter().map(Into::into).collect(),
        }
    }

    /// The directories.
    pub fn directories(&self) -> &[PathBuf] {
        &self.directories
    }

    /// Checks the name of a variable.
    pub fn check_variable(&self, name: &str) -> Result<(), RefusedSource> {
        if Self::NEVER_VARIABLES.iter().any(|never| Glob::new(*never).matches(&name.to_ascii_uppercase())) {
            return Err(RefusedSource::Credentials { name: name.to_owned() });
        }
        if self.variables.iter().any(|allowed| allowed.matches(name)) {
            return Ok(());
        }
        // A manifest may have the token itself in place of a name.
        let is_name = name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
        let name = if is_name && name.len() <= 64 { name } else { "the given name" };
        let allowed = self.variables.iter().map(Glob::as_str).collect::<Vec<_>>().join(", ");
        Err(RefusedSource::Variable { name: name.to_owned(), allowed })
    }

    /// Checks a path as it is written, without the file system: `.` and `..` are resolved, links are not.
    pub fn check_path(&self, path: &Path) -> Result<(), RefusedSource> {
        self.check_location(path, &normalised(path), &self.directories)
    }

    /// Checks a file that a manifest calls `path`, and that is at `location`. The directories of the list are at
    /// `directories`. Both are paths without links.
    pub fn check_location(
        &self,
        path: &Path,
        location: &Path,
        directories: &[PathBuf],
    ) -> Result<(), RefusedSource> {
        let is_token = location.components().any(|part| {
            let Component::Normal(name) = part else { return false };
            Self::NEVER_DIRECTORIES.iter().any(|never| name.to_string_lossy().ends_with(never))
        });
        if is_token {
            return Err(RefusedSource::WorkloadToken { path: path.to_owned() });
        }
        if directories.iter().any(|directory| location.starts_with(directory)) {
            return Ok(());
        }
        let allowed = self.directories.iter().map(|directory| directory.display().to_string());
        let allowed = allowed.collect::<Vec<_>>().join(", ");
        Err(RefusedSource::Path { path: path.to_owned(), allowed })
    }
}

/// The path without `.` and `..`.
fn normalised(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everything() -> AllowList {
        AllowList::new(["*"], ["/"])
    }

    #[test]
    fn variables_need_a_pattern_and_credentials_have_none() {
        let default = AllowList::default();
        for (name, by_default, by_all) in [
            ("KUMA_TOKEN", true, true),
            ("KONG_MESH_TOKEN", true, true),
            ("CONSUL_HTTP_TOKEN", true, true),
            ("ECS_MESH_TOKEN", true, true),
            ("TOKEN", false, true),
            ("MY_KUMA_TOKEN", false, true),
            ("AWS_SECRET_ACCESS_KEY", false, false),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN", false, false),
            ("aws_secret_access_key", false, false),
            ("ECS_CONTAINER_METADATA_URI_V4", false, false),
        ] {
            assert_eq!(default.check_variable(name).is_ok(), by_default, "{name}");
            assert_eq!(everything().check_variable(name).is_ok(), by_all, "{name}");
        }
    }

    #[test]
    fn refusal_names_what_is_allowed_and_no_token() {
        let refused = AllowList::default().check_variable("TOKEN").unwrap_err().to_string();
        for part in ["TOKEN", "CONSUL_*, ECS_MESH_*, KONG_MESH_*, KUMA_*", "--allow-env"] {
            assert!(refused.contains(part), "{refused}");
        }
        let refused = AllowList::default().check_variable("hunter2hunter2").unwrap_err().to_string();
        assert!(!refused.contains("hunter2"), "{refused}");
        let refused = AllowList::default().check_path("/etc/shadow".as_ref()).unwrap_err().to_string();
        for part in ["/etc/shadow", "/etc/mesh", "--allow-dir"] {
            assert!(refused.contains(part), "{refused}");
        }
    }

    #[test]
    fn paths_are_compared_without_dots_and_by_whole_names() {
        for (path, allowed) in [
            ("/etc/mesh/ca.pem", true),
            ("/etc/mesh/./a/../ca.pem", true),
            ("/run/secrets/token", true),
            ("/etc/mesh/../shadow", false),
            ("/etc/meshes/ca.pem", false),
            ("/etc/mesh", true),
            ("etc/mesh/ca.pem", false),
            ("../etc/mesh/ca.pem", false),
            ("/../etc/mesh/ca.pem", true),
            ("", false),
        ] {
            assert_eq!(AllowList::default().check_path(path.as_ref()).is_ok(), allowed, "{path}");
        }
    }

    #[test]
    fn workload_tokens_are_in_no_allowed_directory() {
        for path in [
            "/var/run/secrets/kubernetes.io/serviceaccount/token",
            "/var/run/secrets/eks.amazonaws.com/serviceaccount/token",
            "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount/eks-pod-identity-token",
        ] {
            for list in [AllowList::default(), everything()] {
                let refused = list.check_path(path.as_ref());
                assert!(matches!(refused, Err(RefusedSource::WorkloadToken { .. })), "{refused:?}");
            }
        }
    }
}

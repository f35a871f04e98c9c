//! The sources that a command line names: files and directories, prefixes of S3, paths of SSM Parameter Store.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::file_text::is_manifest;

/// A source of manifests, as written on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestSource {
    /// A file, or a directory whose files are read.
    Path(PathBuf),
    /// The objects of a bucket below a prefix, or one object.
    S3(S3Location),
    /// The parameters below a path of SSM Parameter Store: `/mesh/prod`, without a slash at the end.
    Ssm(String),
}

/// A place in S3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Location {
    /// The bucket.
    pub bucket: String,
    /// The prefix, with a slash at the end; empty for the whole bucket; or the key of one object.
    pub prefix: String,
}

/// Why the name of a source is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not a source of manifests: {reason}")]
pub struct ManifestSourceError {
    found: String,
    reason: &'static str,
}

impl ManifestSource {
    /// Whether reading the source calls AWS.
    pub fn is_remote(&self) -> bool {
        !matches!(self, Self::Path(_))
    }

    /// Whether the object of this key, or the parameter of this name, is a manifest. Every parameter below a path is one:
    /// their names need no extension.
    pub(super) fn has_manifest(&self, key: &str) -> bool {
        match self {
            Self::S3(S3Location { prefix, .. }) if is_object(prefix) => key == prefix,
            Self::Path(_) | Self::S3(_) => !key.ends_with('/') && is_manifest(Path::new(key)),
            Self::Ssm(_) => true,
        }
    }

    /// The name of an entry in findings.
    pub(super) fn entry_path(&self, key: &str) -> PathBuf {
        match self {
            Self::Path(path) => path.join(key),
            Self::S3(S3Location { bucket, .. }) => format!("s3://{bucket}/{key}").into(),
            Self::Ssm(_) => format!("ssm:{key}").into(),
        }
    }
}

/// Whether the prefix is the key of one manifest.
fn is_object(prefix: &str) -> bool {
    !prefix.is_empty() && !prefix.ends_with('/')
}

impl fmt::Display for ManifestSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::S3(S3Location { bucket, prefix }) => write!(f, "s3://{bucket}/{prefix}"),
            Self::Ssm(path) => write!(f, "ssm:{path}/"),
        }
    }
}

impl FromStr for ManifestSource {
    type Err = ManifestSourceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |reason| ManifestSourceError { found: text.chars().take(200).collect(), reason };
        if let Some(rest) = text.strip_prefix("s3://") {
            return s3_location(rest).map(Self::S3).map_err(error);
        }
        if let Some(path) = text.strip_prefix("ssm:") {
            return ssm_path(path).map(Self::Ssm).map_err(error);
        }
        if text.is_empty() {
            return Err(error("write a path, s3://BUCKET/PREFIX/ or ssm:/PATH/"));
        }
        Ok(Self::Path(text.into()))
    }
}

/// Source: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>.
fn s3_location(rest: &str) -> Result<S3Location, &'static str> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.starts_with("arn:") {
        return Err("write the alias of an access point instead of its ARN: s3://ALIAS/PREFIX/");
    }
    let is_allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(is_allowed) {
        return Err(
            "a bucket's name has 3 to 63 lower-case letters, digits, hyphens and dots: s3://BUCKET/PREFIX/",
        );
    }
    if prefix.starts_with('/') {
        return Err("the prefix starts with a slash, which no key does");
    }
    if is_object(prefix) && !is_manifest(Path::new(prefix)) {
        return Err("end the prefix with a slash, so that prod/ does not include prod-old/");
    }
    Ok(S3Location { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
}

/// Source: <https://docs.aws.amazon.com/systems-manager/latest/userguide/sysman-parameter-name-constraints.html>.
fn ssm_path(path: &str) -> Result<String, &'static str> {
    let trimmed = path.strip_suffix('/').unwrap_or(path);
    if !trimmed.starts_with('/') {
        return Err("write a path of parameters: ssm:/PATH/ (all parameters of an account are no source)");
    }
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'/');
    if !trimmed.bytes().all(is_allowed) || trimmed.contains("//") {
        return Err("a path of parameters has letters, digits and _.-/ alone");
    }
    Ok(trimmed.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_as_written() {
        for (text, shown) in [
            ("manifests", "manifests"),
            ("/etc/mesh/a.yaml", "/etc/mesh/a.yaml"),
            ("./s3:", "./s3:"),
            ("s3://manifests/prod/", "s3://manifests/prod/"),
            ("s3://manifests", "s3://manifests/"),
            ("s3://manifests/prod/mesh.yaml", "s3://manifests/prod/mesh.yaml"),
            ("ssm:/mesh/prod", "ssm:/mesh/prod/"),
            ("ssm:/mesh/prod/", "ssm:/mesh/prod/"),
        ] {
            let source: ManifestSource = text.parse().unwrap();
            assert_eq!(source.to_string(), shown);
            assert_eq!(source.is_remote(), text.starts_with("s3:") || text.starts_with("ssm:"), "{text}");
        }
    }

    #[test]
    fn invalid_source_has_a_reason() {
        for (text, reason) in [
            ("", "write a path"),
            ("s3://", "3 to 63"),
            ("s3:///prod/", "3 to 63"),
            ("s3://Upper/prod/", "lower-case"),
            ("s3://arn:aws:s3:eu-west-1:111122223333:accesspoint/a/prod/", "alias"),
            ("s3://manifests//prod/", "slash"),
            ("s3://manifests/prod", "end the prefix with a slash"),
            ("ssm:mesh", "ssm:/PATH/"),
            ("ssm:/", "all parameters"),
            ("ssm:/a//b", "letters"),
            ("ssm:/a b", "letters"),
        ] {
            let error = text.parse::<ManifestSource>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn manifests_are_told_by_their_extension_in_s3() {
        let source: ManifestSource = "s3://manifests/prod/".parse().unwrap();
        for key in ["prod/a.yaml", "prod/team/b.yml", "prod/c.JSON"] {
            assert!(source.has_manifest(key), "{key}");
        }
        for key in ["prod/", "prod/README.md", "prod/.a.yaml", "prod/a.yaml.bak", "prod/a.yaml/"] {
            assert!(!source.has_manifest(key), "{key}");
        }
        let one: ManifestSource = "s3://manifests/prod/a.yaml".parse().unwrap();
        assert!(one.has_manifest("prod/a.yaml") && !one.has_manifest("prod/a.yaml.json"));
        let path: ManifestSource = "ssm:/mesh".parse().unwrap();
        assert!(path.has_manifest("/mesh/kv"));
    }
}

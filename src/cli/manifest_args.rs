//! Arguments that name the manifests, and the sources that they stand for.

use std::path::PathBuf;

use crate::manifest_stores::{AwsAccess, remote_source};
use ecs_mesh_aws::sdk::{AwsClients, AwsOptions};
use ecs_mesh_manifests::{ManifestSource, ManifestSources, ManifestStatus, ManifestText};

/// The name of inline manifests in findings.
const CONTENT: &str = "ECS_MESH_MANIFESTS_CONTENT";

/// Arguments that name the manifests.
#[derive(clap::Args)]
pub(super) struct ManifestArgs {
    /// Manifest files or directories (*.yaml, *.yml, *.json), s3://BUCKET/PREFIX/ or ssm:/PATH/
    #[arg(
        long,
        env = "ECS_MESH_MANIFESTS",
        required_unless_present = "manifests_content",
        value_name = "SOURCE"
    )]
    #[arg(value_delimiter = ',', num_args = 1..)]
    pub(super) manifests: Vec<ManifestSource>,

    /// Manifests as YAML text, beside those of `--manifests`
    #[arg(long, env = CONTENT, hide_env_values = true, value_name = "YAML")]
    pub(super) manifests_content: Option<String>,
}

impl ManifestArgs {
    /// The sources, the remote ones read by the clients.
    pub(super) fn sources(&self, aws: &AwsAccess) -> ManifestSources {
        sources(&self.manifests, self.manifests_content.as_deref(), aws)
    }

    /// The sources that are read over the network.
    pub(super) fn remote(&self) -> Vec<ManifestSource> {
        self.manifests.iter().filter(|source| source.is_remote()).cloned().collect()
    }

    /// The sources of a document that is printed offline: remote ones only where there are no others.
    pub(super) fn offline_first(&self) -> Vec<ManifestSource> {
        let local: Vec<ManifestSource> =
            self.manifests.iter().filter(|source| !source.is_remote()).cloned().collect();
        if local.is_empty() && self.manifests_content.is_none() { self.manifests.clone() } else { local }
    }
}

/// The sources, the remote ones read by the clients.
pub(super) fn sources(given: &[ManifestSource], content: Option<&str>, aws: &AwsAccess) -> ManifestSources {
    let paths: Vec<PathBuf> = given.iter().filter_map(local_path).collect();
    let remote = given.iter().filter(|source| source.is_remote());
    let sources = remote.fold(ManifestSources::new(paths), |sources, source| {
        sources.with_remote(remote_source(source.clone(), aws, fastrand::u64(..)))
    });
    match content {
        Some(text) => sources.with_text(ManifestText::inline(CONTENT, text)),
        None => sources,
    }
}

fn local_path(source: &ManifestSource) -> Option<PathBuf> {
    match source {
        ManifestSource::Path(path) => Some(path.clone()),
        ManifestSource::S3(_) | ManifestSource::Ssm(_) => None,
    }
}

/// The clients for these sources: none where no source needs them.
pub(super) async fn aws_access(given: &[ManifestSource], region: Option<&str>) -> AwsAccess {
    if !given.iter().any(ManifestSource::is_remote) {
        return Err("no source needs AWS".to_owned());
    }
    let options = AwsOptions { region: region.map(str::to_owned), ..AwsOptions::default() };
    AwsClients::connect(options).await.map_err(|error| error.to_string())
}

/// Reads the sources once.
pub(super) async fn load(sources: ManifestSources) -> Result<ManifestStatus, String> {
    sources.read_remote().await;
    let loaded = tokio::task::spawn_blocking(move || sources.load(None).into_loaded()).await;
    let loaded = loaded.map_err(|error| format!("reading the manifests: {error}"))?;
    // Only a load without changes since an earlier one has no result.
    loaded.as_ref().map(ManifestStatus::from).ok_or_else(|| "the manifests were not read".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        manifests: ManifestArgs,
    }

    fn parse(arguments: &[&str]) -> Result<ManifestArgs, String> {
        let arguments = std::iter::once("command").chain(arguments.iter().copied());
        let parsed = Command::try_parse_from(arguments);
        parsed.map(|command| command.manifests).map_err(|error| error.to_string())
    }

    #[test]
    fn several_sources_are_given_together() {
        let given = parse(&[
            "--manifests",
            "a.yaml,s3://manifests/prod/",
            "--manifests",
            "ssm:/mesh",
            "--manifests-content",
            "# none",
        ])
        .unwrap();
        let shown: Vec<String> = given.manifests.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["a.yaml", "s3://manifests/prod/", "ssm:/mesh/"]);
        let sources = given.sources(&Err("no AWS".to_owned()));
        assert_eq!(sources.paths(), [PathBuf::from("a.yaml")]);
        assert!(parse(&["--manifests-content", "# none"]).unwrap().manifests.is_empty());
        assert_eq!(given.offline_first(), [ManifestSource::Path("a.yaml".into())]);
        assert_eq!(parse(&["--manifests", "ssm:/mesh"]).unwrap().offline_first().len(), 1);
    }

    #[test]
    fn missing_or_invalid_source_is_refused() {
        assert!(parse(&[]).is_err_and(|error| error.contains("--manifests <SOURCE>")));
        let error = parse(&["--manifests", "s3://manifests/prod"]).err().unwrap();
        assert!(error.contains("end the prefix with a slash"), "{error}");
    }

    #[tokio::test]
    async fn source_without_aws_is_unread() {
        let given = parse(&["--manifests", "s3://manifests/prod/", "--manifests-content", "# none"]).unwrap();
        let status = load(given.sources(&Err("no AWS Region found".to_owned()))).await.unwrap();
        assert!(!status.set.complete);
        assert_eq!(status.unread.len(), 1);
        assert!(status.unread[0].to_string().starts_with("s3://manifests/prod/: no AWS Region found"));
    }
}

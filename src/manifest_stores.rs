//! Connects remote sources of manifests with AWS: the objects of a bucket, and the parameters below a path.

use std::sync::Arc;

use async_trait::async_trait;
use tracing::debug;

use ecs_mesh_aws::aws::{AwsError, AwsErrorKind};
use ecs_mesh_aws::sdk::{AwsClients, SdkObjectStore, SdkParameterStore};
use ecs_mesh_manifests::{
    ManifestSource, RemoteEntry, RemoteError, RemotePage, RemoteSource, RemoteStore, S3Location,
};

/// The clients of AWS, or why there are none.
pub type AwsAccess = Result<AwsClients, String>;

/// The remote source, read by these clients. Without clients it is never read. The seed is that of its pauses.
pub fn remote_source(source: ManifestSource, aws: &AwsAccess, seed: u64) -> RemoteSource {
    let store: Arc<dyn RemoteStore> = match (aws, &source) {
        (Err(reason), _) => Arc::new(MissingStore { reason: reason.clone() }),
        (Ok(aws), ManifestSource::S3(location)) => {
            Arc::new(BucketStore { objects: aws.objects.clone(), location: location.clone() })
        }
        (Ok(aws), ManifestSource::Ssm(path)) => {
            Arc::new(PathStore { parameters: aws.parameter_store.clone(), path: path.clone() })
        }
        (Ok(_), ManifestSource::Path(_)) => {
            Arc::new(MissingStore { reason: "is no remote source".to_owned() })
        }
    };
    RemoteSource::new(source, store, seed)
}

fn remote_error(error: &AwsError) -> RemoteError {
    let is_transient = matches!(error.kind, AwsErrorKind::Throttled | AwsErrorKind::Unavailable);
    RemoteError { message: error.to_string(), kind: error.kind.label(), is_transient }
}

/// Objects of S3.
struct BucketStore {
    objects: SdkObjectStore,
    location: S3Location,
}

#[async_trait]
impl RemoteStore for BucketStore {
    async fn list(&self, page: Option<&str>) -> Result<RemotePage, RemoteError> {
        let S3Location { bucket, prefix } = &self.location;
        let found = self.objects.list(bucket, prefix, page).await.map_err(|error| remote_error(&error))?;
        let entries = found.items.into_iter().map(|object| RemoteEntry {
            key: object.key,
            version: object.etag,
            size: object.size,
            content: None,
        });
        Ok(RemotePage { entries: entries.collect(), next: found.next })
    }

    async fn read(&self, key: &str, version: &str) -> Result<Option<Vec<u8>>, RemoteError> {
        let bucket = self.location.bucket.as_str();
        let read = self.objects.get(bucket, key, version).await.map_err(|error| remote_error(&error))?;
        let Some(content) = read else { return Ok(None) };
        debug!(bucket, key, version = content.version.as_deref().unwrap_or("none"), "manifest object read");
        Ok(Some(content.bytes))
    }
}

/// Parameters of SSM, whose lists have their values.
struct PathStore {
    parameters: SdkParameterStore,
    path: String,
}

#[async_trait]
impl RemoteStore for PathStore {
    async fn list(&self, page: Option<&str>) -> Result<RemotePage, RemoteError> {
        let found = self.parameters.page_by_path(&self.path, page).await;
        let found = found.map_err(|error| remote_error(&error))?;
        let entries = found.items.into_iter().map(|parameter| RemoteEntry {
            key: parameter.name,
            version: parameter.version.to_string(),
            size: parameter.value.len() as u64,
            content: Some(parameter.value.into_bytes()),
        });
        Ok(RemotePage { entries: entries.collect(), next: found.next })
    }

    async fn read(&self, _: &str, _: &str) -> Result<Option<Vec<u8>>, RemoteError> {
        Ok(None)
    }
}

/// A store without clients.
struct MissingStore {
    reason: String,
}

#[async_trait]
impl RemoteStore for MissingStore {
    async fn list(&self, _: Option<&str>) -> Result<RemotePage, RemoteError> {
        Err(RemoteError { message: self.reason.clone(), kind: "credentials", is_transient: false })
    }

    async fn read(&self, _: &str, _: &str) -> Result<Option<Vec<u8>>, RemoteError> {
        Ok(None)
    }
}

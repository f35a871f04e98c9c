//! The bearer token that readers must present. It is compared in constant time, and read again when it changes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::warn;

use ecs_mesh_control_plane::http::{SecretTextError, read_secret};
use ecs_mesh_controller::{BlockingLane, ReadFileError, Secrets, read_file};
use ecs_mesh_model::SecretRef;

/// The age at which a file is read again.
const FILE_TTL: Duration = Duration::from_secs(10);

/// The age at which a secret is read again: each read costs money and counts towards a quota.
const SECRET_TTL: Duration = Duration::from_mins(5);

/// The shortest interval between reads that a wrong token causes.
const MIN_INTERVAL: Duration = Duration::from_secs(10);

/// The longest read of a file. Requests wait for the read, so a replaced token is not accepted.
const FILE_TIMEOUT: Duration = Duration::from_secs(2);

const MIN_CHARACTERS: usize = 16;
const MAX_CHARACTERS: usize = 4_096;

/// Where the token is.
#[derive(Clone, Debug)]
pub enum ReadTokenSource {
    /// A file.
    File(PathBuf),
    /// A secret in Secrets Manager, or one key of its JSON.
    Secret(SecretRef),
}

/// A token that cannot be read. Never contains the text.
#[derive(Debug, thiserror::Error)]
pub enum ReadTokenError {
    /// The file cannot be read.
    #[error("reading {}: {source}; help: create it or correct --api-token-file", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// The error.
        source: ReadFileError,
    },
    /// The read of the file takes too long.
    #[error("reading {}: timed out", .0.display())]
    TimedOut(PathBuf),
    /// The secret cannot be read.
    #[error("{0} (--api-token-secret)")]
    Secret(#[from] SecretTextError),
    /// The text is no token.
    #[error(
        "the token of the API: expected {MIN_CHARACTERS} to {MAX_CHARACTERS} printable ASCII characters on one line, found {0} bytes"
    )]
    Invalid(usize),
}

/// Checks presented tokens.
pub(super) struct ReadToken {
    source: ReadTokenSource,
    secrets: Arc<dyn Secrets>,
    lane: BlockingLane,
    current: Mutex<CurrentToken>,
}

struct CurrentToken {
    digest: [u8; 32],
    read_at: Instant,
}

impl ReadToken {
    /// Reads the token.
    pub(super) async fn load(
        source: ReadTokenSource,
        secrets: Arc<dyn Secrets>,
    ) -> Result<Self, ReadTokenError> {
        let lane = BlockingLane::default();
        let digest = read(&source, secrets.as_ref(), &lane).await?;
        let current = Mutex::new(CurrentToken { digest, read_at: Instant::now() });
        Ok(Self { source, secrets, lane, current })
    }

    /// Whether this is the token. A token that cannot be read again stays as it was.
    pub(super) async fn accepts(&self, presented: &str) -> bool {
        let presented: [u8; 32] = Sha256::digest(presented).into();
        let mut current = self.current.lock().await;
        let ttl = match self.source {
            ReadTokenSource::File(_) => FILE_TTL,
            ReadTokenSource::Secret(_) => SECRET_TTL,
        };
        let is_equal = |current: &CurrentToken| bool::from(current.digest.ct_eq(&presented));
        let age = current.read_at.elapsed();
        if age >= ttl || (age >= MIN_INTERVAL && !is_equal(&current)) {
            // Before the read, since the caller may be cancelled while it waits.
            current.read_at = Instant::now();
            match read(&self.source, self.secrets.as_ref(), &self.lane).await {
                Ok(digest) => current.digest = digest,
                Err(error) => warn!(%error, "cannot read the token of the API; keeping the last one"),
            }
        }
        is_equal(&current)
    }
}

async fn read(
    source: &ReadTokenSource,
    secrets: &dyn Secrets,
    lane: &BlockingLane,
) -> Result<[u8; 32], ReadTokenError> {
    let text = match source {
        ReadTokenSource::File(file) => {
            let path = file.clone();
            let limit = 64 * 1024;
            let read = lane.run(FILE_TIMEOUT, move || read_file(&path, limit)).await;
            let read = read.ok_or_else(|| ReadTokenError::TimedOut(file.clone()))?;
            let bytes = read.map_err(|source| ReadTokenError::File { file: file.clone(), source })?;
            String::from_utf8(bytes).map_err(|error| ReadTokenError::Invalid(error.as_bytes().len()))?
        }
        ReadTokenSource::Secret(secret) => read_secret(secrets, secret).await?,
    };
    let token = text.trim();
    let is_token = (MIN_CHARACTERS..=MAX_CHARACTERS).contains(&token.len())
        && token.bytes().all(|byte| byte.is_ascii_graphic());
    if is_token { Ok(Sha256::digest(token).into()) } else { Err(ReadTokenError::Invalid(token.len())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecs_mesh_controller::NoSecrets;

    #[tokio::test(start_paused = true)]
    async fn token_file_is_read_again_when_it_changes() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        let load = || ReadToken::load(ReadTokenSource::File(file.clone()), Arc::new(NoSecrets));
        assert!(load().await.is_err(), "the file does not exist");
        std::fs::write(&file, "short").unwrap();
        let error = load().await.err().unwrap().to_string();
        assert!(error.contains("found 5 bytes") && !error.contains("short"), "{error}");
        std::fs::write(&file, "first-token-of-readers\n").unwrap();
        let token = load().await.unwrap();
        assert!(token.accepts("first-token-of-readers").await);
        assert!(!token.accepts("first-token-of-reader").await && !token.accepts("").await);
        std::fs::write(&file, "second-token-of-readers").unwrap();
        tokio::time::advance(FILE_TTL).await;
        assert!(token.accepts("second-token-of-readers").await);
        assert!(!token.accepts("first-token-of-readers").await);
        std::fs::remove_file(&file).unwrap();
        tokio::time::advance(FILE_TTL).await;
        assert!(token.accepts("second-token-of-readers").await, "the last token stays");
    }
}

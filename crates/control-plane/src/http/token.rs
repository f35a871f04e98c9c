//! Reads the current token: rotation needs no restart, and no message contains a token.

use std::path::PathBuf;
use std::str::Utf8Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue, InvalidHeaderValue};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::allowed_file::{AllowedFileError, read_allowed};
use super::secret_text::{SecretTextError, read_secret};
use super::settings::{Credential, Product, TextSource};
use ecs_mesh_api::{AllowList, RefusedSource};
use ecs_mesh_controller::{BlockingLane, ReadFileError, Secrets};
use ecs_mesh_model::{SecretRef, Timestamp};

const MAX_TOKEN_BYTES: usize = 64 * 1024;
/// The longest read of a token's file.
const FILE_TIMEOUT: Duration = Duration::from_secs(10);
/// Secrets are cached this long: each read costs money and counts towards a quota.
const SECRET_TTL: Duration = Duration::from_mins(5);
/// The shortest interval between reads of a rejected token, which may stay rejected for long.
const TOKEN_REFRESH_INTERVAL: Duration = Duration::from_secs(10);

/// A token that cannot be read. Never contains the text.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokenError {
    #[error(
        "reading the token file {}: {source}; help: create it or correct ControlPlane.{block}.tokenFile",
        file.display()
    )]
    File { file: PathBuf, block: &'static str, source: ReadFileError },
    #[error("ControlPlane.{block}.tokenFile: {source}")]
    Refused { block: &'static str, source: RefusedSource },
    #[error("reading the token file {}: timed out", file.display())]
    FileTimedOut { file: PathBuf },
    #[error(
        "reading the environment variable {name}: no text; help: set it or correct ControlPlane.{block}.tokenEnv"
    )]
    Env { name: String, block: &'static str },
    #[error("{source} (ControlPlane.{block}.tokenSecret)")]
    Secret { block: &'static str, source: SecretTextError },
    #[error("reading {from}: {source}")]
    Invalid { from: String, source: InvalidToken },
    #[error("reading {from}: {source} (ControlPlane.{block}.tokenSecret)")]
    InvalidSecret { from: String, block: &'static str, source: InvalidToken },
    #[error("reading the token: timed out")]
    TimedOut,
}

/// Text that is no token. Never contains the text.
#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidToken {
    #[error("expected {expected}, found {bytes} bytes")]
    Length { expected: &'static str, bytes: usize },
    #[error("expected {expected}, one line of printable characters")]
    Characters { expected: &'static str, source: InvalidHeaderValue },
    #[error("not UTF-8 text")]
    Encoding(#[source] Utf8Error),
}

/// Reads the token of one connection.
pub(super) struct TokenReader {
    product: Product,
    source: TokenSource,
    /// The expiry of the token that was read last, in milliseconds since 1970; [`NO_EXPIRY`] if it names none.
    expiry: AtomicI64,
}

const NO_EXPIRY: i64 = i64::MAX;

enum TokenSource {
    Absent,
    File {
        file: PathBuf,
        allowed: AllowList,
        /// A read from a remote file system can hang.
        lane: BlockingLane,
    },
    Env(String),
    Secret {
        secret: SecretRef,
        secrets: Arc<dyn Secrets>,
        cached: Mutex<Option<CachedSecret>>,
        rejected: AtomicBool,
    },
}

struct CachedSecret {
    secret: Secret,
    since: Instant,
    /// The time of the last read that failed; `None` after a successful read.
    failed: Option<Instant>,
}

impl TokenReader {
    pub(super) fn new(
        product: Product,
        source: TextSource,
        allowed: AllowList,
        secrets: Arc<dyn Secrets>,
    ) -> Self {
        let source = match source {
            TextSource::None => TokenSource::Absent,
            TextSource::File(file) => TokenSource::File { file, allowed, lane: BlockingLane::default() },
            TextSource::Env(name) => TokenSource::Env(name),
            TextSource::Secret(secret) => TokenSource::Secret {
                secret,
                secrets,
                cached: Mutex::default(),
                rejected: AtomicBool::new(false),
            },
        };
        Self { product, source, expiry: AtomicI64::new(NO_EXPIRY) }
    }

    /// Reads the token. A secret is cached for minutes, unless the server has rejected it.
    pub(super) async fn read(&self) -> Result<Option<Secret>, TokenError> {
        let token = self.read_source().await?;
        let expiry = token.as_ref().and_then(|token| jwt_expiry(&token.text));
        self.expiry.store(expiry.map_or(NO_EXPIRY, |at| at.0), Ordering::Relaxed);
        Ok(token)
    }

    /// When the token that was read last expires; `None` if it does not say so.
    pub(super) fn expiry(&self) -> Option<Timestamp> {
        Some(self.expiry.load(Ordering::Relaxed)).filter(|at| *at != NO_EXPIRY).map(Timestamp)
    }

    async fn read_source(&self) -> Result<Option<Secret>, TokenError> {
        let block = self.product.block;
        match &self.source {
            TokenSource::Absent => Ok(None),
            TokenSource::File { file, allowed, lane } => {
                let (path, allowed) = (file.clone(), allowed.clone());
                let read = move || read_allowed(&allowed, &path, MAX_TOKEN_BYTES as u64);
                let read = lane.run(FILE_TIMEOUT, read).await;
                let read = read.ok_or_else(|| TokenError::FileTimedOut { file: file.clone() })?;
                let bytes = read.map_err(|error| match error {
                    AllowedFileError::Refused(source) => TokenError::Refused { block, source },
                    AllowedFileError::Read(source) => TokenError::File { file: file.clone(), block, source },
                })?;
                let text = str::from_utf8(&bytes).map_err(InvalidToken::Encoding);
                text.and_then(|text| self.secret(text)).map(Some).map_err(|source| TokenError::Invalid {
                    from: format!("the token file {}", file.display()),
                    source,
                })
            }
            TokenSource::Env(name) => {
                let text = std::env::var(name).map_err(|_| TokenError::Env { name: name.clone(), block })?;
                self.secret(&text).map(Some).map_err(|source| TokenError::Invalid {
                    from: format!("the environment variable {name}"),
                    source,
                })
            }
            TokenSource::Secret { secret, secrets, cached, rejected } => {
                self.cached(secret, secrets.as_ref(), cached, rejected).await.map(Some)
            }
        }
    }

    async fn cached(
        &self,
        secret: &SecretRef,
        secrets: &dyn Secrets,
        cached: &Mutex<Option<CachedSecret>>,
        rejected: &AtomicBool,
    ) -> Result<Secret, TokenError> {
        // Concurrent callers wait for one read.
        let mut cached = cached.lock().await;
        if let Some(known) = cached.as_ref() {
            let age = known.since.elapsed();
            let max_age = if rejected.load(Ordering::Relaxed) { TOKEN_REFRESH_INTERVAL } else { SECRET_TTL };
            // While AWS is unreachable, not every call waits for the time limit.
            let failed_recently = known.failed.is_some_and(|at| at.elapsed() < TOKEN_REFRESH_INTERVAL);
            if age < max_age || failed_recently {
                return Ok(known.secret.clone());
            }
        }
        // Recorded before the read, since the caller may be cancelled while it waits.
        let earlier = cached.as_mut().and_then(|known| known.failed.replace(Instant::now()));
        let block = self.product.block;
        let read = match read_secret(secrets, secret).await {
            Err(source) => Err(TokenError::Secret { block, source }),
            Ok(text) => self.secret(&text).map_err(|source| TokenError::InvalidSecret {
                from: format!("the secret {secret}"),
                block,
                source,
            }),
        };
        match (read, cached.as_ref()) {
            (Ok(secret), _) => {
                rejected.store(false, Ordering::Relaxed);
                *cached = Some(CachedSecret { secret: secret.clone(), since: Instant::now(), failed: None });
                Ok(secret)
            }
            // The previous token is probably still valid: an AWS outage must not cut off the control plane too.
            (Err(error), Some(known)) => {
                if earlier.is_none() {
                    tracing::warn!(%error, "cannot read the token; keeping the previous token");
                }
                Ok(known.secret.clone())
            }
            (Err(error), None) => Err(error),
        }
    }

    /// Checks whether a failed response means that the server no longer accepts the token.
    pub(super) fn on_failure(&self, status: u16, body: &[u8]) {
        let TokenSource::Secret { rejected, .. } = &self.source else { return };
        let unknown = match self.product.credential {
            // Kuma's 403 is about permissions.
            Credential::Bearer => status == 401,
            Credential::ConsulToken => status == 401 || (status == 403 && contains(body, b"ACL not found")),
        };
        if unknown {
            rejected.store(true, Ordering::Relaxed);
        }
    }

    fn secret(&self, text: &str) -> Result<Secret, InvalidToken> {
        let expected = self.product.token;
        let token = text.trim();
        if token.is_empty() || token.len() > MAX_TOKEN_BYTES {
            return Err(InvalidToken::Length { expected, bytes: text.len() });
        }
        let (name, value) = match self.product.credential {
            Credential::Bearer => (AUTHORIZATION, format!("Bearer {token}")),
            Credential::ConsulToken => (HeaderName::from_static("x-consul-token"), token.to_owned()),
        };
        let mut value =
            HeaderValue::try_from(value).map_err(|source| InvalidToken::Characters { expected, source })?;
        value.set_sensitive(true);
        Ok(Secret { name, value, text: token.into() })
    }
}

/// A token as a request header. Has no `Debug`, so that it cannot be logged.
#[derive(Clone)]
pub(super) struct Secret {
    pub(super) name: HeaderName,
    pub(super) value: HeaderValue,
    text: Arc<str>,
}

impl Secret {
    /// Replaces the token in a body: some proxies repeat the request in their error pages.
    pub(super) fn erase_from(&self, body: &mut Vec<u8>) {
        const PLACEHOLDER: &[u8] = b"(token)";
        let text = self.text.as_bytes();
        let mut clean = Vec::with_capacity(body.len());
        let mut rest = body.as_slice();
        while let Some(at) = position(rest, text) {
            clean.extend_from_slice(&rest[..at]);
            clean.extend_from_slice(PLACEHOLDER);
            rest = &rest[at + text.len()..];
        }
        clean.extend_from_slice(rest);
        *body = clean;
    }
}

/// The claim `exp` of a JSON Web Token, such as Kuma's user tokens; `None` of any other text. The signature is not
/// checked: the server does that. See RFC 7519, section 4.1.4.
fn jwt_expiry(token: &str) -> Option<Timestamp> {
    #[derive(serde::Deserialize)]
    struct Claims {
        exp: f64,
    }
    let mut parts = token.split('.');
    let (_header, claims, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    let seconds = Duration::try_from_secs_f64(claims.exp).ok()?;
    i64::try_from(seconds.as_millis()).ok().map(Timestamp)
}

fn position(within: &[u8], text: &[u8]) -> Option<usize> {
    within.windows(text.len()).position(|window| window == text)
}

fn contains(within: &[u8], text: &[u8]) -> bool {
    position(within, text).is_some()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use async_trait::async_trait;

    use super::*;
    use ecs_mesh_controller::{NoSecrets, SecretError, SecretRequest};

    const ARN: &str = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:consul";

    /// Returns tokens with the number of the read, and fails at the reads in `failing`.
    struct NumberedSecrets {
        reads: AtomicUsize,
        failing: &'static [usize],
    }

    #[async_trait]
    impl Secrets for NumberedSecrets {
        async fn read(&self, secret: SecretRequest<'_>) -> Result<String, SecretError> {
            assert_eq!(secret.arn, ARN);
            let read = self.reads.fetch_add(1, Ordering::Relaxed);
            if self.failing.contains(&read) {
                Err(SecretError::Call(Box::new(std::io::Error::other("AWS is unreachable"))))
            } else {
                Ok(format!("token-{read}\n"))
            }
        }
    }

    const CONSUL: Product = Product {
        name: "Consul",
        block: "spec.consul",
        ports: (8500, 8501),
        token: "an ACL token",
        credential: Credential::ConsulToken,
        client_certificate_help: "switch that off",
        max_concurrent_calls: Some(4),
    };

    const KUMA: Product = Product { credential: Credential::Bearer, ..CONSUL };

    fn token_reader(product: Product, failing: &'static [usize]) -> TokenReader {
        let secrets = Arc::new(NumberedSecrets { reads: AtomicUsize::new(0), failing });
        let source = TextSource::Secret(SecretRef::parse(ARN).unwrap());
        TokenReader::new(product, source, AllowList::default(), secrets)
    }

    #[test]
    fn expiry_is_read_from_web_tokens_alone() {
        let jwt = |claims: &str| {
            format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode("{}"), URL_SAFE_NO_PAD.encode(claims))
        };
        for (token, expiry) in [
            (jwt(r#"{"exp": 1800000000, "Name": "operator"}"#), Some(1_800_000_000_000)),
            (jwt(r#"{"exp": 1800000000.5}"#), Some(1_800_000_000_500)),
            // A token may have no end.
            (jwt(r#"{"Name": "operator"}"#), None),
            (jwt(r#"{"exp": -1}"#), None),
            (jwt(r#"{"exp": 1e300}"#), None),
            (jwt("no JSON"), None),
            ("a.!.c".to_owned(), None),
            ("4c1a9ee6-2b5e-4d5b-9d0e-1f3a5b7c9d11".to_owned(), None),
        ] {
            assert_eq!(jwt_expiry(&token), expiry.map(Timestamp), "{token}");
        }
    }

    #[tokio::test]
    async fn expiry_follows_the_token_in_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        let reader = TokenReader::new(
            KUMA,
            TextSource::File(file.clone()),
            AllowList::new(["*"], [directory.path().to_str().unwrap()]),
            Arc::new(NoSecrets),
        );
        assert_eq!(reader.expiry(), None);
        for seconds in [1_800_000_000, 1_900_000_000] {
            let claims = URL_SAFE_NO_PAD.encode(format!(r#"{{"exp": {seconds}}}"#));
            std::fs::write(&file, format!("e30.{claims}.c2ln")).unwrap();
            reader.read().await.ok().flatten().unwrap();
            assert_eq!(reader.expiry(), Some(Timestamp(seconds * 1_000)));
        }
        std::fs::write(&file, "opaque").unwrap();
        reader.read().await.ok().flatten().unwrap();
        assert_eq!(reader.expiry(), None);
    }

    #[tokio::test]
    async fn token_file_is_refused_when_it_is_no_small_file() {
        let directory = tempfile::tempdir().unwrap();
        let (fifo, large) = (directory.path().join("fifo"), directory.path().join("large"));
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        std::fs::write(&large, vec![b'x'; MAX_TOKEN_BYTES + 1]).unwrap();
        for (path, found) in [
            (fifo, "not a regular file but a FIFO"),
            (directory.path().to_owned(), "not a regular file but a directory"),
            ("/dev/zero".into(), "not a regular file but a device"),
            (large, "larger than 64 KiB"),
        ] {
            let allowed = AllowList::new(["*"], ["/"]);
            let token = TokenReader::new(CONSUL, TextSource::File(path), allowed, Arc::new(NoSecrets));
            let error = token.read().await.err().unwrap().to_string();
            assert!(error.contains(found) && error.contains("spec.consul.tokenFile"), "{error}");
        }
    }

    async fn sent(token: &TokenReader) -> String {
        let secret = token.read().await.ok().flatten().unwrap();
        format!("{}: {}", secret.name, secret.value.to_str().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn secret_token_is_refreshed_after_its_ttl() {
        let token = token_reader(CONSUL, &[]);
        assert_eq!(sent(&token).await, "x-consul-token: token-0");
        tokio::time::advance(Duration::from_secs(299)).await;
        assert_eq!(sent(&token).await, "x-consul-token: token-0");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(sent(&token).await, "x-consul-token: token-1");
    }

    #[tokio::test(start_paused = true)]
    async fn rejected_token_is_refreshed_at_limited_rate() {
        let token = token_reader(CONSUL, &[]);
        assert_eq!(sent(&token).await, "x-consul-token: token-0");
        token.on_failure(403, b"Permission denied");
        token.on_failure(500, b"ACL not found");
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(sent(&token).await, "x-consul-token: token-0");
        token.on_failure(403, b"ACL not found");
        assert_eq!(sent(&token).await, "x-consul-token: token-1");
        token.on_failure(403, b"ACL not found");
        assert_eq!(sent(&token).await, "x-consul-token: token-1");
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(sent(&token).await, "x-consul-token: token-2");
    }

    #[tokio::test(start_paused = true)]
    async fn rejected_user_token_is_refreshed() {
        let token = token_reader(KUMA, &[]);
        assert_eq!(sent(&token).await, "authorization: Bearer token-0");
        token.on_failure(403, b"ACL not found");
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(sent(&token).await, "authorization: Bearer token-0");
        token.on_failure(401, b"");
        assert_eq!(sent(&token).await, "authorization: Bearer token-1");
    }

    #[tokio::test(start_paused = true)]
    async fn previous_token_is_kept_when_aws_is_unreachable() {
        let token = token_reader(CONSUL, &[0, 2]);
        let error = token.read().await.err().unwrap().to_string();
        assert!(error.contains("AWS is unreachable") && error.contains("spec.consul.tokenSecret"), "{error}");
        assert_eq!(sent(&token).await, "x-consul-token: token-1");
        tokio::time::advance(Duration::from_secs(301)).await;
        assert_eq!(sent(&token).await, "x-consul-token: token-1");
        // The failed read is not repeated at every call.
        assert_eq!(sent(&token).await, "x-consul-token: token-1");
        tokio::time::advance(TOKEN_REFRESH_INTERVAL).await;
        assert_eq!(sent(&token).await, "x-consul-token: token-3");
    }

    #[test]
    fn token_is_erased_from_an_error_page() {
        let secret = Secret { name: AUTHORIZATION, value: HeaderValue::from_static("x"), text: "abc".into() };
        let mut page = b"Authorization: Bearer abc, again abc.".to_vec();
        secret.erase_from(&mut page);
        assert_eq!(page, b"Authorization: Bearer (token), again (token).");
    }
}

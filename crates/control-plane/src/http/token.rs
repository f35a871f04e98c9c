//! The token as it is now: rotated ones count without a restart, and no message quotes one.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::settings::{Credential, Product, TextSource};
use ecs_mesh_controller::secrets::Secrets;

const MAX_TOKEN_BYTES: usize = 64 * 1024;
/// A secret that was read counts this long: each read costs money, and has a quota.
const SECRET_TTL: Duration = Duration::from_mins(5);
/// A refused token is read again, not more often than this: it may be refused for long.
const TOKEN_REFRESH_INTERVAL: Duration = Duration::from_secs(10);

/// Where the token comes from, for one product.
pub(super) struct TokenReader {
    product: Product,
    source: TokenSource,
}

enum TokenSource {
    Nowhere,
    File(PathBuf),
    Env(String),
    Secret { arn: String, secrets: Arc<dyn Secrets>, cached: Mutex<Option<CachedSecret>>, refused: AtomicBool },
}

struct CachedSecret {
    secret: Secret,
    since: Instant,
    /// When it was tried to read it again, which has not gone well so far.
    failed: Option<Instant>,
}

impl TokenReader {
    pub(super) fn new(product: Product, source: TextSource, secrets: Arc<dyn Secrets>) -> Self {
        let source = match source {
            TextSource::None => TokenSource::Nowhere,
            TextSource::File(file) => TokenSource::File(file),
            TextSource::Env(name) => TokenSource::Env(name),
            TextSource::Secret(arn) => {
                TokenSource::Secret { arn, secrets, cached: Mutex::default(), refused: AtomicBool::new(false) }
            }
        };
        Self { product, source }
    }

    /// The token as it is now; of a secret as it was a few minutes ago, unless it was refused since.
    pub(super) async fn read(&self) -> Result<Option<Secret>, String> {
        let block = self.product.block;
        match &self.source {
            TokenSource::Nowhere => Ok(None),
            TokenSource::File(file) => {
                let source = format!("the token file {}", file.display());
                let bytes = tokio::fs::read(file).await.map_err(|error| {
                    format!(
                        "{source} cannot be read: {error}; correct ControlPlane.{block}.tokenFile, or make it"
                    )
                })?;
                let text = String::from_utf8(bytes).map_err(|_| format!("{source} holds no text"))?;
                self.secret(&text, &source).map(Some)
            }
            TokenSource::Env(name) => {
                let source = format!("the environment variable {name}");
                let text = std::env::var(name).map_err(|_| {
                    format!("{source} holds no text; set it, or correct ControlPlane.{block}.tokenEnv")
                })?;
                self.secret(&text, &source).map(Some)
            }
            TokenSource::Secret { arn, secrets, cached, refused } => {
                self.cached(arn, secrets.as_ref(), cached, refused).await.map(Some)
            }
        }
    }

    async fn cached(
        &self,
        arn: &str,
        secrets: &dyn Secrets,
        cached: &Mutex<Option<CachedSecret>>,
        refused: &AtomicBool,
    ) -> Result<Secret, String> {
        // Whoever comes while it is read waits for that.
        let mut cached = cached.lock().await;
        if let Some(known) = cached.as_ref() {
            let age = known.since.elapsed();
            let good_for = if refused.load(Ordering::Relaxed) { TOKEN_REFRESH_INTERVAL } else { SECRET_TTL };
            // Where AWS is away, not every call waits until that shows.
            let gave_up = known.failed.is_some_and(|at| at.elapsed() < TOKEN_REFRESH_INTERVAL);
            if age < good_for || gave_up {
                return Ok(known.secret.clone());
            }
        }
        // Before it is tried, since whoever asks may give up waiting.
        let earlier = cached.as_mut().and_then(|known| known.failed.replace(Instant::now()));
        let source = format!("the secret {arn}");
        let read = secrets.read(arn).await.and_then(|text| self.secret(&text, &source));
        match (read, cached.as_ref()) {
            (Ok(secret), _) => {
                refused.store(false, Ordering::Relaxed);
                *cached = Some(CachedSecret { secret: secret.clone(), since: Instant::now(), failed: None });
                Ok(secret)
            }
            // The last one may well be good still: AWS away is no reason to lose the control plane too.
            (Err(error), Some(known)) => {
                if earlier.is_none() {
                    tracing::warn!(error, "the last token goes on being used");
                }
                Ok(known.secret.clone())
            }
            (Err(error), None) => {
                Err(format!("{error}; ControlPlane.{}.tokenSecret names it", self.product.block))
            }
        }
    }

    /// Looks at a failure for a sign that the token is not known there any more.
    pub(super) fn on_failure(&self, status: u16, body: &[u8]) {
        if let TokenSource::Secret { refused, .. } = &self.source
            && self.product.credential == Credential::ConsulToken
            && (status == 401 || (status == 403 && contains(body, b"ACL not found")))
        {
            refused.store(true, Ordering::Relaxed);
        }
    }

    fn secret(&self, text: &str, source: &str) -> Result<Secret, String> {
        let kind = self.product.token;
        let token = text.trim();
        if token.is_empty() || token.len() > MAX_TOKEN_BYTES {
            return Err(format!("{source} should hold {kind}, and holds {} bytes", text.len()));
        }
        let (name, value) = match self.product.credential {
            Credential::Bearer => (AUTHORIZATION, format!("Bearer {token}")),
            Credential::ConsulToken => (HeaderName::from_static("x-consul-token"), token.to_owned()),
        };
        let mut value = HeaderValue::try_from(value)
            .map_err(|_| format!("{source} should hold {kind}, one line of printable characters"))?;
        value.set_sensitive(true);
        Ok(Secret { name, value, text: token.into() })
    }
}

/// A token, ready to be sent. It has no `Debug`.
#[derive(Clone)]
pub(super) struct Secret {
    pub(super) name: HeaderName,
    pub(super) value: HeaderValue,
    text: Arc<str>,
}

impl Secret {
    /// Some proxies repeat the request in their error pages.
    pub(super) fn erase_from(&self, body: &mut Vec<u8>) {
        const STAND_IN: &[u8] = b"(token)";
        let text = self.text.as_bytes();
        let mut clean = Vec::with_capacity(body.len());
        let mut rest = body.as_slice();
        while let Some(at) = position(rest, text) {
            clean.extend_from_slice(&rest[..at]);
            clean.extend_from_slice(STAND_IN);
            rest = &rest[at + text.len()..];
        }
        clean.extend_from_slice(rest);
        *body = clean;
    }
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

    const ARN: &str = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:consul";

    /// Gives a token numbered by how often it was asked; fails where that is a number of `away`.
    struct NumberedSecrets {
        asked: AtomicUsize,
        away: &'static [usize],
    }

    #[async_trait]
    impl Secrets for NumberedSecrets {
        async fn read(&self, arn: &str) -> Result<String, String> {
            assert_eq!(arn, ARN);
            let asked = self.asked.fetch_add(1, Ordering::Relaxed);
            if self.away.contains(&asked) {
                Err("AWS is away".to_owned())
            } else {
                Ok(format!("token-{asked}\n"))
            }
        }
    }

    fn token(away: &'static [usize]) -> TokenReader {
        let secrets = Arc::new(NumberedSecrets { asked: AtomicUsize::new(0), away });
        let product = Product {
            name: "Consul",
            block: "spec.consul",
            ports: (8500, 8501),
            token: "an ACL token",
            credential: Credential::ConsulToken,
            instead_of_certificate: "switch that off",
            most_calls: Some(4),
        };
        TokenReader::new(product, TextSource::Secret(ARN.to_owned()), secrets)
    }

    async fn sent(token: &TokenReader) -> String {
        let secret = token.read().await.ok().flatten().unwrap();
        format!("{}: {}", secret.name, secret.value.to_str().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_from_a_secret_is_read_again_after_some_minutes() {
        let token = token(&[]);
        assert_eq!(sent(&token).await, "x-consul-token: token-0");
        tokio::time::advance(Duration::from_secs(299)).await;
        assert_eq!(sent(&token).await, "x-consul-token: token-0");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(sent(&token).await, "x-consul-token: token-1");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_token_is_read_again_soon_but_not_at_every_call() {
        let token = token(&[]);
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
    async fn where_aws_is_away_the_last_token_goes_on_being_used() {
        let token = token(&[0, 2]);
        let error = token.read().await.err().unwrap();
        assert!(error.contains("AWS is away") && error.contains("spec.consul.tokenSecret"), "{error}");
        assert_eq!(sent(&token).await, "x-consul-token: token-1");
        tokio::time::advance(Duration::from_secs(301)).await;
        assert_eq!(sent(&token).await, "x-consul-token: token-1");
        // Not each call asks, and waits.
        assert_eq!(sent(&token).await, "x-consul-token: token-1");
        tokio::time::advance(TOKEN_REFRESH_INTERVAL).await;
        assert_eq!(sent(&token).await, "x-consul-token: token-3");
    }

    #[test]
    fn a_token_that_an_error_page_repeats_is_erased() {
        let secret = Secret { name: AUTHORIZATION, value: HeaderValue::from_static("x"), text: "abc".into() };
        let mut page = b"Authorization: Bearer abc, again abc.".to_vec();
        secret.erase_from(&mut page);
        assert_eq!(page, b"Authorization: Bearer (token), again (token).");
    }
}

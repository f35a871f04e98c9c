//! Reads of Consul over the connection that the operator has, too: its CA, its token, its limits.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use super::consul::{Answer, ConsulReads};
use crate::api::{ConsulConnection, HumanDuration};
use crate::mesh::http::{Head, HttpTransport, Method, Secrets, Sink, StreamTransport as _};

/// Waiting longer for one answer helps nobody who runs an audit.
const DEADLINE: Duration = Duration::from_secs(5);
/// The nodes of a large datacenter, several times over.
const LARGEST_ANSWER: usize = 64 * 1024 * 1024;

/// One Consul.
pub(super) struct HttpReads {
    transport: HttpTransport,
    query: String,
}

impl HttpReads {
    /// Connects to nothing yet. The error names the field of the manifest that is at fault.
    pub(super) fn connect(spec: &ConsulConnection, secrets: Arc<dyn Secrets>) -> Result<Self, String> {
        let timeout = HumanDuration(spec.timeout.0.min(DEADLINE));
        let spec = ConsulConnection { timeout, ..spec.clone() };
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in [("dc", &spec.datacenter), ("partition", &spec.partition)] {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        let query = Some(query.finish()).filter(|query| !query.is_empty());
        let transport = HttpTransport::with_secrets(&spec, secrets)?;
        Ok(Self { transport, query: query.map(|query| format!("?{query}")).unwrap_or_default() })
    }
}

#[async_trait]
impl ConsulReads for HttpReads {
    async fn get(&self, path: &str) -> Result<Answer, String> {
        let mut whole = Whole(Vec::new());
        let path = format!("{path}{}", self.query);
        let head = self.transport.stream(Method::Get, &path, None, &mut whole).await;
        let head = head.map_err(|error| error.message)?;
        let body = serde_json::from_slice(&whole.0).unwrap_or(Value::Null);
        Ok(Answer { status: head.status, filtered: head.filtered, body })
    }
}

/// Keeps all of an answer.
struct Whole(Vec<u8>);

impl Sink for Whole {
    fn take(&mut self, _: &Head, part: &[u8]) -> bool {
        self.0.extend_from_slice(part);
        self.0.len() <= LARGEST_ANSWER
    }
}

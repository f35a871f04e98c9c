//! The sandbox's servers on loopback: one port for all of AWS, one for Kuma.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::aws::{self, AwsFaults, Cloud, CloudConfig, Front};
use super::kuma::http::{self as kuma_http, KumaFaults};
use super::kuma::{KumaConfig, KumaCp};
use super::world::{QUEUE, lay_pipes};
use crate::model::Timestamp;
use crate::runtime::Clock;

/// The access key that `--serve` prints; any other works as well, since signatures are not checked.
pub const ACCESS_KEY: &str = "sandbox";

/// Where to listen, and what goes wrong.
pub struct Options {
    /// The account.
    pub cloud: CloudConfig,
    /// AWS's port; 0 takes a free one.
    pub aws_port: u16,
    /// Kuma's port; 0 takes a free one.
    pub kuma_port: u16,
    /// What goes wrong at AWS.
    pub aws_faults: Arc<dyn AwsFaults>,
    /// What goes wrong at Kuma.
    pub kuma_faults: Arc<dyn KumaFaults>,
}

/// The running servers, and the worlds behind them.
pub struct Endpoints {
    /// The account. Lock order: this before [`Self::kuma`].
    pub front: Front,
    /// The control plane.
    pub kuma: Arc<Mutex<KumaCp>>,
    /// The empty cluster that is there at first.
    pub cluster: String,
    /// `http://127.0.0.1:PORT` of AWS.
    pub aws_url: String,
    /// `http://127.0.0.1:PORT` of Kuma.
    pub kuma_url: String,
    queue_path: String,
    region: String,
    servers: JoinSet<std::io::Result<()>>,
    stop: CancellationToken,
}

impl Endpoints {
    /// Makes an account with one empty cluster, queue and rules, and a control plane with a mesh `default`; serves both.
    ///
    /// # Errors
    /// In words, when a port cannot be had.
    pub async fn start(options: Options) -> Result<Self, String> {
        let clock = Clock::system();
        let tell = clock.clone();
        let now = clock.now();
        let region = options.cloud.region.clone();
        let mut cloud = Cloud::new(options.cloud, now);
        let cluster = lay_pipes(&mut cloud, now).map_err(|error| error.to_string())?;
        let queue_path = cloud.queue_path(QUEUE).map_err(|error| error.to_string())?;
        let front = Front::new(Arc::new(Mutex::new(cloud)), options.aws_faults, move || tell.now());
        let kuma = Arc::new(Mutex::new(KumaCp::new(KumaConfig::default(), now)));
        let (aws_listener, aws_url) = listen("AWS", options.aws_port).await?;
        let (kuma_listener, kuma_url) = listen("Kuma", options.kuma_port).await?;
        let stop = CancellationToken::new();
        let mut servers = JoinSet::new();
        servers.spawn(aws::serve(aws_listener, front.clone(), stop.clone().cancelled_owned()));
        let tell: kuma_http::Clock = Arc::new(move || clock.now());
        let (cp, until) = (Arc::clone(&kuma), stop.clone().cancelled_owned());
        servers.spawn(kuma_http::serve(kuma_listener, cp, options.kuma_faults, tell, until));
        Ok(Self { front, kuma, cluster, aws_url, kuma_url, queue_path, region, servers, stop })
    }

    /// The queue's URL.
    pub fn queue_url(&self) -> String {
        format!("{}{}", self.aws_url, self.queue_path)
    }

    /// The Region.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The environment with which boto3, curl and a separate `run` reach it all.
    pub fn environment(&self) -> BTreeMap<&'static str, String> {
        [
            ("AWS_ENDPOINT_URL", self.aws_url.clone()),
            ("AWS_REGION", self.region.clone()),
            // boto3 and the AWS CLI know the Region by this name.
            ("AWS_DEFAULT_REGION", self.region.clone()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", ACCESS_KEY.to_owned()),
            ("KUMA_API_URL", self.kuma_url.clone()),
            ("ECS_MESH_QUEUE_URL", self.queue_url()),
            ("ECS_MESH_CLUSTER_ARN", self.cluster.clone()),
        ]
        .into()
    }

    /// Works on both at once, at one time.
    pub fn with<R>(&self, work: impl FnOnce(&mut Cloud, &mut KumaCp, Timestamp) -> R) -> R {
        self.front.with(|cloud, now| {
            let mut kuma = self.kuma.lock().unwrap_or_else(PoisonError::into_inner);
            work(cloud, &mut kuma, now)
        })
    }

    /// Ends the servers.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let end = async { while self.servers.join_next().await.is_some() {} };
        // Connections that nobody closes must not hold up the end.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), end).await;
    }
}

async fn listen(what: &str, port: u16) -> Result<(TcpListener, String), String> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.map_err(|error| {
        format!("{what} cannot listen on 127.0.0.1:{port}: {error}; choose another port, or 0 for any that is free")
    })?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    Ok((listener, format!("http://{address}")))
}

//! The sandbox's servers on loopback: one port for all of AWS, one for each control plane.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::aws::{self, AwsFaults, Cloud, CloudConfig, AwsFront};
use super::consul::http::{self as consul_http, ConsulFaults, ConsulFront};
use super::consul::{ConsulServer, in_process};
use super::kuma::http::{self as kuma_http, KumaFaults};
use super::kuma::{KumaConfig, KumaCp};
use super::control_planes::ControlPlanes;
use super::world::{ConsulBootstrap, MANAGEMENT_TOKEN, QUEUE, create_queue_and_rules};
use ecs_mesh_clock::Clock;
use ecs_mesh_model::Timestamp;

/// The access key that `--serve` prints; any other works as well, since signatures are not checked.
pub const ACCESS_KEY: &str = "sandbox";

/// Where to listen, and what goes wrong. The default is Kuma on any free port, and nothing.
pub struct EndpointOptions {
    /// The account.
    pub cloud: CloudConfig,
    /// Which control planes there are.
    pub control_planes: ControlPlanes,
    /// AWS's port; 0 takes a free one.
    pub aws_port: u16,
    /// Kuma's port; 0 takes a free one.
    pub kuma_port: u16,
    /// Consul's port; 0 takes a free one.
    pub consul_port: u16,
    /// What goes wrong at AWS.
    pub aws_faults: Arc<dyn AwsFaults>,
    /// What goes wrong at Kuma.
    pub kuma_faults: Arc<dyn KumaFaults>,
    /// What goes wrong at Consul.
    pub consul_faults: Arc<dyn ConsulFaults>,
}

impl Default for EndpointOptions {
    fn default() -> Self {
        Self {
            cloud: CloudConfig::default(),
            control_planes: ControlPlanes::default(),
            aws_port: 0,
            kuma_port: 0,
            consul_port: 0,
            aws_faults: Arc::new(aws::NoAwsFaults),
            kuma_faults: Arc::new(kuma_http::NoKumaFaults),
            consul_faults: Arc::new(consul_http::NoConsulFaults),
        }
    }
}

/// A Consul that is served.
pub struct ConsulEndpoint {
    /// The server. Lock order: this last.
    pub front: ConsulFront,
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    /// What tasks need to know of it.
    pub bootstrap: ConsulBootstrap,
}

/// The running servers, and the worlds behind them.
pub struct Endpoints {
    /// The account. Lock order: this before [`Self::kuma`], and that before [`Self::consul`].
    pub front: AwsFront,
    /// The Kuma; idle and not served where there is none.
    pub kuma: Arc<Mutex<KumaCp>>,
    /// The empty cluster that is there at first.
    pub cluster: String,
    /// `http://127.0.0.1:PORT` of AWS.
    pub aws_url: String,
    /// `http://127.0.0.1:PORT` of Kuma, if there is one.
    pub kuma_url: Option<String>,
    /// The Consul, if there is one.
    pub consul: Option<ConsulEndpoint>,
    queue_path: String,
    region: String,
    servers: JoinSet<std::io::Result<()>>,
    stop: CancellationToken,
}

impl Endpoints {
    /// Makes an account with one empty cluster, queue and rules, a Kuma with a mesh `default`, a Consul with what tasks
    /// need to log in; serves them.
    ///
    /// # Errors
    /// In words, when a port cannot be had.
    pub async fn start(options: EndpointOptions) -> Result<Self, String> {
        let clock = Clock::system();
        let tell = clock.clone();
        let now = clock.now();
        let (region, seed) = (options.cloud.region.clone(), options.cloud.seed);
        let mut cloud = Cloud::new(options.cloud, now);
        let cluster = create_queue_and_rules(&mut cloud, now).map_err(|error| error.to_string())?;
        let queue_path = cloud.queue_path(QUEUE).map_err(|error| error.to_string())?;
        let front = AwsFront::new(Arc::new(Mutex::new(cloud)), options.aws_faults, move || tell.now());
        let (aws_listener, aws_url) = listen("AWS", options.aws_port).await?;
        let stop = CancellationToken::new();
        let mut servers = JoinSet::new();
        servers.spawn(aws::serve(aws_listener, front.clone(), stop.clone().cancelled_owned()));
        let tell: Arc<dyn Fn() -> Timestamp + Send + Sync> = Arc::new(move || clock.now());
        let kuma = Arc::new(Mutex::new(KumaCp::new(KumaConfig::default(), now)));
        let mut kuma_url = None;
        if options.control_planes.has_kuma() {
            let (listener, url) = listen("Kuma", options.kuma_port).await?;
            let (cp, until) = (Arc::clone(&kuma), stop.clone().cancelled_owned());
            servers.spawn(kuma_http::serve(listener, cp, options.kuma_faults, Arc::clone(&tell), until));
            kuma_url = Some(url);
        }
        let mut consul = None;
        if options.control_planes.has_consul() {
            let home = ConsulBootstrap { cluster: cluster.clone(), aws: aws_url.clone(), region: region.clone() };
            let mut server = ConsulBootstrap::server(seed, now);
            home.configure(&mut server, now)?;
            let (listener, url) = listen("Consul", options.consul_port).await?;
            let account = in_process::account(front.clone(), aws_url.clone());
            let server = Arc::new(Mutex::new(server));
            let front = ConsulFront::new(server, account, options.consul_faults, tell);
            servers.spawn(consul_http::serve(listener, front.clone(), stop.clone().cancelled_owned()));
            consul = Some(ConsulEndpoint { front, url, bootstrap: home });
        }
        Ok(Self { front, kuma, cluster, aws_url, kuma_url, consul, queue_path, region, servers, stop })
    }

    /// The queue's URL.
    pub fn queue_url(&self) -> String {
        format!("{}{}", self.aws_url, self.queue_path)
    }

    /// The Region.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The environment with which boto3, curl, consul and a separate `run` reach it all.
    pub fn environment(&self) -> BTreeMap<&'static str, String> {
        let mut environment: BTreeMap<&'static str, String> = [
            ("AWS_ENDPOINT_URL", self.aws_url.clone()),
            ("AWS_REGION", self.region.clone()),
            // boto3 and the AWS CLI know the Region by this name.
            ("AWS_DEFAULT_REGION", self.region.clone()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", ACCESS_KEY.to_owned()),
            ("ECS_MESH_QUEUE_URL", self.queue_url()),
            ("ECS_MESH_CLUSTER_ARN", self.cluster.clone()),
        ]
        .into();
        environment.extend(self.kuma_url.clone().map(|url| ("KUMA_API_URL", url)));
        if let Some(consul) = &self.consul {
            environment.insert("CONSUL_HTTP_ADDR", consul.url.clone());
            environment.insert("CONSUL_HTTP_TOKEN", MANAGEMENT_TOKEN.to_owned());
        }
        environment
    }

    /// Works on AWS and Kuma at once, at one time.
    pub fn with<R>(&self, work: impl FnOnce(&mut Cloud, &mut KumaCp, Timestamp) -> R) -> R {
        self.front.with(|cloud, now| {
            let mut kuma = self.kuma.lock().unwrap_or_else(PoisonError::into_inner);
            work(cloud, &mut kuma, now)
        })
    }

    /// Works on everything at once, at one time.
    pub fn with_all<R>(
        &self,
        work: impl FnOnce(&mut Cloud, &mut KumaCp, Option<&mut ConsulServer>, Timestamp) -> R,
    ) -> R {
        self.with(|cloud, kuma, now| match &self.consul {
            Some(consul) => consul.front.with(|consul, now| work(cloud, kuma, Some(consul), now)),
            None => work(cloud, kuma, None, now),
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

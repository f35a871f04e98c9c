//! The emulated servers on loopback: one port for AWS, one for each control plane.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::aws::{self, AwsFaults, AwsFront, Cloud, CloudConfig};
use super::consul::http::{self as consul_http, ConsulFaults, ConsulFront};
use super::consul::{ConsulServer, in_process};
use super::control_planes::ControlPlanes;
use super::kuma::http::{self as kuma_http, KumaFaults};
use super::kuma::{EmulatedRelease, KumaConfig, KumaCp};
use super::world::{ConsulBootstrap, MANAGEMENT_TOKEN, QUEUE, RoutedEvents, create_queue_and_rules};
use ecs_mesh_clock::Clock;
use ecs_mesh_model::Timestamp;

/// The access key that `--serve` prints. Any other key works, since signatures are not checked.
pub const ACCESS_KEY: &str = "sandbox";

/// Ports and faults of the servers. The default is AWS and Kuma on any free port, without faults.
pub struct EndpointOptions {
    /// Settings of the AWS account.
    pub cloud: CloudConfig,
    /// The emulated control planes.
    pub control_planes: ControlPlanes,
    /// The emulated release of Kuma.
    pub kuma_release: EmulatedRelease,
    /// Port of AWS; 0 means any free port.
    pub aws_port: u16,
    /// Port of Kuma; 0 means any free port.
    pub kuma_port: u16,
    /// Port of Consul; 0 means any free port.
    pub consul_port: u16,
    /// Faults of AWS calls.
    pub aws_faults: Arc<dyn AwsFaults>,
    /// Faults of Kuma requests.
    pub kuma_faults: Arc<dyn KumaFaults>,
    /// Faults of Consul requests.
    pub consul_faults: Arc<dyn ConsulFaults>,
}

impl Default for EndpointOptions {
    fn default() -> Self {
        Self {
            cloud: CloudConfig::default(),
            control_planes: ControlPlanes::default(),
            kuma_release: KumaConfig::default().release,
            aws_port: 0,
            kuma_port: 0,
            consul_port: 0,
            aws_faults: Arc::new(aws::NoAwsFaults),
            kuma_faults: Arc::new(kuma_http::NoKumaFaults),
            consul_faults: Arc::new(consul_http::NoConsulFaults),
        }
    }
}

/// The served Consul.
pub struct ConsulEndpoint {
    /// The server. Lock order: last.
    pub front: ConsulFront,
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    /// The cluster's setup at Consul.
    pub bootstrap: ConsulBootstrap,
}

/// The running servers and their state.
pub struct Endpoints {
    /// The AWS account. Lock order: before [`Self::kuma`], which is before [`Self::consul`].
    pub front: AwsFront,
    /// Kuma; not served if it is not among the control planes.
    pub kuma: Arc<Mutex<KumaCp>>,
    /// ARN of the cluster.
    pub cluster: String,
    /// `http://127.0.0.1:PORT` of AWS.
    pub aws_url: String,
    /// `http://127.0.0.1:PORT` of Kuma, if it is served.
    pub kuma_url: Option<String>,
    /// Consul, if it is served.
    pub consul: Option<ConsulEndpoint>,
    queue_path: String,
    region: String,
    servers: JoinSet<std::io::Result<()>>,
    stop: CancellationToken,
}

impl Endpoints {
    /// Starts the servers: an account with an empty cluster, the event queue and its rules; Kuma with the mesh
    /// `default`; Consul with the auth method of the tasks.
    ///
    /// # Errors
    /// Describes the port that cannot be bound.
    pub async fn start(options: EndpointOptions) -> Result<Self, String> {
        let clock = Clock::system();
        let aws_clock = clock.clone();
        let now = clock.now();
        let (region, seed) = (options.cloud.region.clone(), options.cloud.seed);
        let (aws_listener, aws_url) = listen("AWS", options.aws_port).await?;
        let config = CloudConfig { endpoint: Some(aws_url.clone()), ..options.cloud };
        let mut cloud = Cloud::new(config, now);
        let cluster = create_queue_and_rules(&mut cloud, RoutedEvents::TasksAndDeployments, now)
            .map_err(|error| error.to_string())?;
        let queue_path = cloud.queue_path(QUEUE).map_err(|error| error.to_string())?;
        let front = AwsFront::new(Arc::new(Mutex::new(cloud)), options.aws_faults, move || aws_clock.now());
        let stop = CancellationToken::new();
        let mut servers = JoinSet::new();
        servers.spawn(aws::serve(aws_listener, front.clone(), stop.clone().cancelled_owned()));
        let time: Arc<dyn Fn() -> Timestamp + Send + Sync> = Arc::new(move || clock.now());
        let kuma = KumaConfig {
            release: options.kuma_release,
            first_service_address: Ipv4Addr::new(127, 251, 0, 0),
            ..KumaConfig::default()
        };
        let kuma = Arc::new(Mutex::new(KumaCp::new(kuma, now)));
        let mut kuma_url = None;
        if options.control_planes.has_kuma() {
            let (listener, url) = listen("Kuma", options.kuma_port).await?;
            let (cp, until) = (Arc::clone(&kuma), stop.clone().cancelled_owned());
            servers.spawn(kuma_http::serve(listener, cp, options.kuma_faults, Arc::clone(&time), until));
            kuma_url = Some(url);
        }
        let mut consul = None;
        if options.control_planes.has_consul() {
            let bootstrap =
                ConsulBootstrap { cluster: cluster.clone(), aws: aws_url.clone(), region: region.clone() };
            let mut server = ConsulBootstrap::server(seed, now);
            bootstrap.configure(&mut server, now)?;
            let (listener, url) = listen("Consul", options.consul_port).await?;
            let account = in_process::account(front.clone(), aws_url.clone());
            let server = Arc::new(Mutex::new(server));
            let front = ConsulFront::new(server, account, options.consul_faults, time);
            servers.spawn(consul_http::serve(listener, front.clone(), stop.clone().cancelled_owned()));
            consul = Some(ConsulEndpoint { front, url, bootstrap });
        }
        Ok(Self { front, kuma, cluster, aws_url, kuma_url, consul, queue_path, region, servers, stop })
    }

    /// URL of the event queue.
    pub fn queue_url(&self) -> String {
        format!("{}{}", self.aws_url, self.queue_path)
    }

    /// The Region.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Environment variables for the AWS CLI, boto3, `consul` and a separate `run`.
    pub fn environment(&self) -> BTreeMap<&'static str, String> {
        let mut environment: BTreeMap<&'static str, String> = [
            ("AWS_ENDPOINT_URL", self.aws_url.clone()),
            ("AWS_REGION", self.region.clone()),
            // boto3 and the AWS CLI read this name.
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

    /// Locks AWS and Kuma and calls `work` with both and the current time.
    pub fn with<R>(&self, work: impl FnOnce(&mut Cloud, &mut KumaCp, Timestamp) -> R) -> R {
        self.front.with(|cloud, now| {
            let mut kuma = self.kuma.lock().unwrap_or_else(PoisonError::into_inner);
            work(cloud, &mut kuma, now)
        })
    }

    /// Locks AWS and all control planes and calls `work` with them and the current time.
    pub fn with_all<R>(
        &self,
        work: impl FnOnce(&mut Cloud, &mut KumaCp, Option<&mut ConsulServer>, Timestamp) -> R,
    ) -> R {
        self.with(|cloud, kuma, now| match &self.consul {
            Some(consul) => consul.front.with(|consul, now| work(cloud, kuma, Some(consul), now)),
            None => work(cloud, kuma, None, now),
        })
    }

    /// Stops the servers.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let end = async { while self.servers.join_next().await.is_some() {} };
        // Open connections must not delay the stop.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), end).await;
    }
}

async fn listen(server: &str, port: u16) -> Result<(TcpListener, String), String> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.map_err(|error| {
        format!("binding 127.0.0.1:{port} for {server}: {error}; help: choose another port, or 0 for any free port")
    })?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    Ok((listener, format!("http://{address}")))
}

//! The hosts that AWS and control planes are called at, with a proxy on loopback that sees them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{DoctorRun, DoctorSetup, document, run_doctor};

/// A proxy, the hosts of its tunnels, and the addresses on loopback that they lead to.
struct TunnelProxy {
    url: String,
    hosts: Arc<Mutex<BTreeSet<String>>>,
}

impl TunnelProxy {
    /// Leads to these addresses, and refuses every other host.
    async fn to(targets: BTreeMap<String, String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let hosts = Arc::new(Mutex::new(BTreeSet::new()));
        let (seen, targets) = (Arc::clone(&hosts), Arc::new(targets));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(tunnel(client, Arc::clone(&seen), Arc::clone(&targets)));
            }
        });
        Self { url, hosts }
    }

    /// The hosts without ports.
    fn hosts(&self) -> BTreeSet<String> {
        let hosts = self.hosts.lock().unwrap();
        hosts.iter().map(|host| host.split(':').next().unwrap().to_owned()).collect()
    }
}

async fn tunnel(
    mut client: TcpStream,
    seen: Arc<Mutex<BTreeSet<String>>>,
    targets: Arc<BTreeMap<String, String>>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = client.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let host = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next());
    let host = host.unwrap_or_else(|| panic!("no tunnel: {head}")).to_owned();
    seen.lock().unwrap().insert(host.clone());
    let Some(target) = targets.get(&host) else {
        let _ = client.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await;
        return;
    };
    let mut server = TcpStream::connect(target).await.unwrap();
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
    // Either side may end the connection.
    let _ = copy_bidirectional(&mut client, &mut server).await;
}

/// A CA, whose servers take TLS for other servers.
struct TestAuthority {
    params: CertificateParams,
    key: KeyPair,
}

impl TestAuthority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { params, key: KeyPair::generate().unwrap() }
    }

    fn pem(&self) -> String {
        self.params.self_signed(&self.key).unwrap().pem()
    }

    /// The address of a server with a certificate for this host, which forwards to `http://ADDRESS`.
    async fn serve(&self, host: &str, url: &str) -> String {
        // Another test may have installed the provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key)).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        let (acceptor, target) = (TlsAcceptor::from(Arc::new(config)), url.replace("http://", ""));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, target) = (acceptor.clone(), target.clone());
                tokio::spawn(async move {
                    let Ok(mut client) = acceptor.accept(stream).await else { return };
                    let mut server = TcpStream::connect(target).await.unwrap();
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        address
    }
}

#[tokio::test]
async fn aws_and_kuma_are_reached_through_the_proxy() {
    let setup = DoctorSetup::new().await;
    let healthy = setup.healthy().await;
    let authority = TestAuthority::new();
    let aws = authority.serve("aws.test", &setup.endpoints.aws_url).await;
    let kuma = authority.serve("kuma.test", &setup.kuma_url()).await;
    let targets = [("aws.test:443".to_owned(), aws), ("kuma.test:5682".to_owned(), kuma)];
    let proxy = TunnelProxy::to(targets.into()).await;
    let ca = setup.directory.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let ca = ca.to_str().unwrap();
    setup.manifests(
        &setup.endpoints.cluster,
        "https://kuma.test:5682",
        &format!(", proxy: environment, caFile: '{ca}'"),
    );
    let mut environment = setup.environment.clone();
    let variables =
        [("AWS_ENDPOINT_URL", "https://aws.test"), ("HTTPS_PROXY", &*proxy.url), ("SSL_CERT_FILE", ca)];
    environment.extend(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let arguments = ["--operator-id", "x", "--output", "json"];
    let run = run_doctor(&environment, setup.directory.path(), &arguments).await;
    assert_eq!((run.code, run.ids()), (Some(0), healthy), "{}\n{}", run.out, run.err);
    assert_eq!(proxy.hosts(), ["aws.test", "kuma.test"].map(str::to_owned).into());
}

/// Runs `doctor` in `us-east-1` behind a proxy that refuses all, with this variable. Returns the hosts that it called.
async fn hosts_with(variable: Option<&str>) -> BTreeSet<String> {
    let proxy = TunnelProxy::to(BTreeMap::new()).await;
    let directory = tempfile::tempdir().unwrap();
    let cluster = "arn:aws:ecs:us-east-1:111122223333:cluster/prod";
    let manifests = [
        document("ControlPlane", "kuma", "{type: kuma, kuma: {address: 'http://127.0.0.1:1'}}"),
        document(
            "MeshBinding",
            "here",
            &format!("{{controlPlane: kuma, mesh: default, selector: {{clusters: ['{cluster}']}}}}"),
        ),
    ];
    std::fs::write(directory.path().join("all.yaml"), manifests.concat()).unwrap();
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, TestAuthority::new().pem()).unwrap();
    let variables = [
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "AKIDTEST"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("HTTPS_PROXY", &*proxy.url),
        ("SSL_CERT_FILE", ca.to_str().unwrap()),
    ];
    let variables = variables.into_iter().chain(variable.map(|name| (name, "true")));
    let environment = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let arguments = [
        "s3://mesh-manifests/prod/",
        "ssm:/mesh/prod/",
        "--operator-id",
        "x",
        "--output",
        "json",
        "--queue-url",
        "https://sqs.us-east-1.amazonaws.com/111122223333/events",
        "--lease",
        "dynamodb:leases",
        "--team-events-bus",
        "ecs-mesh",
    ];
    let run: DoctorRun = run_doctor(&environment, directory.path(), &arguments).await;
    assert_eq!(run.code, Some(1), "{}\n{}", run.out, run.err);
    proxy.hosts()
}

#[tokio::test]
async fn fips_and_dual_stack_endpoints_are_called() {
    for (variable, form, s3) in [
        (None, "SERVICE.us-east-1.amazonaws.com", "mesh-manifests.s3.us-east-1.amazonaws.com"),
        (
            Some("AWS_USE_FIPS_ENDPOINT"),
            "SERVICE-fips.us-east-1.amazonaws.com",
            "mesh-manifests.s3-fips.us-east-1.amazonaws.com",
        ),
        (
            Some("AWS_USE_DUALSTACK_ENDPOINT"),
            "SERVICE.us-east-1.api.aws",
            "mesh-manifests.s3.dualstack.us-east-1.amazonaws.com",
        ),
    ] {
        let regional = ["dynamodb", "ecs", "events", "sqs", "ssm", "sts"];
        let regional = regional.map(|service| form.replace("SERVICE", service));
        let expected: BTreeSet<String> = regional.into_iter().chain([s3.to_owned()]).collect();
        assert_eq!(hosts_with(variable).await, expected, "{variable:?}");
    }
}

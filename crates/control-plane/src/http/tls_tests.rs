//! TLS over loopback: which servers are accepted, and what the others are told to change.

use std::error::Error as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ResolvesServerCertUsingSni, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{CertificateError, Error as TlsError, RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::*;
use ecs_mesh_api::AllowList;
use ecs_mesh_controller::NoSecrets;
use ecs_mesh_model::TlsServerName;

const KUMA: Product = Product {
    name: "Kuma",
    block: "spec.kuma",
    ports: (5681, 5682),
    token: "a user token",
    credential: Credential::Bearer,
    client_certificate_help: "let it accept user tokens",
    max_concurrent_calls: None,
};
const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// A server's certificate with its key, and the CA to configure.
struct ServerCertificate {
    der: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    ca: String,
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2120, 1, 1));
    params.distinguished_name.push(DnType::CommonName, "a server");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

fn key_der(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(key.serialize_der()).into()
}

/// A certificate as kuma-cp makes it for itself: a CA and the server's at once.
fn own_ca(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> ServerCertificate {
    let mut params = params(names);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    ServerCertificate { der: certificate.der().clone(), key: key_der(&key), ca: certificate.pem() }
}

/// A certificate that a CA has signed.
fn signed(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> ServerCertificate {
    let mut authority = params(&[]);
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.extended_key_usages.clear();
    authority.distinguished_name.push(DnType::CommonName, "a CA");
    let ca_key = KeyPair::generate().unwrap();
    let ca = authority.self_signed(&ca_key).unwrap().pem();
    let mut params = params(names);
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &Issuer::from_params(&authority, &ca_key)).unwrap();
    ServerCertificate { der: certificate.der().clone(), key: key_der(&key), ca }
}

/// The SNI and the request's text of each call.
type Received = Arc<Mutex<Vec<(Option<String>, String)>>>;

/// Serves each connection on a thread of its own.
fn listen(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (serve, stream) = (Arc::clone(&serve), stream.unwrap());
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Responds with `{}` to clients that accept the server.
fn serve(config: ServerConfig) -> (SocketAddr, Received) {
    let (config, received) = (Arc::new(config), Received::default());
    let keep = Arc::clone(&received);
    let address = listen(move |stream| {
        let connection = rustls::ServerConnection::new(config.clone()).unwrap();
        let mut stream = rustls::StreamOwned::new(connection, stream);
        let mut request = [0; 4096];
        let Ok(length @ 1..) = stream.read(&mut request) else { return };
        let request = String::from_utf8_lossy(&request[..length]).into_owned();
        keep.lock().unwrap().push((stream.conn.server_name().map(str::to_owned), request));
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}");
        stream.conn.send_close_notify();
        let _ = stream.flush();
    });
    (address, received)
}

fn server(certificate: &ServerCertificate) -> (SocketAddr, Received) {
    let config = ServerConfig::builder().with_no_client_auth();
    let chain = vec![certificate.der.clone()];
    serve(config.with_single_cert(chain, certificate.key.clone_key()).unwrap())
}

/// Calls a server that must have this CA, and this name where it is not the address's host.
async fn call(address: &str, ca: &str, name: Option<&str>) -> Result<HttpResponse, TransportError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), ca).unwrap();
    let settings = ConnectionSettings {
        product: KUMA,
        address: address.to_owned(),
        tls_server_name: name.map(|name| TlsServerName::parse(name).unwrap()),
        ca: TextSources { file: Some(file.path().to_owned()), ..TextSources::default() },
        token: TextSources::default(),
        allowed: AllowList::new(["*"], ["/"]),
        proxy: None,
        timeout: Duration::from_secs(5),
    };
    let transport = HttpTransport::new(settings, Arc::new(NoSecrets)).unwrap();
    Transport::send(&transport, HttpMethod::Get, "/", None).await
}

/// The refusal of a server, which is a TLS failure without the names of the library's types.
async fn refusal(address: &str, ca: &str) -> (String, Option<TlsError>) {
    let error = call(address, ca, None).await.unwrap_err();
    assert_eq!(error.kind, TransportErrorKind::Tls, "{error}");
    assert_eq!(type_names(&error.message), [""; 0], "{error}");
    let cause = error.source().and_then(|source| source.downcast_ref::<TlsError>()).cloned();
    (error.message, cause)
}

/// Words such as `UnknownIssuer`.
fn type_names(text: &str) -> Vec<&str> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric());
    let is_type = |word: &&str| {
        let lower = word.bytes().position(|b| b.is_ascii_lowercase());
        word.starts_with(|first: char| first.is_ascii_uppercase())
            && lower.is_some_and(|lower| word.bytes().skip(lower).any(|b| b.is_ascii_uppercase()))
            && !["ControlPlane", "ChaCha20"].contains(word)
    };
    words.filter(is_type).collect()
}

fn install_provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

#[tokio::test]
async fn own_certificate_is_accepted_if_the_ca_is_exactly_that() {
    install_provider();
    let (own, other) = (own_ca(&["localhost", "127.0.0.1"], |_| ()), own_ca(&["localhost"], |_| ()));
    let (address, _) = server(&own);
    for host in ["localhost", "127.0.0.1"] {
        let address = format!("https://{host}:{}", address.port());
        call(&address, &own.ca, None).await.unwrap();
        call(&address, &(other.ca.clone() + &own.ca), None).await.unwrap();
    }
    // Of the same subject, and a CA, too.
    let (message, _) = refusal(&format!("https://localhost:{}", address.port()), &other.ca).await;
    assert!(message.contains("itself that of a CA"), "{message}");
    assert!(message.contains("help: set ControlPlane.spec.kuma.caFile to exactly"), "{message}");
}

#[tokio::test]
async fn own_certificate_is_checked_as_any_other() {
    install_provider();
    let names = ["localhost"];
    let expired = own_ca(&names, |params| params.not_after = date_time_ymd(2021, 2, 3));
    let early = own_ca(&names, |params| params.not_before = date_time_ymd(2119, 4, 5));
    let client =
        own_ca(&names, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    let elsewhere = own_ca(&["cp.internal", "10.0.0.7"], |_| ());
    for (certificate, problem) in [
        (&expired, "expired on 2021-02-03T00:00:00Z"),
        (&early, "is not valid before 2119-04-05T00:00:00Z"),
        (&client, "is not for servers"),
        (&elsewhere, "is for cp.internal, 10.0.0.7, not for localhost"),
    ] {
        let (address, _) = server(certificate);
        let (message, cause) =
            refusal(&format!("https://localhost:{}", address.port()), &certificate.ca).await;
        assert!(message.contains(problem), "{message}");
        assert!(matches!(cause, Some(TlsError::InvalidCertificate(_))), "{cause:?}");
    }
}

#[tokio::test]
async fn own_certificate_without_its_key_is_refused() {
    install_provider();
    let (own, thief) = (own_ca(&["localhost"], |_| ()), own_ca(&["localhost"], |_| ()));
    for version in VERSIONS {
        let provider = rustls::crypto::CryptoProvider::get_default().unwrap();
        let key = provider.key_provider.load_private_key(thief.key.clone_key()).unwrap();
        let stolen = CertifiedKey::new(vec![own.der.clone()], key);
        let mut certificates = ResolvesServerCertUsingSni::new();
        certificates.add("localhost", stolen).unwrap();
        let config = ServerConfig::builder_with_protocol_versions(&[version]).with_no_client_auth();
        let (address, _) = serve(config.with_cert_resolver(Arc::new(certificates)));
        let (message, cause) = refusal(&format!("https://localhost:{}", address.port()), &own.ca).await;
        assert_eq!(cause, Some(CertificateError::BadSignature.into()), "{message}");
    }
}

#[tokio::test]
async fn signed_certificate_is_checked() {
    install_provider();
    let names = ["localhost"];
    let expired = signed(&names, |params| params.not_after = date_time_ymd(2021, 2, 3));
    let early = signed(&names, |params| params.not_before = date_time_ymd(2119, 4, 5));
    let client =
        signed(&names, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    let elsewhere = signed(&["*.internal"], |_| ());
    let good = signed(&names, |_| ());
    let other = signed(&names, |_| ());
    let (address, _) = server(&good);
    call(&format!("https://localhost:{}", address.port()), &good.ca, None).await.unwrap();
    for (certificate, ca, problem) in [
        (&expired, &expired.ca, "expired on 2021-02-03T00:00:00Z"),
        (&early, &early.ca, "is not valid before 2119-04-05T00:00:00Z"),
        (&client, &client.ca, "is not for servers"),
        (&elsewhere, &elsewhere.ca, "is for *.internal, not for localhost"),
        // A CA of the same name with another key.
        (&good, &other.ca, "a signature does not fit"),
        (&good, &own_ca(&names, |_| ()).ca, "is not signed by the CA in /"),
    ] {
        let (address, _) = server(certificate);
        let (message, cause) = refusal(&format!("https://localhost:{}", address.port()), ca).await;
        assert!(message.contains(problem), "{message}");
        assert!(matches!(cause, Some(TlsError::InvalidCertificate(_))), "{cause:?}");
    }
}

#[tokio::test]
async fn tls_server_name_is_sent_and_checked_instead_of_the_host() {
    install_provider();
    for certificate in [own_ca(&["cp.internal"], |_| ()), signed(&["cp.internal"], |_| ())] {
        let (address, received) = server(&certificate);
        for host in ["127.0.0.1", "localhost"] {
            let authority = format!("{host}:{}", address.port());
            call(&format!("https://{authority}"), &certificate.ca, Some("cp.internal")).await.unwrap();
            let (sni, request) = received.lock().unwrap().pop().unwrap();
            assert_eq!(sni.as_deref(), Some("cp.internal"));
            assert!(request.to_lowercase().contains(&format!("\r\nhost: {authority}\r\n")), "{request}");
        }
        let error = call(&format!("https://{address}"), &certificate.ca, Some("other.internal")).await;
        let error = error.unwrap_err();
        assert!(error.message.contains("for cp.internal, not for other.internal"), "{error}");
    }
}

#[tokio::test]
async fn address_as_tls_server_name_is_checked_and_not_sent() {
    install_provider();
    for certificate in [own_ca(&["10.0.0.7"], |_| ()), signed(&["10.0.0.7"], |_| ())] {
        let (address, received) = server(&certificate);
        let authority = format!("localhost:{}", address.port());
        call(&format!("https://{authority}"), &certificate.ca, Some("10.0.0.7")).await.unwrap();
        let (sni, request) = received.lock().unwrap().pop().unwrap();
        assert_eq!(sni, None);
        assert!(request.to_lowercase().contains(&format!("\r\nhost: {authority}\r\n")), "{request}");
        let error = call(&format!("https://{authority}"), &certificate.ca, Some("10.0.0.8")).await;
        let error = error.unwrap_err();
        assert!(error.message.contains("for 10.0.0.7, not for 10.0.0.8"), "{error}");
    }
}

#[tokio::test]
async fn server_that_requires_a_client_certificate_is_named_so() {
    install_provider();
    let certificate = signed(&["localhost"], |_| ());
    for version in VERSIONS {
        let mut roots = RootCertStore::empty();
        roots.add(own_ca(&[], |_| ()).der).unwrap();
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
        let config =
            ServerConfig::builder_with_protocol_versions(&[version]).with_client_cert_verifier(verifier);
        let chain = vec![certificate.der.clone()];
        let (address, _) = serve(config.with_single_cert(chain, certificate.key.clone_key()).unwrap());
        let (message, _) = refusal(&format!("https://localhost:{}", address.port()), &certificate.ca).await;
        assert!(message.contains("requires a client certificate"), "{message}");
        assert!(message.contains("let it accept user tokens"), "{message}");
    }
}

#[tokio::test]
async fn server_without_supported_tls_is_named_so() {
    install_provider();
    let ca = own_ca(&["localhost"], |_| ()).ca;
    let alert = |alert: u8| vec![0x15, 3, 3, 0, 2, 2, alert];
    for (answer, problem) in [
        (alert(40), "offers no TLS 1.2 or 1.3 with a supported cipher suite"),
        (alert(70), "offers neither TLS 1.2 nor TLS 1.3"),
        (alert(112), "knows no certificate for this name"),
        (alert(90), "ended the handshake with TLS alert 90"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "does not speak TLS at this port"),
        (b"SSH-2.0-server\r\n".to_vec(), "does not speak TLS at this port"),
        (Vec::new(), "closed the connection"),
    ] {
        let address = listen(move |mut stream| {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(&answer);
        });
        let (message, _) = refusal(&format!("https://localhost:{}", address.port()), &ca).await;
        assert!(message.contains(problem) && message.contains("; help: "), "{message}");
    }
}

#[test]
fn ca_file_is_refused_when_it_is_no_small_file_of_certificates() {
    install_provider();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    assert!(std::process::Command::new("mkfifo").arg(path("fifo")).status().unwrap().success());
    std::fs::File::create(path("large")).unwrap().set_len(client_source::MAX_CA_BYTES + 1).unwrap();
    let block = |text: &str| format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
    for (name, text) in [
        ("empty", String::new()),
        ("token", "hunter2".to_owned()),
        ("begin", "-----BEGIN hunter2\n".to_owned()),
        ("end", "-----BEGIN CERTIFICATE-----\nhunter2\n".to_owned()),
        ("base64", block("hunter2!")),
        ("der", own_ca(&[], |_| ()).ca + &block("aHVudGVyMg==")),
    ] {
        std::fs::write(path(name), text).unwrap();
    }
    for (file, found) in [
        (path("fifo"), "caFile: reading"),
        (path("fifo"), "not a regular file but a FIFO"),
        (directory.path().to_owned(), "not a regular file but a directory"),
        ("/dev/zero".into(), "not a regular file but a device"),
        (path("large"), "larger than 1 MiB"),
        (path("empty"), "no certificate found"),
        (path("token"), "no certificate found"),
        (path("begin"), "a -----BEGIN line is incomplete"),
        (path("end"), "no matching -----END line"),
        (path("base64"), "is not base64"),
        (path("der"), "certificate 2 is not an X.509 certificate"),
    ] {
        let error = HttpTransport::new(
            ConnectionSettings {
                product: KUMA,
                address: "https://cp:5682".to_owned(),
                tls_server_name: None,
                ca: TextSources { file: Some(file), ..TextSources::default() },
                token: TextSources::default(),
                allowed: AllowList::new(["*"], ["/"]),
                proxy: None,
                timeout: Duration::from_secs(5),
            },
            Arc::new(NoSecrets),
        );
        let error = error.unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(shown.contains(found) && !shown.contains("hunter2"), "{shown}");
    }
}

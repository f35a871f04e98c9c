//! Starts a real kuma-cp on loopback, and makes the calls of other clients.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

use ecs_mesh_api::{ApiDialect, KumaRelease};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::process::OwnedProcess;
use crate::e2e::harness::eventually;

/// The variable of kuma-cp.
pub(super) const KUMA_CP: &str = "KUMA_CP_BIN";

/// The program that a variable names; `None`, which is printed, if it names none.
pub(super) fn program(variable: &str, what: &str) -> Option<PathBuf> {
    let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()) else {
        println!("skipped: {what}: {variable} names no program");
        return None;
    };
    let path = PathBuf::from(path).canonicalize();
    Some(path.unwrap_or_else(|error| panic!("{variable}: {error}")))
}

/// kuma-cp in zone mode with a memory store. Sidecars need no tokens.
pub(super) struct RealKuma {
    _process: OwnedProcess,
    pub(super) url: String,
    /// The port for sidecars, on all interfaces.
    pub(super) sidecar_port: u16,
    /// As the server shows it.
    pub(super) version: String,
    pub(super) release: KumaRelease,
    http: reqwest::Client,
    directory: TempDir,
}

impl Drop for RealKuma {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.directory.path().join("kuma-cp.log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            println!("end of the log of kuma-cp:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}

impl RealKuma {
    /// `None`, which is printed, if no program is named.
    pub(super) async fn start(what: &str) -> Option<Self> {
        let program = program(KUMA_CP, what)?;
        // Another test may have installed the provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = TempDir::new().unwrap();
        // The ports are free and probably stay so until the server binds them.
        let free: Vec<TcpListener> = (0..5).map(|_| TcpListener::bind("0.0.0.0:0").unwrap()).collect();
        let ports: Vec<u16> = free.iter().map(|port| port.local_addr().unwrap().port()).collect();
        drop(free);
        let mut command = Command::new(program);
        command
            .arg("run")
            .current_dir(directory.path())
            .envs(
                [
                    ("KUMA_API_SERVER_HTTP_PORT", ports[0]),
                    ("KUMA_DP_SERVER_PORT", ports[1]),
                    ("KUMA_DIAGNOSTICS_SERVER_PORT", ports[2]),
                    ("KUMA_MONITORING_ASSIGNMENT_SERVER_PORT", ports[3]),
                    ("KUMA_INTER_CP_SERVER_PORT", ports[4]),
                ]
                .map(|(name, port)| (name, port.to_string())),
            )
            .envs([
                ("KUMA_ENVIRONMENT", "universal"),
                ("KUMA_MODE", "zone"),
                ("KUMA_STORE_TYPE", "memory"),
                ("KUMA_REPORTS_ENABLED", "false"),
                ("KUMA_API_SERVER_HTTP_INTERFACE", "127.0.0.1"),
                ("KUMA_API_SERVER_HTTPS_ENABLED", "false"),
                ("KUMA_DP_SERVER_AUTHN_DP_PROXY_TYPE", "none"),
                // Where sidecars bind their outbounds, these addresses have to be on loopback.
                ("KUMA_IPAM_MESH_SERVICE_CIDR", "127.251.0.0/16"),
                ("KUMA_IPAM_MESH_EXTERNAL_SERVICE_CIDR", "127.252.0.0/16"),
                ("KUMA_IPAM_MESH_MULTI_ZONE_SERVICE_CIDR", "127.253.0.0/16"),
            ])
            .envs(["HOME", "KUMA_GENERAL_WORK_DIR"].map(|name| (name, directory.path())));
        let process =
            OwnedProcess::start_logged(&mut command, &directory.path().join("kuma-cp.log")).unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("http://127.0.0.1:{}", ports[0]);
        let mut server = Self {
            _process: process,
            url,
            sidecar_port: ports[1],
            version: String::new(),
            release: KumaRelease::new(0, 0),
            http,
            directory,
        };
        eventually("kuma-cp with its default mesh", || async {
            (server.call("GET", "/meshes/default", None).await?.0 == 200).then_some(())
        })
        .await;
        let index = server.get("/").await;
        index["version"].as_str().unwrap().clone_into(&mut server.version);
        let release = KumaRelease::of_version(&server.version);
        server.release = release.unwrap_or_else(|| panic!("the version has no number: {index}"));
        assert!(server.release.dialect().is_some(), "{index}");
        server.report(what, json!({}));
        Some(server)
    }

    /// Prints what was found, as fields.
    pub(super) fn report(&self, what: &str, mut fields: Value) {
        fields["what"] = what.into();
        fields["version"] = self.version.clone().into();
        println!("kuma_real {fields}");
    }

    pub(super) fn is_v3(&self) -> bool {
        self.release.dialect() == Some(ApiDialect::V3)
    }

    /// Status and JSON body; `None` if the server does not answer.
    async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Option<(u16, Value)> {
        let mut request = self.http.request(method.parse().unwrap(), format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.ok()?;
        let status = answer.status().as_u16();
        Some((status, serde_json::from_str(&answer.text().await.ok()?).unwrap_or_default()))
    }

    pub(super) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call("GET", path, None).await.unwrap();
        assert_eq!(status, 200, "GET {path}: {body}");
        body
    }

    /// Writes as another client; returns status and body.
    pub(super) async fn put(&self, path: &str, body: &Value) -> (u16, Value) {
        self.call("PUT", path, Some(body)).await.unwrap()
    }

    /// Writes a Dataplane as another client, and returns it as stored.
    pub(super) async fn put_dataplane(&self, name: &str, networking: &Value) -> Value {
        let path = format!("/meshes/default/dataplanes/{name}");
        let labels = json!({"kuma.io/workload": name});
        let body = json!({
            "type": "Dataplane", "mesh": "default", "name": name, "labels": labels, "networking": networking,
        });
        let (status, answer) = self.put(&path, &body).await;
        assert_eq!(status, 201, "PUT {path}: {answer}");
        self.get(&path).await
    }

    /// Gives the default mesh MeshServices instead of tags. In 3.x each mesh has them.
    pub(super) async fn use_mesh_services(&self) {
        if self.is_v3() {
            return;
        }
        let mesh = json!({"type": "Mesh", "name": "default", "meshServices": {"mode": "Exclusive"}});
        let (status, answer) = self.put("/meshes/default", &mesh).await;
        assert_eq!(status, 200, "{answer}");
    }

    /// Waits until the mesh has this MeshService with an address, and returns it.
    pub(super) async fn mesh_service(&self, name: &str) -> Value {
        eventually("the MeshService", || async {
            let (status, found) =
                self.call("GET", &format!("/meshes/default/meshservices/{name}"), None).await?;
            (status == 200 && found["status"]["vips"][0]["ip"].is_string()).then_some(found)
        })
        .await
    }
}

//! A look at a control plane as a person who sets it up would take it: each question by itself, reads alone.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::client::KumaControlPlane;
use super::capabilities::{self, KumaVersion};
use super::errors::{self, RequestKind};
use ecs_mesh_control_plane::http::{Transport, segment};
use ecs_mesh_control_plane::{MeshError, MeshErrorKind};
use ecs_mesh_model::MeshName;

/// What a control plane says of itself.
#[derive(Clone, Debug)]
pub struct KumaDiagnostics {
    /// `GET /`.
    pub version: Result<KumaVersion, MeshError>,
    /// What is asked only of a server that answers; `None` where `GET /` already said that there is none.
    pub probes: Option<KumaProbes>,
}

/// What a control plane that can be reached says.
#[derive(Clone, Debug)]
pub struct KumaProbes {
    /// `GET /who-am-i`.
    pub caller: Result<CallerInfo, MeshError>,
    /// `GET /config`.
    pub configuration: Result<ServerConfig, MeshError>,
    /// `GET /meshes/NAME`.
    pub meshes: BTreeMap<MeshName, Result<MeshSettings, MeshError>>,
    /// How many registrations carry the operator's mark.
    pub owned: Result<usize, MeshError>,
}

/// Who the control plane takes the caller for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerInfo {
    /// `mesh-system:admin` and its like.
    pub name: String,
    /// `mesh-system:admin`, `mesh-system:authenticated` and their like.
    pub groups: Vec<String>,
}

/// The part of the configuration that matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerConfig {
    /// `zone`, `global` or (before 2.0's end) `standalone`.
    pub mode: String,
    /// Why it takes no Dataplanes, if so.
    pub refuses_writes: Option<&'static str>,
    /// `dpServer.hds.enabled`.
    pub health_discovery: Option<bool>,
}

/// The part of a mesh that matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeshSettings {
    /// The backend of `mtls`, if it is on.
    pub mtls: Option<String>,
    /// `meshServices.mode`, where it is given.
    pub mesh_services: Option<String>,
}

impl<T: Transport> KumaControlPlane<T> {
    /// Asks everything that a set-up needs; writes nothing. Takes as long as the connection's time limit for each
    /// question, and one question only where nobody answers.
    pub async fn diagnose(&self, meshes: &BTreeSet<MeshName>) -> KumaDiagnostics {
        let version = self.load_version().await;
        if let Err(error) = &version
            && matches!(error.kind, MeshErrorKind::Unreachable | MeshErrorKind::UnexpectedResponse)
        {
            return KumaDiagnostics { version, probes: None };
        }
        let caller = self.get_json("/who-am-i", RequestKind::Server).await.and_then(|answer| caller(&answer));
        let configuration = self.get_json("/config", RequestKind::Server).await.map(|config| configuration(&config));
        let mut found = BTreeMap::new();
        for mesh in meshes {
            let answer = self.get_json(&format!("/meshes/{}", segment(mesh.as_str())), RequestKind::Mesh).await;
            found.insert(mesh.clone(), answer.map(|mesh| settings(&mesh)));
        }
        let mut owned = BTreeSet::new();
        let listed = self.list_owned(&mut |read_cache| _ = owned.insert(read_cache.id)).await;
        let owned = listed.map(|()| owned.len());
        KumaDiagnostics { version, probes: Some(KumaProbes { caller, configuration, meshes: found, owned }) }
    }
}

fn caller(answer: &Value) -> Result<CallerInfo, MeshError> {
    let name = answer.get("name").and_then(Value::as_str);
    let name = name.ok_or_else(|| errors::unexpected("GET /who-am-i", "the answer has no name"))?;
    let groups = answer.get("groups").and_then(Value::as_array).into_iter().flatten();
    Ok(CallerInfo {
        name: name.to_owned(),
        groups: groups.filter_map(Value::as_str).map(str::to_owned).collect(),
    })
}

fn configuration(config: &Value) -> ServerConfig {
    let mode = config.get("mode").and_then(Value::as_str).unwrap_or("unknown");
    ServerConfig {
        mode: mode.to_owned(),
        refuses_writes: capabilities::refuses_writes(config),
        health_discovery: config.pointer("/dpServer/hds/enabled").and_then(Value::as_bool),
    }
}

fn settings(mesh: &Value) -> MeshSettings {
    let text = |pointer: &str| mesh.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    MeshSettings { mtls: text("/mtls/enabledBackend"), mesh_services: text("/meshServices/mode") }
}

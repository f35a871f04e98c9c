//! Generates `MeshService`s from Dataplanes, and sets the status of all `MeshService`s, as the leading instance does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::{Map, Value, json};

use ecs_mesh_model::Timestamp;

use super::body::{inbounds, label, list, number, object, protocol, section, state, tag, text};
use super::kinds::{self, ResourceType};
use super::object::{MeshAndName, StoredObject};
use super::release::EmulatedRelease;
use super::rules::{self, DISPLAY_NAME, MANAGED_BY, SERVICE_TAG, WORKLOAD, is_dns_1035_label};
use super::server::{KumaCp, MeshServicesMode, zone_labels};
use ecs_mesh_api::KumaFeature;

const GENERATOR: &str = "meshservice-generator";
const GRACE_STARTED: &str = "kuma.io/deletion-grace-period-started-at";
const GRACE: Duration = Duration::from_hours(1);
/// Time until a `MeshService` from the API has its first status.
const STATUS_LAG: Duration = Duration::from_secs(2);

impl KumaCp {
    /// Refreshes the `MeshService`s of outdated meshes. Reads of them do so as well.
    pub fn catch_up(&mut self, now: Timestamp) {
        let due = |(mesh, at): (&String, &Timestamp)| (*at <= now).then(|| mesh.clone());
        let mut stale: Vec<String> = self.stale_services.iter().filter_map(due).collect();
        // A real server takes the meshes in no fixed order, which shows in the VIPs. The newest is first here.
        stale.sort_by_key(|mesh| {
            let created = self.store.get("Mesh", &(String::new(), mesh.clone())).map(|mesh| mesh.created);
            std::cmp::Reverse(created)
        });
        for mesh in stale {
            self.refresh_services(&mesh, now);
        }
    }

    /// Generates and updates the `MeshService`s of a mesh's Dataplanes.
    pub(super) fn refresh_services(&mut self, mesh: &str, at: Timestamp) {
        let Some(kind) = kinds::named("MeshService") else { return };
        self.stale_services.remove(mesh);
        if !self.can_read_dataplanes(mesh) {
            return;
        }
        if self.mesh_services_mode(mesh, self.instances.leader.release) != MeshServicesMode::Disabled {
            self.generate(kind, mesh, at);
        }
        self.fill_statuses(kind, mesh, at);
    }

    fn generate(&mut self, kind: &'static ResourceType, mesh: &str, at: Timestamp) {
        let (mut wanted, born) = self.wanted(mesh);
        let managed: Vec<(MeshAndName, StoredObject)> = self
            .store
            .list(kind.name, Some(mesh))
            .filter(|(_, object)| label(&object.body, MANAGED_BY) == GENERATOR)
            .map(|(key, object)| (key.clone(), object.clone()))
            .collect();
        for (key, current) in managed {
            let offers = wanted.remove(&key.1).unwrap_or_default();
            self.regenerate(kind, &key, &current, &offers, at);
        }
        for name in born {
            let Some(ports) = wanted.remove(&name).and_then(|offers| offers.into_iter().next()) else {
                continue;
            };
            let key = (mesh.to_owned(), name.clone());
            if self.store.get(kind.name, &key).is_some() {
                continue;
            }
            let mut labels = zone_labels(mesh, &self.config.zone);
            labels[DISPLAY_NAME] = json!(name);
            labels[MANAGED_BY] = json!(GENERATOR);
            let labels = labels.as_object().cloned().unwrap_or_default();
            let selector = if self.instances.leader.release.has(KumaFeature::TagServices) {
                json!({"dataplaneTags": {SERVICE_TAG: name}})
            } else {
                json!({"dataplaneLabels": {"matchLabels": {WORKLOAD: name}}})
            };
            let spec = json!({"state": "Unavailable", "selector": selector, "ports": ports});
            let status = json!({"vips": [{"ip": self.take_vip()}]});
            let own = Map::from_iter([("spec".to_owned(), spec), ("status".to_owned(), status)]);
            self.store.put(
                kind.name,
                key.clone(),
                StoredObject::new(kind, &key, self.instances.leader.release, (at, at), labels, own),
            );
        }
    }

    /// Whether every Dataplane of the mesh can be read, without which no `MeshService` is generated.
    fn can_read_dataplanes(&self, mesh: &str) -> bool {
        let Some(kind) = kinds::named("Dataplane") else { return false };
        let mut all = self.store.list(kind.name, Some(mesh));
        all.all(|(key, object)| object.read(kind, key, self.instances.leader.release).is_ok())
    }

    /// Ports by service, of the oldest Dataplane first, and the services in that order.
    fn wanted(&self, mesh: &str) -> (BTreeMap<String, Vec<Value>>, Vec<String>) {
        let mut dataplanes: Vec<(&MeshAndName, &StoredObject)> =
            self.store.list("Dataplane", Some(mesh)).collect();
        dataplanes.sort_by_key(|(key, object)| (object.created, *key));
        let mut wanted: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        let mut born = Vec::new();
        for (_, object) in dataplanes {
            for (service, ports) in offers(&object.body, self.instances.leader.release) {
                let known = wanted.entry(service.to_owned()).or_default();
                if known.is_empty() {
                    born.push(service.to_owned());
                }
                known.push(Value::Array(ports));
            }
        }
        (wanted, born)
    }

    fn regenerate(
        &mut self,
        kind: &'static ResourceType,
        key: &MeshAndName,
        current: &StoredObject,
        offers: &[Value],
        at: Timestamp,
    ) {
        let mut own = current.spec();
        let mut labels = current.labels();
        let started = text(&json!(labels), GRACE_STARTED).to_owned();
        match offers.first() {
            Some(first) => {
                let ports = own.get("spec").map(|spec| spec["ports"].clone()).unwrap_or_default();
                if !offers.contains(&ports) {
                    own["spec"]["ports"] = first.clone();
                    if !self.instances.leader.release.has(KumaFeature::TagServices) {
                        own["spec"]["selector"] =
                            json!({"dataplaneLabels": {"matchLabels": {WORKLOAD: key.1}}});
                    }
                } else if started.is_empty() {
                    return;
                }
                labels.remove(GRACE_STARTED);
            }
            None => match Timestamp::parse(&started) {
                Some(started) if started.age_at(at) > GRACE => {
                    self.store.remove(kind.name, key);
                    return;
                }
                Some(started) => {
                    let again = started.plus(GRACE).plus(Duration::from_secs(1));
                    self.refresh_by(&key.0, again);
                    return;
                }
                None => {
                    labels.insert(GRACE_STARTED.to_owned(), json!(at.to_string()));
                    let again = at.plus(GRACE).plus(Duration::from_secs(1));
                    self.refresh_by(&key.0, again);
                }
            },
        }
        let object =
            StoredObject::new(kind, key, self.instances.leader.release, (current.created, at), labels, own);
        self.store.put(kind.name, key.clone(), object);
    }

    fn fill_statuses(&mut self, kind: &'static ResourceType, mesh: &str, at: Timestamp) {
        let mut by_age: Vec<(MeshAndName, StoredObject)> = self
            .store
            .list(kind.name, Some(mesh))
            .map(|(key, object)| (key.clone(), object.clone()))
            .collect();
        by_age.sort_by_key(|(_, object)| object.created);
        let members = self.members(mesh, &by_age);
        for ((key, current), members) in by_age.into_iter().zip(members) {
            let generated = label(&current.body, MANAGED_BY) == GENERATOR;
            let due = current.modified.plus(STATUS_LAG);
            if !generated && current.body["status"].get("vips").is_none() && at < due {
                self.refresh_by(mesh, due);
                continue;
            }
            let mut own = current.spec();
            let before = own.clone();
            let spec = own.entry("spec").or_insert_with(|| json!({}));
            spec["state"] = json!(if members.healthy > 0 { "Available" } else { "Unavailable" });
            if let Some(spec) =
                spec.as_object_mut().filter(|_| !self.instances.leader.release.has(KumaFeature::TagServices))
            {
                spec.remove("identities");
            }
            if !members.services.is_empty() {
                spec["identities"] = members
                    .services
                    .iter()
                    .map(|name| json!({"type": "ServiceTag", "value": name}))
                    .collect();
            }
            let vip = current.body["status"]["vips"][0]["ip"].as_str().map(str::to_owned);
            let vip = vip.unwrap_or_else(|| self.take_vip());
            let display = match label(&current.body, DISPLAY_NAME) {
                "" => key.1.as_str(),
                display => display,
            };
            own.insert("status".to_owned(), status(display, &vip, &members));
            if own != before {
                let object = current.rewritten(kind, &key, at, own);
                self.store.put(kind.name, key, object);
            }
        }
    }

    fn members(&self, mesh: &str, services: &[(MeshAndName, StoredObject)]) -> Vec<SelectedDataplanes> {
        let mut members: Vec<SelectedDataplanes> =
            services.iter().map(|_| SelectedDataplanes::default()).collect();
        if services.is_empty() {
            return members;
        }
        for (key, dataplane) in self.store.list("Dataplane", Some(mesh)) {
            let connected = self.sidecars.get(key).is_some_and(|sidecar| sidecar.connected().is_some());
            for ((_, service), members) in services.iter().zip(&mut members) {
                if selects(&service.body["spec"]["selector"], &dataplane.body) {
                    members.add(&service.body, &dataplane.body, connected);
                }
            }
        }
        members
    }

    fn take_vip(&mut self) -> String {
        let first = u32::from(self.config.first_service_address);
        let vip = Ipv4Addr::from(first.saturating_add(self.next_vip));
        self.next_vip += 1;
        vip.to_string()
    }
}

/// Counts of the Dataplanes that a `MeshService` selects.
#[derive(Default)]
struct SelectedDataplanes {
    total: u64,
    connected: u64,
    healthy: u64,
    services: BTreeSet<String>,
}

impl SelectedDataplanes {
    fn add(&mut self, service: &Value, dataplane: &Value, connected: bool) {
        self.total += 1;
        self.connected += u64::from(connected);
        let ready = |port: &Value| {
            inbounds(dataplane).iter().any(|inbound| state(inbound) == "Ready" && is_target(port, inbound))
        };
        self.healthy += u64::from(list(&service["spec"], "ports").iter().all(ready));
        let named = inbounds(dataplane).iter().map(|inbound| tag(inbound, SERVICE_TAG));
        self.services.extend(named.filter(|name| !name.is_empty()).map(str::to_owned));
    }
}

/// The ports of a Dataplane by service: of its workload label since 3.0, before of the inbounds' tags.
fn offers(dataplane: &Value, release: EmulatedRelease) -> BTreeMap<&str, Vec<Value>> {
    let mut offers: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    let by_workload = !release.has(KumaFeature::TagServices);
    for inbound in inbounds(dataplane) {
        let service = if by_workload { label(dataplane, WORKLOAD) } else { tag(inbound, SERVICE_TAG) };
        if is_dns_1035_label(service) {
            offers.entry(service).or_default().push(offered_port(inbound, release));
        }
    }
    offers
}

fn offered_port(inbound: &Value, release: EmulatedRelease) -> Value {
    let port = number(inbound, "port");
    let protocol = match protocol(inbound).to_lowercase() {
        found if rules::is_protocol(&found, release) => found,
        _ => "tcp".to_owned(),
    };
    json!({"name": section(inbound), "port": port, "targetPort": port, "appProtocol": protocol})
}

fn is_target(port: &Value, inbound: &Value) -> bool {
    match port.get("targetPort") {
        Some(Value::String(name)) => section(inbound) == *name,
        Some(target) => target.as_u64() == Some(number(inbound, "port")),
        None => number(port, "port") == number(inbound, "port"),
    }
}

/// Whether the selector of a `MeshService` selects a Dataplane.
pub(super) fn selects(selector: &Value, dataplane: &Value) -> bool {
    let within = |wanted: &Map<String, Value>, found: &Map<String, Value>| {
        wanted.iter().all(|(name, value)| found.get(name) == Some(value))
    };
    if let Some(name) = selector["dataplaneRef"]["name"].as_str() {
        return text(dataplane, "name") == name;
    }
    if selector.get("dataplaneLabels").is_some() {
        return within(object(&selector["dataplaneLabels"], "matchLabels"), object(dataplane, "labels"));
    }
    let tags = object(selector, "dataplaneTags");
    !tags.is_empty() && inbounds(dataplane).iter().any(|inbound| within(tags, object(inbound, "tags")))
}

fn status(display: &str, vip: &str, members: &SelectedDataplanes) -> Value {
    let made_by = json!({"coreName": "local-universal-mesh-service"});
    let counts: Map<String, Value> =
        [("connected", members.connected), ("healthy", members.healthy), ("total", members.total)]
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| (name.to_owned(), json!(count)))
            .collect();
    json!({
        "addresses": [{
            "hostname": format!("{display}.svc.mesh.local"),
            "origin": "HostnameGenerator",
            "hostnameGeneratorRef": made_by,
        }],
        "vips": [{"ip": vip}],
        "tls": {"status": "NotReady"},
        "hostnameGenerators": [{
            "hostnameGeneratorRef": made_by,
            "conditions": [{"type": "Generated", "status": "True", "reason": "Generated", "message": ""}],
        }],
        "dataplaneProxies": counts,
    })
}

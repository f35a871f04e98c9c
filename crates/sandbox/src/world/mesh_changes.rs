//! Changes of the mesh by its administrator: the way from services by tag to MeshServices, and to 3.0.

use serde_json::{Value, json};

use super::{MESH, ScenarioService, World, deploy};
use crate::aws::Cloud;
use crate::kuma::KumaCp;
use ecs_mesh_model::Timestamp;

/// Sets `meshServices.mode` of the mesh, which 2.9 to 2.14 have.
///
/// # Errors
/// The error text of the control plane.
pub fn set_mesh_services_mode(kuma: &mut KumaCp, mode: &str, now: Timestamp) -> Result<(), String> {
    let mesh = json!({"type": "Mesh", "name": MESH, "meshServices": {"mode": mode}});
    kuma.insert_foreign("", MESH, &mesh, now)?;
    kuma.catch_up(now);
    Ok(())
}

/// Lets each MeshService select its Dataplanes by the label of their workload, since 3.0 drops selectors by tag.
///
/// # Errors
/// The error text of the control plane.
pub fn select_by_workload(kuma: &mut KumaCp, now: Timestamp) -> Result<(), String> {
    kuma.catch_up(now);
    let by_tag = kuma.mesh_services(MESH).filter_map(|(name, service)| {
        let workload = service.pointer("/spec/selector/dataplaneTags/kuma.io~1service")?.clone();
        Some((name.to_owned(), service.clone(), workload))
    });
    for (name, mut service, workload) in by_tag.collect::<Vec<(String, Value, Value)>>() {
        // The server's own note about a MeshService without Dataplanes, which it starts anew.
        if let Some(labels) = service["labels"].as_object_mut() {
            labels.remove("kuma.io/deletion-grace-period-started-at");
        }
        service["spec"]["selector"] =
            json!({"dataplaneLabels": {"matchLabels": {"kuma.io/workload": workload}}});
        kuma.insert_foreign(MESH, &name, &service, now)?;
    }
    kuma.catch_up(now);
    Ok(())
}

impl World {
    /// Deploys a further service.
    ///
    /// # Errors
    /// The error of ECS or IAM.
    pub fn deploy_service(
        &mut self,
        service: ScenarioService,
        cloud: &mut Cloud,
        now: Timestamp,
    ) -> Result<(), String> {
        deploy(cloud, &service, self.config.control_planes, now).map_err(|error| error.to_string())?;
        self.sidecars.add(&service);
        self.services.push(service);
        Ok(())
    }
}

//! Sidecars in template mode, which register their own Dataplane.
//!
//! Source: `pkg/xds/server/callbacks/dataplane_lifecycle.go` of Kuma: the Dataplane of a connecting proxy replaces the stored
//! one, and is deleted after the proxy has disconnected.

use std::time::Duration;

use serde_json::Value;

use ecs_mesh_model::Timestamp;

use super::object::MeshAndName;
use super::server::KumaCp;

/// Time from the end of such a sidecar's connection to the deletion of its Dataplane.
pub(super) const TEMPLATE_CLEANUP_AGE: Duration = Duration::from_secs(10);

impl KumaCp {
    /// Connects a sidecar with a template: the Dataplane becomes that of the template, spec and labels, whoever wrote it before.
    /// It is deleted 10 s after [`disconnect_sidecar`](Self::disconnect_sidecar), unless a sidecar has connected with its name.
    ///
    /// # Errors
    /// The error text of the API that the control plane refuses the template with.
    pub fn connect_with_template(
        &mut self,
        (mesh, name): (&str, &str),
        address: &str,
        template: &Value,
        now: Timestamp,
    ) -> Result<(), String> {
        self.insert_foreign(mesh, name, template, now)?;
        self.connect_sidecar(mesh, name, address, now);
        self.set_deletes_at_disconnect(&key(mesh, name), true);
        Ok(())
    }

    /// Disconnects a sidecar that was killed: its Dataplane stays, whoever wrote it.
    pub fn kill_sidecar(&mut self, mesh: &str, name: &str, now: Timestamp) {
        self.set_deletes_at_disconnect(&key(mesh, name), false);
        self.disconnect_sidecar(mesh, name, now);
    }
}

fn key(mesh: &str, name: &str) -> MeshAndName {
    (mesh.to_owned(), name.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kuma::KumaConfig;
    use crate::kuma::tests::{START, at};

    const NAME: (&str, &str) = ("default", "ip-10-0-0-1");

    fn template(task: &str) -> Value {
        json!({
            "type": "Dataplane", "mesh": NAME.0, "name": NAME.1, "labels": {"ecs-mesh.dev/task-id": task},
            "networking": {"address": "10.0.0.1", "inbound": [{"port": 15000, "tags": {"kuma.io/service": "web"}}]},
        })
    }

    fn tasks(cp: &KumaCp) -> Vec<String> {
        let task =
            |body: &Value| body["labels"]["ecs-mesh.dev/task-id"].as_str().unwrap_or("none").to_owned();
        cp.dataplanes().map(|(_, _, body)| task(body)).collect()
    }

    #[test]
    fn each_connect_overwrites_the_dataplane() {
        let mut cp = KumaCp::new(KumaConfig::default(), START);
        let written = json!({"type": "Dataplane", "mesh": NAME.0, "name": NAME.1, "labels": {"team": "a"},
            "networking": {"address": "10.0.0.9", "inbound": [{"port": 1, "tags": {"kuma.io/service": "db"}}]}});
        cp.insert_foreign(NAME.0, NAME.1, &written, at(0)).unwrap();
        cp.connect_with_template(NAME, "10.0.0.1", &template("a"), at(1)).unwrap();
        let (_, _, body) = cp.dataplanes().next().unwrap();
        assert_eq!(
            (&body["networking"]["address"], &body["labels"]["team"]),
            (&json!("10.0.0.1"), &json!(null))
        );
        assert!(cp.connect_with_template(NAME, "10.0.0.1", &json!({}), at(2)).is_err());
        assert!(cp.take_journal().is_empty(), "a sidecar's write is no client's");
    }

    #[test]
    fn clean_disconnect_deletes_the_dataplane_after_10_s() {
        let mut cp = KumaCp::new(KumaConfig::default(), START);
        cp.connect_with_template(NAME, "10.0.0.1", &template("a"), at(0)).unwrap();
        cp.disconnect_sidecar(NAME.0, NAME.1, at(10));
        cp.tick(at(19));
        assert_eq!(tasks(&cp), ["a"]);
        cp.tick(at(20));
        assert_eq!(tasks(&cp), [""; 0]);
    }

    #[test]
    fn dataplane_of_a_killed_sidecar_stays() {
        let mut cp = KumaCp::new(KumaConfig::default(), START);
        cp.connect_with_template(NAME, "10.0.0.1", &template("a"), at(0)).unwrap();
        cp.kill_sidecar(NAME.0, NAME.1, at(10));
        cp.tick(at(3_600));
        assert_eq!(tasks(&cp), ["a"]);
    }

    #[test]
    fn dataplane_of_a_name_that_recurs_stays() {
        let mut cp = KumaCp::new(KumaConfig::default(), START);
        cp.connect_with_template(NAME, "10.0.0.1", &template("a"), at(0)).unwrap();
        cp.disconnect_sidecar(NAME.0, NAME.1, at(10));
        cp.connect_with_template(NAME, "10.0.0.1", &template("b"), at(15)).unwrap();
        cp.tick(at(3_600));
        assert_eq!(tasks(&cp), ["b"]);
    }
}

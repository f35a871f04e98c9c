//! The report of a sidecar when it connects: the metadata of a DataplaneInsight.
//!
//! Sources: `api/mesh/v1alpha1/dataplane_insight.proto` (`metadata`) and `pkg/core/xds/types/features.go`
//! (`feature-bind-outbounds`) of Kuma.

use serde_json::Value;

use super::labels::{self, OPERATOR_LABEL};
use ecs_mesh_core::intent::RegistrationId;
use ecs_mesh_model::{MeshName, SidecarOutbounds};

/// The feature of a sidecar that was started with `--bind-outbounds`.
const BIND_OUTBOUNDS: &str = "feature-bind-outbounds";

/// How the sidecar of an overview gets its outbounds, if it is of this operator's registration and has reported its features.
/// A sidecar that has disconnected counts: it starts again as before, since a task's definition never changes.
pub(super) fn read(overview: &Value, operator: &str) -> Option<(RegistrationId, SidecarOutbounds)> {
    if labels::label(overview, OPERATOR_LABEL) != Some(operator) {
        return None;
    }
    let features = overview.pointer("/dataplaneInsight/metadata/features")?.as_array()?;
    let binds = features.iter().any(|feature| feature == BIND_OUTBOUNDS);
    let text = |field: &str| overview.get(field).and_then(Value::as_str);
    let id = RegistrationId { mesh: MeshName::parse(text("mesh")?).ok()?, name: text("name")?.into() };
    Some((id, if binds { SidecarOutbounds::Bound } else { SidecarOutbounds::Listeners }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn features_show_how_the_sidecar_was_started() {
        let read_with = |operator: &str, insight: Value| {
            let overview = json!({"type": "DataplaneOverview", "mesh": "default", "name": "a",
                "labels": {OPERATOR_LABEL: operator}, "dataplaneInsight": insight});
            read(&overview, "op").map(|(id, outbounds)| (id.to_string(), outbounds))
        };
        let with = |features: Value| json!({"metadata": {"features": features}, "subscriptions": []});
        let found = |outbounds| Some(("default/a".to_owned(), outbounds));
        let bound = json!(["feature-tcp-accesslog-via-named-pipe", "feature-bind-outbounds"]);
        for (operator, insight, expected) in [
            ("op", with(bound.clone()), found(SidecarOutbounds::Bound)),
            ("op", with(json!(["feature-tcp-accesslog-via-named-pipe"])), found(SidecarOutbounds::Listeners)),
            ("op", with(Value::Null), None),
            ("op", json!({"subscriptions": [{"connectTime": "1"}]}), None),
            ("op", json!({}), None),
            ("other", with(bound), None),
        ] {
            assert_eq!(read_with(operator, insight.clone()), expected, "{operator} {insight}");
        }
    }
}

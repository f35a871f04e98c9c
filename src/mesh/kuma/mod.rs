//! Kuma and Kong Mesh: Dataplane resources over the REST API.

//! Requests to servers with scripted responses.

mod enterprise;
mod steps;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde_json::{Value, json};

use super::*;
use ecs_mesh_consul::testing::*;
use ecs_mesh_consul::{ConsulControlPlane, TokenRefKind};
use ecs_mesh_control_plane::NoObserver;
use ecs_mesh_control_plane::http::{BodySink, HttpMethod, ResponseHead, StreamTransport, TransportError};

fn acl(script: &Arc<ScriptedConsulTransport>) -> ConsulAclBackend<Arc<ScriptedConsulTransport>> {
    ConsulAclBackend::new(Arc::new(consul(script)))
}

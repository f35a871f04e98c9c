//! Tests of the client with scripted responses and over real HTTP.

mod calls;
mod lookup;
mod members;
mod objects;
mod over_http;
mod recorded;
mod removal;
mod tls;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::*;
use ecs_mesh_api::AllowList;
use ecs_mesh_control_plane::http::{BodySink, HttpMethod, ResponseHead, StreamTransport, TransportError};
use ecs_mesh_control_plane::{NoObserver, RegistrationSummary};
use ecs_mesh_core::intent::RegistrationId;
use ecs_mesh_model::{ClusterArn, MeshName, TaskId};

use crate::testing::*;

fn allow_all() -> AllowList {
    AllowList::new(["*"], ["/"])
}

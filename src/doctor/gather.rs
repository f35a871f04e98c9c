//! Asks AWS and the control planes, each question with a time limit, several at once. Reads alone.

mod aws;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::facts::{Facts, NoAws};
use super::place::Place;
use crate::api::{ControlPlaneSpec, HumanDuration};
use crate::manifests::{ManifestSet, Status};
use crate::mesh::kuma::{KumaControlPlane, NoObserver, Survey};
use crate::model::{MeshName, OperatorId};
use crate::observe::sdk::{AwsClients, AwsOptions, ConnectError};

/// The longest wait for one answer; a control plane's own limit counts where it is shorter.
const DEADLINE: Duration = Duration::from_secs(5);
/// The SDK may ask the EC2 instance for the Region, in several steps.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// What to look at.
#[derive(Clone, Debug)]
pub struct Question {
    /// The operator's identity.
    pub operator: OperatorId,
    /// The manifests as loaded.
    pub manifests: Status,
    /// The queue.
    pub queue_url: Option<String>,
    /// The Region, where it is given.
    pub region: Option<String>,
}

/// Finds out everything. Ends, whatever does not answer; no failure stops another question.
pub async fn gather(question: Question) -> Facts {
    let Question { operator, manifests, queue_url, region } = question;
    let set = Arc::clone(&manifests.set);
    let of_aws = async {
        let options = AwsOptions { region: region.clone(), ..AwsOptions::default() };
        let clients = tokio::time::timeout(CONNECT_DEADLINE, AwsClients::connect(options)).await;
        let clients = clients
            .map_err(|_| {
                let why =
                    format!("no Region was found within {CONNECT_DEADLINE:?}: set AWS_REGION or --region");
                NoAws::NoRegion(why)
            })
            .and_then(|clients| {
                clients.map_err(|error| match error {
                    ConnectError::NoRoots => NoAws::NoRoots(error.to_string()),
                    _ => NoAws::NoRegion(error.to_string()),
                })
            });
        let known = clients.as_ref().ok().map(|clients| clients.region().to_owned()).or(region.clone());
        let place = Place::new(&set, queue_url.as_deref(), known.as_deref());
        let aws = match (clients, &place) {
            (Ok(clients), place) => {
                Ok(aws::ask(&clients, &set, queue_url.as_deref(), place.as_ref().ok()).await)
            }
            (Err(error), _) => Err(error),
        };
        (place, aws)
    };
    let ((place, aws), planes) = tokio::join!(of_aws, planes(&set, &operator));
    Facts { manifests, queue_url, place, aws, planes }
}

async fn planes(set: &ManifestSet, operator: &OperatorId) -> BTreeMap<Arc<str>, Result<Survey, String>> {
    let mut looks = tokio::task::JoinSet::new();
    for (name, spec) in &set.control_planes {
        let bound = set.bindings.values().filter(|binding| binding.spec.control_plane == **name);
        let meshes: BTreeSet<MeshName> = bound.map(|binding| binding.spec.mesh.clone()).collect();
        let (name, spec, operator) = (Arc::clone(name), Arc::clone(spec), operator.clone());
        looks.spawn(async move { (name, survey(&spec, operator, &meshes).await) });
    }
    // A look that panicked would be missing, and a missing one is a check that is missing: it fails loudly instead.
    looks.join_all().await.into_iter().collect()
}

async fn survey(
    spec: &ControlPlaneSpec,
    operator: OperatorId,
    meshes: &BTreeSet<MeshName>,
) -> Result<Survey, String> {
    let mut connection = spec.kuma.clone().ok_or("spec.kuma is missing")?;
    connection.timeout = HumanDuration(connection.timeout.0.min(DEADLINE));
    let plane = KumaControlPlane::connect(&connection, operator, Arc::new(NoObserver))?;
    Ok(plane.survey(meshes).await)
}

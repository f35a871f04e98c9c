//! Lives in which the operator reads a second account, in another Region, by a role that it assumes. For minutes the role
//! cannot be assumed, its credentials are expired, or all its calls are throttled or hang. Such a failure is confined to the
//! account: tasks of the other one are registered in time, and nothing of this one is removed for its absence.

mod accounts;
mod registrations;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ecs_mesh_aws::aws::{AwsError, AwsErrorKind, MemberAccount};
use ecs_mesh_model::{AccountRegion, Timestamp};
use ecs_mesh_sandbox::aws::CloudConfig;
use tokio::time::{Instant, sleep};

use super::aws::error;
use super::driver::in_a_while;
use super::env::SimEnv;
use super::faults::SimFault;
use super::{held_deployments, two_operators};

pub(super) use accounts::SimAccounts;
pub(super) use registrations::MemberRegistrations;

const ACCOUNT: &str = "444455556666";
const REGION: &str = "eu-north-1";

/// How long the operator may act on what it read before the account failed.
const LAG: Duration = Duration::from_secs(20);
/// Time limit of a call that hangs.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Whether a life has a second account. Not by a draw, so that other lives do not depend on it.
pub(super) fn are_in(seed: u64) -> bool {
    (seed / 7) % 5 == 4 && !two_operators::are_in(seed) && !held_deployments::are_in(seed)
}

/// The second account's settings beside those of the first.
fn config(config: CloudConfig) -> CloudConfig {
    CloudConfig {
        account: ACCOUNT.to_owned(),
        region: REGION.to_owned(),
        subnet: "10.1.0.0/16".to_owned(),
        ..config
    }
}

/// The manifests of the account, with a binding like the first account's.
pub(super) fn manifest(manifests: &str, own: &str, cluster: &str) -> String {
    let binding = manifests.split("---\n").find(|document| document.contains("kind: MeshBinding"));
    let mut text =
        binding.unwrap_or_default().replace("{name: sandbox}", "{name: member}").replace(own, cluster);
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "---
apiVersion: ecs-mesh.dev/v1alpha1
kind: AwsAccount
metadata: {{name: member}}
spec:
  account: \"{ACCOUNT}\"
  assumeRole: arn:aws:iam::{ACCOUNT}:role/ecs-mesh-member
  regions: [{REGION}]
"
    );
    text
}

/// The account as it can be reached.
pub(super) struct MemberAccess {
    pub(super) env: Arc<SimEnv>,
    state: Mutex<AccessState>,
}

struct AccessState {
    /// Of its own, so that the rest of a life does not depend on it.
    rng: fastrand::Rng,
    declared: BTreeSet<AccountRegion>,
    failure: Option<(SimFault, Timestamp, Timestamp)>,
    next: Instant,
}

impl MemberAccess {
    pub(super) fn new(seed: u64, env: Arc<SimEnv>) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x3E3B_E400);
        let next = in_a_while(&mut rng, 15..40);
        Self { env, state: Mutex::new(AccessState { rng, declared: BTreeSet::new(), failure: None, next }) }
    }

    /// Lets the account fail for some time, again and again. Returns the failure that begins.
    pub(super) fn busy_step(&self) -> Option<SimFault> {
        let mut state = self.state.lock().unwrap();
        let now = self.env.now();
        if state.failure.is_some_and(|(_, _, until)| now >= until) {
            state.failure = None;
        }
        if Instant::now() < state.next {
            return None;
        }
        let lasts = Duration::from_secs(state.rng.u64(30..100));
        let faults = [
            SimFault::MemberRoleDenied,
            SimFault::MemberCredentials,
            SimFault::MemberThrottled,
            SimFault::MemberHangs,
        ];
        let fault = faults[state.rng.usize(..faults.len())];
        state.failure = Some((fault, now, now.plus(lasts)));
        let pause = in_a_while(&mut state.rng, 10..50);
        state.next = pause + lasts;
        self.env.record(|| format!("{fault:?} for {lasts:?}"));
        Some(fault)
    }

    pub(super) fn end_failure(&self) {
        self.state.lock().unwrap().failure = None;
    }

    /// Since when no call succeeds.
    pub(super) fn failing_since(&self) -> Option<Timestamp> {
        let now = self.env.now();
        let failure = self.state.lock().unwrap().failure;
        failure.filter(|(_, _, until)| now < *until).map(|(_, since, _)| since)
    }

    /// Sets the accounts that the manifests declare.
    fn declare(&self, members: &[MemberAccount]) {
        let places = members.iter().flat_map(|member| {
            member.regions.iter().map(|region| AccountRegion::new(member.role.account(), region))
        });
        self.state.lock().unwrap().declared = places.collect();
    }

    /// Fails as the account does.
    async fn enter(&self, place: &AccountRegion, operation: &'static str) -> Result<(), AwsError> {
        let (declared, failure) = {
            let state = self.state.lock().unwrap();
            // IAM has no Regions.
            let is_declared = |declared: &AccountRegion| {
                declared.account == place.account
                    && (place.region.is_empty() || declared.region == place.region)
            };
            (state.declared.iter().any(is_declared), state.failure)
        };
        if !declared {
            return Err(AwsError {
                code: "UndeclaredAccount".to_owned(),
                ..error(AwsErrorKind::Denied, operation)
            });
        }
        let now = self.env.now();
        let Some((fault, _, _)) = failure.filter(|(_, _, until)| now < *until) else { return Ok(()) };
        Err(match fault {
            SimFault::MemberRoleDenied => error(AwsErrorKind::Denied, "sts:AssumeRole"),
            SimFault::MemberCredentials => error(AwsErrorKind::Credentials, operation),
            SimFault::MemberThrottled => error(AwsErrorKind::Throttled, operation),
            _ => {
                sleep(TIMEOUT).await;
                error(AwsErrorKind::Unavailable, operation)
            }
        })
    }
}

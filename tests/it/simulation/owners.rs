//! Owners of Dataplanes: a service whose sidecars register it, in some lives, and edits that change the owner of a service.

use std::time::Duration;

use ecs_mesh_model::{DataplaneOwner, Timestamp};
use ecs_mesh_sandbox::world::{ScenarioService, World};

use super::driver::OPERATOR;
use super::env::SimEnv;
use super::faults::SimFault;

/// How long after an edit a write may still arrive that the operator sent by the earlier manifests.
const EDIT_LAG: Duration = Duration::from_secs(25);

/// The owners that the manifests of a life name.
pub(super) struct Owners {
    /// Of its own, so that the rest of a life does not depend on it.
    rng: fastrand::Rng,
    /// The service in template mode.
    template: Option<ScenarioService>,
    /// The manifests name the operator for the service in template mode.
    names_operator: bool,
    /// Whether the last deployed sidecars of that service have a template.
    deployed_template: bool,
    /// The service that is only observed, and since when.
    observed: Option<(String, Timestamp)>,
}

impl Owners {
    pub(super) fn of_life(seed: u64, env: &SimEnv, is_held: bool) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x0B5E_77E4);
        let template = (rng.u8(..3) == 0 && !is_held).then(|| ScenarioService::in_template_mode(OPERATOR));
        template.iter().for_each(|_| env.faults.count(SimFault::TemplateMode));
        Self { rng, template, names_operator: false, deployed_template: true, observed: None }
    }

    /// The services beside those of the world.
    pub(super) fn further_services(&self) -> Vec<ScenarioService> {
        self.template.iter().cloned().collect()
    }

    /// Changes the owner of a service of the world, at times. The task definition follows, or does not.
    pub(super) fn edit(&mut self, env: &SimEnv, world: &mut World, now: Timestamp) {
        match self.rng.u8(..6) {
            0 => {
                let services = world.services();
                let service = services[self.rng.usize(..services.len())].name.clone();
                env.faults.count(SimFault::OwnerSwitch);
                env.record(|| format!("{service} is only observed"));
                self.observed = Some((service, now));
            }
            1..4 => self.observed = None,
            _ => {
                self.names_operator = self.template.is_some() && !self.names_operator;
                env.record(|| format!("the operator is named for sidecars: {}", self.names_operator));
                if self.rng.bool() {
                    self.deploy(!self.names_operator, env, world, now);
                }
            }
        }
    }

    /// Deploys the service in template mode with sidecars that have a template, or start by name, which a start script may hide.
    fn deploy(&mut self, template: bool, env: &SimEnv, world: &mut World, now: Timestamp) {
        let Some(service) = &self.template else { return };
        let hides_start = !template && self.rng.bool();
        let operator = template.then_some(OPERATOR);
        world.deploy_sidecar(&mut env.cloud.lock().unwrap(), &service.name, operator, hides_start, now);
        self.deployed_template = template;
        env.faults.count(SimFault::SidecarSwitch);
        env.record(|| format!("sidecars are deployed with a template: {template}, hidden: {hides_start}"));
    }

    /// Whether nothing is registered for the service's tasks.
    pub(super) fn is_observed(&self, service: &str) -> bool {
        self.observed.as_ref().is_some_and(|(observed, _)| observed == service)
    }

    /// The Workload of a service is gone, and with it the owner that it names.
    pub(super) fn forget(&mut self, service: &str) {
        if self.is_observed(service) {
            self.observed = None;
        }
    }

    /// Names the owners that fit the sidecars.
    pub(super) fn fix(&mut self) {
        (self.names_operator, self.observed) = (!self.deployed_template, None);
    }

    /// The manifests with the owners.
    pub(super) fn apply_to(&self, manifests: &str) -> String {
        let mut text = manifests.replace("  dataplanes: sidecar\n", "");
        let mut declare = |service: &str, owner: DataplaneOwner| {
            let declared = format!("  service: {service}\n");
            text = text.replace(&declared, &format!("{declared}  dataplanes: {owner}\n"));
        };
        let observed = self.observed.as_ref().map(|(service, _)| service);
        if let Some(template) = &self.template
            && !self.names_operator
            && observed != Some(&template.name)
        {
            declare(&template.name, DataplaneOwner::Sidecar);
        }
        if let Some(service) = observed {
            declare(service, DataplaneOwner::Observe);
        }
        text
    }

    /// The service that the operator may not write to now.
    pub(super) fn untouchable(&self, now: Timestamp) -> Option<&str> {
        let (service, since) = self.observed.as_ref()?;
        (since.age_at(now) > EDIT_LAG).then_some(service)
    }
}

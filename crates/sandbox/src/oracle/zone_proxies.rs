//! Judges the writes of zone ingresses and egresses, which are of no mesh: ownership, identity, evidence and leaks.

use serde_json::Value;

use super::{DRAIN_LABEL, Invariant, KumaOracle, STOP_EVENT_LAG, TASK_LABEL, UPGRADE_LAG, label};
use crate::aws::{Cloud, CloudTask};
use crate::kuma::{KumaCp, KumaJournalEntry};
use crate::world::{ScenarioService, role_name};
use ecs_mesh_api::ZoneProxyKind;
use ecs_mesh_model::{DesiredStatus, LastStatus, Tags, Timestamp};

/// The type of the role of a zone proxy, by its resource type. The rule of Kong Mesh's `aws-iam` authentication, implemented
/// independently of the operator.
fn role_type(kind: &str) -> Option<&'static str> {
    match kind {
        "ZoneIngress" => Some("ingress"),
        "ZoneEgress" => Some("egress"),
        _ => None,
    }
}

impl KumaOracle {
    /// Judges a write, if it is one of a zone proxy.
    pub(super) fn check_zone_proxy_write(&mut self, entry: &KumaJournalEntry, cloud: &Cloud, kuma: &KumaCp) {
        let Some(role_type) = role_type(entry.kind) else { return };
        self.check_ownership(entry);
        if self.unsupported_since.is_some_and(|since| since.age_at(entry.at) > UPGRADE_LAG) {
            self.report(Invariant::I11, entry, "the control plane's version is not supported");
        }
        if entry.after.is_some() && !entry.changed {
            self.report(Invariant::I6, entry, "an unchanged body was written again");
        }
        let Some(body) = entry.after.as_ref().or(entry.before.as_ref()) else { return };
        let truth = self.truth(body, cloud, entry.at);
        let service = truth.as_ref().map(|task| task.family.clone()).unwrap_or_default();
        if !service.is_empty() && self.untouchable.as_deref() == Some(&*service) {
            self.report(Invariant::I3, entry, "the operator only observes the service");
        }
        match (&entry.before, &entry.after) {
            (None, Some(_)) => self.tally.created += 1,
            (Some(_), Some(_)) => self.tally.updated += 1,
            (_, None) => self.tally.removed += 1,
        }
        let role_at = |wanted: bool| {
            let is = |tags: &Tags| tags.get("kuma.io/type").is_some_and(|found| found == role_type);
            self.config.role_tags_at(&service, entry.at, cloud, |tags| is(tags) == wanted)
        };
        match &entry.after {
            Some(after) if label(after, DRAIN_LABEL).is_none() => {
                let is_gone = truth.is_none_or(|task| {
                    task.stopped_at.is_some_and(|at| at.age_at(entry.at) > STOP_EVENT_LAG)
                });
                if !role_at(true) {
                    self.report(Invariant::I4, entry, "the role's tags do not allow it");
                } else if entry.before.is_none() && is_gone {
                    self.report(Invariant::I4, entry, "created for a task that stopped long before");
                }
            }
            // A drain changes no routing.
            Some(_) => {}
            None => {
                let is_stopped = truth.is_none_or(|task| task.last_status.is_stopped());
                let is_revoked = role_at(false);
                let is_undeclared = self
                    .undeclared
                    .get(&service)
                    .is_some_and(|(from, until)| (*from..=*until).contains(&entry.at));
                if !is_stopped && !is_revoked && !is_undeclared {
                    let message =
                        "removed while its task lives, its role allows it and the manifests want it";
                    self.report(Invariant::I2, entry, message);
                }
                if !is_stopped {
                    self.count_unconfirmed_removals(entry, is_revoked, kuma);
                }
            }
        }
    }

    /// Running zone proxies without their `ZoneIngress` or `ZoneEgress`, drained, or with a wrong address. `held` names tasks that the guard holds.
    pub(super) fn missing_zone_proxies(
        &self,
        cloud: &Cloud,
        kuma: &KumaCp,
        services: &[ScenarioService],
        held: &dyn Fn(&str) -> bool,
    ) -> Vec<String> {
        let all: Vec<(&str, &Value)> = kuma
            .zone_proxies()
            .filter(|(_, _, body)| self.is_ours(body))
            .map(|(kind, _, body)| (kind, body))
            .collect();
        let kind_of = |task: &CloudTask| {
            let service = services.iter().find(|service| service.name == task.family)?;
            service.zone_resource().map(ZoneProxyKind::resource)
        };
        let mut missing = Vec::new();
        for task in cloud.all_tasks() {
            let Some(kind) = kind_of(task) else { continue };
            let is_wanted = task.last_status == LastStatus::Running
                && task.desired_status == DesiredStatus::Running
                && cloud
                    .get_role(&role_name(&task.family))
                    .is_ok_and(|role| role.tags.get("kuma.io/type").map(String::as_str) == role_type(kind));
            if !is_wanted || held(task.id()) {
                continue;
            }
            let address = cloud.reachable_address(task).map(|address| address.to_string());
            let own = all.iter().find(|(_, body)| label(body, TASK_LABEL) == Some(task.id()));
            let message = match own {
                None => "is not registered",
                Some((found, _)) if *found != kind => "is registered as another type",
                Some((_, body)) if body["networking"]["address"].as_str() != address.as_deref() => {
                    "has another address"
                }
                Some((_, body)) if label(body, DRAIN_LABEL).is_some() => "is drained",
                Some(_) => continue,
            };
            missing.push(format!("task {} of {} is running and {message}", task.id(), task.family));
        }
        missing
    }

    /// The owned zone proxies of stopped or unknown tasks. `held` names tasks that the guard holds.
    pub(super) fn zone_proxy_leaks(
        &self,
        cloud: &Cloud,
        kuma: &KumaCp,
        held: &dyn Fn(&str) -> bool,
        now: Timestamp,
    ) -> Vec<String> {
        let is_stale = |(kind, name, body): &(&str, &str, &Value)| {
            self.is_ours(body)
                && !held(label(body, TASK_LABEL).unwrap_or(name))
                && self.truth(body, cloud, now).is_none_or(|task| task.last_status.is_stopped())
                && role_type(kind).is_some()
        };
        let stale = kuma.zone_proxies().filter(is_stale);
        stale.map(|(kind, name, _)| format!("{kind} {name} is registered, but its task is gone")).collect()
    }
}

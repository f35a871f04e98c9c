//! The changes of the mesh during a demo, in the order in which its administrator makes them: MeshServices, sidecars that
//! bind their outbounds, zone proxies in the form of 3.x, and an upgrade of the control plane.
//!
//! A change is due after a part of the demo, and waits until nothing blocks it: an upgrade to 3.0 for what
//! `plan --target-version 3.0` reports as a blocker.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use ecs_mesh_api::KumaFeature;
use ecs_mesh_model::{DesiredStatus, LastStatus, Timestamp};
use ecs_mesh_sandbox::aws::{Cloud, CloudTask};
use ecs_mesh_sandbox::kuma::{EmulatedRelease, KumaCp};
use ecs_mesh_sandbox::oracle::{ReachCounts, ReachOracle};
use ecs_mesh_sandbox::world::{
    BOUND_SERVICES, MESH, ScenarioService, World, WorldEvent, ZoneProxyGeneration, delete_zone_proxies,
    deploy_zone_proxies, role_name, select_by_workload, set_mesh_services_mode,
};

use super::checks::{DemoCheck, DemoCheckStatus, DemoSubject};
use super::demo_manifests::DemoManifests;

/// How often a control plane generates MeshServices.
const GENERATION_INTERVAL: Duration = Duration::from_secs(2);

/// Number of messages that a line has.
const SHOWN: usize = 3;

/// How often it is judged what clients reach, beside each change.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// A change of the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MeshChange {
    SwitchToExclusive,
    AddOutbounds,
    DeployBoundService,
    DeployListeners,
    DeleteZoneProxies,
    Upgrade(EmulatedRelease),
}

/// How a demo changes its mesh.
#[derive(Clone, Copy, Debug)]
pub struct MeshPlan {
    /// The release at the beginning.
    pub from: EmulatedRelease,
    /// The release to which the control plane is upgraded, if it is.
    pub to: Option<EmulatedRelease>,
    /// Whether the world has tasks at Kuma alone, and so proxies of every kind.
    pub is_kuma_alone: bool,
}

impl MeshPlan {
    /// The release to upgrade to if none is named: 2.14 is on the way to 3.0.
    pub fn next_release(from: EmulatedRelease) -> Option<EmulatedRelease> {
        match from {
            EmulatedRelease::V3_0 => None,
            EmulatedRelease::V2_14 => Some(EmulatedRelease::V3_0),
            _ => Some(EmulatedRelease::V2_14),
        }
    }

    /// Whether zone proxies are moved to the form of 3.x before the upgrade.
    fn moves_zone_proxies(self) -> bool {
        let removes = |to: EmulatedRelease| !to.has(KumaFeature::ZoneProxyResources);
        self.is_kuma_alone && self.from.has(KumaFeature::ZoneProxyResources) && self.to.is_some_and(removes)
    }

    fn ever_has(self, feature: KumaFeature) -> bool {
        self.from.has(feature) || self.to.is_some_and(|to| to.has(feature))
    }

    fn switches_mode(self) -> bool {
        self.from.has(KumaFeature::TagServices) && self.ever_has(KumaFeature::MeshServicesMode)
    }

    fn binds_outbounds(self) -> bool {
        self.is_kuma_alone && self.ever_has(KumaFeature::BindOutbounds)
    }

    /// The changes, each with the part of the time with events after which it is due.
    fn schedule(self) -> VecDeque<(f64, MeshChange)> {
        let upgrade = self.to.map(MeshChange::Upgrade);
        let switches_later = !self.from.has(KumaFeature::MeshServicesMode);
        let binds_later = !self.from.has(KumaFeature::BindOutbounds);
        let mut schedule = Vec::new();
        let switch = self.switches_mode().then_some(MeshChange::SwitchToExclusive);
        let bind = self.binds_outbounds().then_some(MeshChange::DeployBoundService);
        schedule.extend(switch.filter(|_| !switches_later).map(|change| (0.2, change)));
        schedule.push((0.4, MeshChange::AddOutbounds));
        schedule.extend(bind.filter(|_| !binds_later).map(|change| (0.5, change)));
        if self.moves_zone_proxies() {
            schedule.extend([(0.52, MeshChange::DeployListeners), (0.6, MeshChange::DeleteZoneProxies)]);
        }
        let upgrade_at = if switches_later { 0.5 } else { 0.75 };
        schedule.extend(upgrade.map(|change| (upgrade_at, change)));
        schedule.extend(switch.filter(|_| switches_later).map(|change| (0.6, change)));
        schedule.extend(bind.filter(|_| binds_later).map(|change| (0.75, change)));
        schedule.into()
    }
}

/// The servers and the world, as a change finds them.
pub(super) struct Scene<'a> {
    pub(super) world: &'a mut World,
    pub(super) cloud: &'a mut Cloud,
    pub(super) kuma: &'a mut KumaCp,
    pub(super) now: Timestamp,
}

impl Scene<'_> {
    fn view(&self) -> SceneView<'_> {
        SceneView { cloud: self.cloud, kuma: self.kuma }
    }
}

/// The servers, as they are judged.
#[derive(Clone, Copy)]
struct SceneView<'a> {
    cloud: &'a Cloud,
    kuma: &'a KumaCp,
}

/// The switch of the mesh to MeshServices alone.
#[derive(Clone, Copy, Debug)]
struct ModeSwitch {
    at: Timestamp,
    /// The outbounds by tag at that time.
    by_tag: usize,
    /// How long it took until there were none.
    took: Option<Duration>,
}

/// The upgrade of the control plane.
#[derive(Clone, Debug)]
struct Upgraded {
    at: Timestamp,
    versions: String,
    before: ReachCounts,
    /// Right after it.
    after: ReachCounts,
}

/// The changes of the mesh in a running demo.
pub(super) struct MeshChanges {
    plan: MeshPlan,
    schedule: VecDeque<(f64, MeshChange)>,
    oracle: ReachOracle,
    switched: Option<ModeSwitch>,
    upgraded: Option<Upgraded>,
    /// Why a change was refused. None follows it.
    refused: Option<String>,
    next_generation: Timestamp,
    next_check: Timestamp,
}

impl MeshChanges {
    pub(super) fn new(plan: MeshPlan, operator: &str) -> Self {
        let mut oracle = ReachOracle::new(operator);
        oracle.record_bound(&ScenarioService::with_bound_outbounds().name, &BOUND_SERVICES);
        Self {
            schedule: plan.schedule(),
            plan,
            oracle,
            switched: None,
            upgraded: None,
            refused: None,
            next_generation: Timestamp::default(),
            next_check: Timestamp::default(),
        }
    }

    /// When the control plane was upgraded, if it was.
    pub(super) fn upgraded_at(&self) -> Option<Timestamp> {
        self.upgraded.as_ref().map(|upgraded| upgraded.at)
    }

    /// Makes the changes that are due after `elapsed`, a part of the time with events, and judges what clients reach.
    pub(super) fn step(
        &mut self,
        scene: &mut Scene<'_>,
        manifests: &mut DemoManifests,
        directory: &Path,
        elapsed: f64,
    ) -> Vec<WorldEvent> {
        if scene.now >= self.next_generation {
            self.next_generation = scene.now.plus(GENERATION_INTERVAL);
            scene.kuma.catch_up(scene.now);
        }
        let mut events = Vec::new();
        while let Some((_, change)) = self.schedule.front().copied().filter(|(due, _)| elapsed >= *due) {
            if self.refused.is_some() || self.obstacle(change, scene).is_some() {
                break;
            }
            self.schedule.pop_front();
            match self.make(change, scene, manifests, directory) {
                Ok(event) => events.push(event),
                Err(error) => self.refused = Some(error),
            }
        }
        if !events.is_empty() || scene.now >= self.next_check {
            self.next_check = scene.now.plus(CHECK_INTERVAL);
            let known = self.oracle.violations().len();
            self.oracle.check(scene.kuma, scene.now);
            let new: Vec<&str> =
                self.oracle.violations()[known..].iter().map(|found| found.message.as_str()).collect();
            if !new.is_empty() {
                events.push(WorldEvent { actor: "oracle", action: "VIOLATED", message: first_few(&new) });
            }
        }
        events.extend(self.finish_switch(scene));
        events
    }

    /// The condition that a change waits for.
    fn obstacle(&self, change: MeshChange, scene: &Scene<'_>) -> Option<String> {
        let wait = |waits: bool, what: &str| waits.then(|| what.to_owned());
        match change {
            MeshChange::DeleteZoneProxies => wait(
                !are_registered(scene.view(), ZoneProxyGeneration::Listeners),
                "the new zone proxies are not ready",
            ),
            MeshChange::Upgrade(to) => {
                let needs_names = !to.has(KumaFeature::OutboundTags);
                let has_resources = needs_names && scene.kuma.zone_proxies().next().is_some();
                let has_tags = needs_names && self.oracle.outbounds_by_tag(scene.kuma) > 0;
                wait(has_resources, "zone proxies remain")
                    .or_else(|| wait(has_tags, "outbounds name services by tags"))
                    .or_else(|| wait(!self.is_mesh_ready(scene.kuma), "many endpoints are not ready"))
            }
            // The operator reads the version at intervals.
            MeshChange::DeployBoundService => {
                let old = self.plan.to.map_or(0, |to| registered_by_old_rules(to, scene.kuma));
                wait(self.upgraded.is_some() && old > 0, "Dataplanes of the older version remain")
            }
            _ => None,
        }
    }

    /// Whether most endpoints are ready, as they should be before an upgrade.
    fn is_mesh_ready(&self, kuma: &KumaCp) -> bool {
        let ReachCounts { registered, endpoints, .. } = self.oracle.counts(kuma);
        endpoints * 3 >= registered * 2
    }

    fn make(
        &mut self,
        change: MeshChange,
        scene: &mut Scene<'_>,
        manifests: &mut DemoManifests,
        directory: &Path,
    ) -> Result<WorldEvent, String> {
        let Scene { world, cloud, kuma, now } = scene;
        let now = *now;
        let (action, message) = match change {
            MeshChange::SwitchToExclusive => {
                set_mesh_services_mode(kuma, "Exclusive", now)?;
                let by_tag = self.oracle.outbounds_by_tag(kuma);
                self.switched = Some(ModeSwitch { at: now, by_tag, took: None });
                let message = format!(
                    "mesh {MESH} is switched to meshServices.mode Exclusive; {by_tag} outbounds name services by tags"
                );
                ("mesh", message)
            }
            MeshChange::AddOutbounds => {
                manifests.more_outbounds = true;
                ("edit", "a new OutboundList lets every svc-* call kv on 127.0.0.1:15051".to_owned())
            }
            MeshChange::DeployBoundService => {
                let service = ScenarioService::with_bound_outbounds();
                let name = service.name.clone();
                world.deploy_service(service, cloud, now)?;
                let called = BOUND_SERVICES.join(" and ");
                let message = format!(
                    "{name} starts; its sidecars run with --bind-outbounds and may bind {called} alone"
                );
                ("deploy", message)
            }
            MeshChange::DeployListeners => {
                deploy_zone_proxies(ZoneProxyGeneration::Listeners, cloud, kuma, now)?;
                manifests
                    .zone_proxies
                    .iter_mut()
                    .for_each(|kinds| kinds.push(ZoneProxyGeneration::Listeners));
                let [ingress, egress] = ZoneProxyGeneration::Listeners.services();
                ("deploy", format!("{ingress} and {egress} start: zone proxies as Dataplanes, as in 3.x"))
            }
            MeshChange::DeleteZoneProxies => {
                delete_zone_proxies(ZoneProxyGeneration::Resources, cloud, now)?;
                let removed = ZoneProxyGeneration::Resources;
                manifests.zone_proxies.iter_mut().for_each(|kinds| kinds.retain(|kind| *kind != removed));
                let [ingress, egress] = removed.services();
                ("delete", format!("{ingress} and {egress}, which 3.0 does not know, are deleted"))
            }
            MeshChange::Upgrade(to) => ("upgrade", self.upgrade(to, kuma, now)?),
        };
        if !matches!(change, MeshChange::SwitchToExclusive | MeshChange::Upgrade(_)) {
            manifests.write(directory, world.services())?;
        }
        Ok(WorldEvent { actor: "world", action, message })
    }

    fn upgrade(&mut self, to: EmulatedRelease, kuma: &mut KumaCp, now: Timestamp) -> Result<String, String> {
        if !to.has(KumaFeature::TagServices) {
            select_by_workload(kuma, now)?;
        }
        let before = self.oracle.counts(kuma);
        let old = kuma.version().to_owned();
        kuma.upgrade(to, now);
        if to.has(KumaFeature::MeshServicesMode) && !self.plan.from.has(KumaFeature::MeshServicesMode) {
            set_mesh_services_mode(kuma, "Everywhere", now)?;
        }
        let after = self.oracle.counts(kuma);
        let versions = format!("{old} to {}", kuma.version());
        let message = format!(
            "Kuma {versions}, with {} endpoints and {} outbounds in use",
            before.endpoints, before.outbounds
        );
        self.upgraded = Some(Upgraded { at: now, versions, before, after });
        Ok(message)
    }

    /// Notices that the last outbound by tag was replaced.
    fn finish_switch(&mut self, scene: &Scene<'_>) -> Option<WorldEvent> {
        let switched = self.switched.as_mut().filter(|switched| switched.took.is_none())?;
        if self.oracle.outbounds_by_tag(scene.kuma) > 0 {
            return None;
        }
        let took = switched.at.age_at(scene.now);
        switched.took = Some(took);
        let message =
            format!("no outbound names a tag any more, {:.1} s after the switch", took.as_secs_f64());
        Some(WorldEvent { actor: "world", action: "mesh", message })
    }

    /// The judged parts of the demo, by what is true now.
    pub(super) fn checks(&self, cloud: &Cloud, kuma: &KumaCp) -> Vec<DemoCheck> {
        let scene = SceneView { cloud, kuma };
        let mut checks = Vec::new();
        if self.plan.is_kuma_alone {
            checks.push(host_mode(scene));
        }
        checks.push(self.exclusive_mesh());
        if self.plan.is_kuma_alone {
            checks.push(self.bound_outbounds(scene));
            checks.push(self.zone_proxies(scene));
        }
        checks.push(self.upgrade_check(kuma));
        checks
    }

    /// The losses of clients before the upgrade, or since then.
    fn losses(&self, since_upgrade: bool) -> Vec<&str> {
        let upgraded = self.upgraded_at();
        let is_later = |at: Timestamp| upgraded.is_some_and(|upgraded| at >= upgraded);
        let all = self.oracle.violations().iter();
        all.filter(|loss| is_later(loss.at) == since_upgrade).map(|loss| loss.message.as_str()).collect()
    }

    fn exclusive_mesh(&self) -> DemoCheck {
        let check = |status, message: String| DemoCheck::new(DemoSubject::ExclusiveMesh, status, message);
        // For any change: this is the line of a demo without an upgrade.
        let losses = self.losses(false);
        if !losses.is_empty() {
            return check(
                DemoCheckStatus::Failed,
                format!("a sidecar lost or gained what it should not: {}", first_few(&losses)),
            );
        }
        if !self.plan.switches_mode() {
            let reason = if self.plan.from.has(KumaFeature::TagServices) {
                format!(
                    "{} has no MeshServices in place of tags; 2.9 is the first version with them",
                    self.plan.from
                )
            } else {
                format!("in {} each service is a MeshService from the start", self.plan.from)
            };
            return check(DemoCheckStatus::Skipped, reason);
        }
        match self.switched {
            Some(ModeSwitch { by_tag, took: Some(took), .. }) => {
                let seconds = took.as_secs_f64();
                let message = format!(
                    "{by_tag} outbounds by tag replaced within {seconds:.1} s, none missing meanwhile"
                );
                check(DemoCheckStatus::Passed, message)
            }
            Some(_) => check(DemoCheckStatus::Pending, "outbounds still name services by tags".to_owned()),
            None => {
                let (status, message) = self.not_made();
                check(status, message)
            }
        }
    }

    fn bound_outbounds(&self, scene: SceneView<'_>) -> DemoCheck {
        let check = |status, message: String| DemoCheck::new(DemoSubject::BoundOutbounds, status, message);
        if !self.plan.binds_outbounds() {
            let reason = format!(
                "the sidecars of {} cannot bind their outbounds; 2.11 is the first version that can",
                self.plan.from
            );
            return check(DemoCheckStatus::Skipped, reason);
        }
        let name = ScenarioService::with_bound_outbounds().name;
        let tasks = running(scene, &name);
        let binds_all = |task: &&CloudTask| {
            let found = scene.kuma.dataplanes().find(|(_, found, _)| *found == task.id());
            found.is_some_and(|(mesh, name, body)| {
                let reached = scene.kuma.reached_services(mesh, name, body);
                let bound = reached.iter().filter(|reached| reached.port.is_none());
                bound.map(|reached| reached.service.as_str()).eq(BOUND_SERVICES)
            })
        };
        let done = tasks.iter().filter(|task| binds_all(task)).count();
        let called = BOUND_SERVICES.join(" and ");
        if tasks.is_empty() || done < tasks.len() {
            return check(
                DemoCheckStatus::Pending,
                format!("{done} of {} sidecars of {name} bind {called}", tasks.len()),
            );
        }
        check(
            DemoCheckStatus::Passed,
            format!("the {done} sidecars of {name} bind {called}, and nothing else"),
        )
    }

    fn zone_proxies(&self, scene: SceneView<'_>) -> DemoCheck {
        let check = |status, message: String| DemoCheck::new(DemoSubject::ZoneProxies, status, message);
        let has_resources = self.plan.from.has(KumaFeature::ZoneProxyResources);
        let moves = self.plan.moves_zone_proxies();
        let kind = if has_resources && !moves {
            ZoneProxyGeneration::Resources
        } else {
            ZoneProxyGeneration::Listeners
        };
        let [ingress, egress] = kind.services();
        if !are_registered(scene, kind) {
            return check(
                DemoCheckStatus::Pending,
                format!("{ingress} and {egress} are not both registered"),
            );
        }
        if moves && scene.kuma.zone_proxies().next().is_some() {
            return check(DemoCheckStatus::Pending, "a ZoneIngress or ZoneEgress remains".to_owned());
        }
        let message = match kind {
            ZoneProxyGeneration::Resources => {
                format!("{ingress} and {egress}, as ZoneIngress and ZoneEgress")
            }
            ZoneProxyGeneration::Listeners if moves => {
                format!("replaced by {ingress} and {egress}, which are Dataplanes, before the upgrade")
            }
            ZoneProxyGeneration::Listeners => format!("{ingress} and {egress}, as Dataplanes with listeners"),
        };
        check(DemoCheckStatus::Passed, message)
    }

    fn upgrade_check(&self, kuma: &KumaCp) -> DemoCheck {
        let check = |status, message: String| DemoCheck::new(DemoSubject::Upgrade, status, message);
        let Some(to) = self.plan.to else {
            let reason = match MeshPlan::next_release(self.plan.from) {
                None => format!("{} is the newest version that the sandbox has", self.plan.from),
                Some(_) => format!("the demo stays at {} (--upgrade-to none)", self.plan.from),
            };
            return check(DemoCheckStatus::Skipped, reason);
        };
        let Some(Upgraded { versions, before, after, .. }) = &self.upgraded else {
            let (status, message) = self.not_made();
            return check(status, message);
        };
        if after.endpoints < before.endpoints {
            let lost = before.endpoints - after.endpoints;
            let message = format!("{versions}: clients lost {lost} of {} endpoints", before.endpoints);
            return check(DemoCheckStatus::Failed, message);
        }
        let losses = self.losses(true);
        if !losses.is_empty() {
            return check(DemoCheckStatus::Failed, format!("{versions}: {}", first_few(&losses)));
        }
        let old = registered_by_old_rules(to, kuma);
        if old > 0 {
            return check(
                DemoCheckStatus::Pending,
                format!("{old} Dataplanes are still those of {}", self.plan.from),
            );
        }
        let ReachCounts { endpoints, outbounds, .. } = before;
        check(
            DemoCheckStatus::Passed,
            format!("{versions}; {endpoints} endpoints and {outbounds} outbounds, none lost"),
        )
    }

    /// The state of what depends on a change that was not made yet.
    fn not_made(&self) -> (DemoCheckStatus, String) {
        match &self.refused {
            Some(error) => (DemoCheckStatus::Failed, format!("a change was refused: {error}")),
            None => {
                (DemoCheckStatus::Pending, "it was not due yet, or an earlier change was not done".to_owned())
            }
        }
    }
}

/// The first of these messages, and how many more there are.
fn first_few(messages: &[&str]) -> String {
    let text = messages.iter().take(SHOWN).copied().collect::<Vec<_>>().join("; ");
    match messages.len().saturating_sub(SHOWN) {
        0 => text,
        more => format!("{text}; and {more} more"),
    }
}

/// The Dataplanes that lack what the release after the upgrade has: their workload as a label.
fn registered_by_old_rules(to: EmulatedRelease, kuma: &KumaCp) -> usize {
    let is_old = |body: &Value| {
        let labels = &body["labels"];
        let is_ours = labels["ecs-mesh.dev/operator"].is_string() && labels["ecs-mesh.dev/drain"].is_null();
        is_ours && to.has(KumaFeature::WorkloadLabel) && labels["kuma.io/workload"].is_null()
    };
    kuma.dataplanes().filter(|(_, _, body)| is_old(body)).count()
}

/// The running tasks of a service whose role admits them.
fn running<'s>(scene: SceneView<'s>, service: &str) -> Vec<&'s CloudTask> {
    let has_role = scene
        .cloud
        .get_role(&role_name(service))
        .is_ok_and(|role| role.tags.contains_key("kuma.io/mesh") || role.tags.contains_key("kuma.io/type"));
    let runs = |task: &&CloudTask| {
        task.family == service
            && task.last_status == LastStatus::Running
            && task.desired_status == DesiredStatus::Running
    };
    scene.cloud.all_tasks().map(AsRef::as_ref).filter(runs).filter(|_| has_role).collect()
}

/// Whether ingress and egress of this kind are registered, and connected where that can be seen.
fn are_registered(scene: SceneView<'_>, kind: ZoneProxyGeneration) -> bool {
    kind.services().into_iter().all(|service| {
        let tasks = running(scene, service);
        let is_registered = |task: &&CloudTask| match kind {
            ZoneProxyGeneration::Resources => scene.kuma.zone_proxies().any(|(_, name, _)| name == task.id()),
            ZoneProxyGeneration::Listeners => scene.kuma.is_online(MESH, task.id()),
        };
        !tasks.is_empty() && tasks.iter().all(is_registered)
    })
}

/// Tasks in network mode `host` have the address of their container instance.
fn host_mode(scene: SceneView<'_>) -> DemoCheck {
    let name = ScenarioService::on_each_instance(0).name;
    let tasks = running(scene, &name);
    let has_address = |task: &&CloudTask| {
        let address = scene.cloud.reachable_address(task).map(|address| address.to_string());
        let found = scene.kuma.dataplanes().find(|(_, found, _)| *found == task.id());
        found.is_some_and(|(_, _, body)| {
            address.is_some() && body["networking"]["address"].as_str() == address.as_deref()
        })
    };
    let done = tasks.iter().filter(|task| has_address(task)).count();
    let status = if tasks.is_empty() || done < tasks.len() {
        DemoCheckStatus::Pending
    } else {
        DemoCheckStatus::Passed
    };
    let message = match status {
        DemoCheckStatus::Passed => format!("{done} tasks of {name} on EC2, each with its instance's address"),
        _ => format!("{done} of {} tasks of {name} have their instance's address", tasks.len()),
    };
    DemoCheck::new(DemoSubject::HostMode, status, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(from: &str, to: Option<&str>) -> Vec<MeshChange> {
        let plan = MeshPlan {
            from: from.parse().unwrap(),
            to: to.map(|to| to.parse().unwrap()),
            is_kuma_alone: true,
        };
        let schedule = plan.schedule();
        assert!(schedule.iter().zip(schedule.iter().skip(1)).all(|((a, _), (b, _))| a <= b), "{schedule:?}");
        schedule.into_iter().map(|(_, change)| change).collect()
    }

    #[test]
    fn changes_come_in_the_order_that_their_version_needs() {
        use MeshChange::{
            AddOutbounds, DeleteZoneProxies, DeployBoundService, DeployListeners, SwitchToExclusive, Upgrade,
        };
        const TO_3: MeshChange = Upgrade(EmulatedRelease::V3_0);
        const TO_2_14: MeshChange = Upgrade(EmulatedRelease::V2_14);
        for (from, to, expected) in [
            (
                "2.14",
                Some("3.0"),
                vec![
                    SwitchToExclusive,
                    AddOutbounds,
                    DeployBoundService,
                    DeployListeners,
                    DeleteZoneProxies,
                    TO_3,
                ],
            ),
            ("2.14", None, vec![SwitchToExclusive, AddOutbounds, DeployBoundService]),
            ("2.9", Some("2.14"), vec![SwitchToExclusive, AddOutbounds, TO_2_14, DeployBoundService]),
            ("2.7", Some("2.14"), vec![AddOutbounds, TO_2_14, SwitchToExclusive, DeployBoundService]),
            ("2.7", None, vec![AddOutbounds]),
            ("3.0", None, vec![AddOutbounds, DeployBoundService]),
        ] {
            assert_eq!(changes(from, to), expected, "{from} {to:?}");
        }
    }

    #[test]
    fn default_upgrade_passes_2_14() {
        let next = |from: &str| MeshPlan::next_release(from.parse().unwrap()).map(EmulatedRelease::text);
        assert_eq!((next("2.9"), next("2.14"), next("3.0")), (Some("2.14"), Some("3.0"), None));
    }
}

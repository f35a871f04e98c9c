//! The oracle of what clients reach finds each kind of loss, and nothing else.

use std::time::Duration;

use serde_json::{Value, json};

use crate::kuma::{BIND_OUTBOUNDS, EmulatedRelease, KumaConfig, KumaCp};
use crate::oracle::{ReachCounts, ReachOracle};
use crate::world::{MESH, select_by_workload, set_mesh_services_mode};
use ecs_mesh_model::Timestamp;

const START: Timestamp = Timestamp(1_800_000_000_000);

fn at(seconds: u64) -> Timestamp {
    START.plus(Duration::from_secs(seconds))
}

/// A mesh that is switched to `Exclusive`, with the services `kv` and `redis`, and a caller of `kv`.
struct ReachFixture {
    kuma: KumaCp,
    oracle: ReachOracle,
}

impl ReachFixture {
    fn start() -> Self {
        let mut kuma = KumaCp::new(KumaConfig::default(), START);
        set_mesh_services_mode(&mut kuma, "Everywhere", START).unwrap();
        let mut fixture = Self { kuma, oracle: ReachOracle::new("op") };
        for service in ["kv", "redis"] {
            fixture.register(service, &json!({}), at(0));
        }
        fixture.register("caller", &json!({"outbound": [by_tag()]}), at(0));
        fixture.kuma.catch_up(at(2));
        fixture.check(2);
        fixture
    }

    fn register(&mut self, service: &str, networking: &Value, now: Timestamp) {
        let mut networking = networking.clone();
        networking["address"] = json!("10.0.0.1");
        networking["inbound"] = json!([{"port": 1_000, "tags": {"kuma.io/service": service}}]);
        let labels = json!({"ecs-mesh.dev/operator": "op", "kuma.io/workload": service});
        let body = json!({"type": "Dataplane", "mesh": MESH, "name": service, "labels": labels,
            "networking": networking});
        self.kuma.insert_foreign(MESH, service, &body, now).unwrap();
    }

    fn check(&mut self, seconds: u64) {
        self.oracle.check(&self.kuma, at(seconds));
    }

    fn found(&self) -> Vec<&str> {
        self.oracle.violations().iter().map(|violation| violation.message.as_str()).collect()
    }
}

fn by_tag() -> Value {
    json!({"port": 80, "tags": {"kuma.io/service": "kv"}})
}

fn by_name() -> Value {
    json!({"port": 80, "backendRef": {"kind": "MeshService", "name": "kv", "port": 1_000}})
}

#[test]
fn mesh_that_is_prepared_keeps_everything_at_3_0() {
    let mut fixture = ReachFixture::start();
    assert_eq!(fixture.oracle.outbounds_by_tag(&fixture.kuma), 1);
    set_mesh_services_mode(&mut fixture.kuma, "Exclusive", at(3)).unwrap();
    fixture.check(3);
    fixture.register("caller", &json!({"outbound": [by_name()]}), at(4));
    fixture.check(4);
    select_by_workload(&mut fixture.kuma, at(5)).unwrap();
    fixture.check(5);
    fixture.kuma.upgrade(EmulatedRelease::V3_0, at(6));
    fixture.check(6);
    assert_eq!(fixture.found(), [""; 0]);
    assert_eq!(fixture.oracle.outbounds_by_tag(&fixture.kuma), 0);
    for name in ["kv", "redis", "caller"] {
        fixture.kuma.connect_sidecar(MESH, name, "10.0.0.1", at(7));
    }
    assert_eq!(
        fixture.oracle.counts(&fixture.kuma),
        ReachCounts { registered: 3, endpoints: 3, outbounds: 1 }
    );
}

#[test]
fn upgrade_with_outbounds_by_tag_loses_them() {
    let mut fixture = ReachFixture::start();
    select_by_workload(&mut fixture.kuma, at(3)).unwrap();
    fixture.kuma.upgrade(EmulatedRelease::V3_0, at(4));
    fixture.check(4);
    assert_eq!(fixture.found(), ["caller of caller lost its outbound to kv on port 80"]);
    fixture.check(5);
    assert_eq!(fixture.found().len(), 1, "a loss is reported once");
}

#[test]
fn upgrade_with_selectors_by_tag_loses_endpoints() {
    let mut fixture = ReachFixture::start();
    set_mesh_services_mode(&mut fixture.kuma, "Exclusive", at(3)).unwrap();
    fixture.register("caller", &json!({"outbound": [by_name()]}), at(4));
    fixture.check(4);
    fixture.kuma.upgrade(EmulatedRelease::V3_0, at(5));
    fixture.check(5);
    let lost = |name: &str| format!("{name} is no endpoint of its service any more");
    assert_eq!(fixture.found(), [lost("caller"), lost("kv"), lost("redis")]);
}

#[test]
fn removed_outbounds_are_losses_unless_drained() {
    let mut fixture = ReachFixture::start();
    fixture.register("caller", &json!({"outbound": []}), at(3));
    fixture.check(3);
    assert_eq!(fixture.found(), ["caller of caller lost its outbound to kv on port 80"]);
    let mut fixture = ReachFixture::start();
    let (_, _, body) = fixture.kuma.dataplanes().find(|(_, name, _)| *name == "caller").unwrap();
    let mut drained = body.clone();
    drained["labels"]["ecs-mesh.dev/drain"] = json!("stopping");
    drained["networking"]["outbound"] = json!([]);
    fixture.kuma.insert_foreign(MESH, "caller", &drained, at(3)).unwrap();
    fixture.check(3);
    assert_eq!(fixture.found(), [""; 0]);
}

#[test]
fn bound_service_that_is_not_declared_is_found_once() {
    let mut fixture = ReachFixture::start();
    set_mesh_services_mode(&mut fixture.kuma, "Exclusive", at(3)).unwrap();
    fixture.oracle.record_bound("shop", &["kv"]);
    let with = |services: &[&str]| {
        let refs: Vec<Value> =
            services.iter().map(|name| json!({"kind": "MeshService", "name": name})).collect();
        json!({"transparentProxying": {"reachableBackends": {"refs": refs}}})
    };
    fixture.register("shop", &with(&["kv"]), at(4));
    fixture.kuma.connect_sidecar(MESH, "shop", "10.0.0.1", at(4));
    fixture.kuma.set_sidecar_features(MESH, "shop", &[BIND_OUTBOUNDS]);
    fixture.check(4);
    assert_eq!(fixture.found(), [""; 0]);
    fixture.register("shop", &with(&["kv", "redis"]), at(5));
    fixture.check(5);
    fixture.kuma.catch_up(at(9));
    fixture.check(9);
    assert_eq!(fixture.found(), ["shop of shop binds redis, which is not declared"]);
}

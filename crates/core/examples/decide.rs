//! Embeds the pure core: evaluates one task against manifests, and prints what an operator would do about it. No AWS, no
//! control plane, no runtime.
//!
//! ```sh
//! cargo run -p ecs-mesh-core --example decide
//! ```

#![allow(clippy::print_stdout)] // it prints what an operator would do

use std::path::Path;
use std::sync::Arc;

use ecs_mesh_api::manifests::{ManifestScope, assemble, read_file};
use ecs_mesh_api::{ControlPlaneType, ZoneProxyForm};
use ecs_mesh_core::intent::{Evaluator, Fact, ManifestHistory, MissingFact, RoleTags, TaskFacts, Verdict};
use ecs_mesh_core::plan::{DecisionInput, Sighting, TaskLiveness, decide};
use ecs_mesh_model::{
    DesiredStatus, InterfaceAddresses, LastStatus, OperatorId, Task, TaskArn, TaskDefinition,
    TaskDefinitionArn, TaskGroup, TaskHost, Timestamp,
};

const MANIFESTS: &str = r#"
apiVersion: ecs-mesh.dev/v1alpha1
kind: ControlPlane
metadata: {name: kuma}
spec: {type: kuma, kuma: {address: "http://127.0.0.1:5681"}}
---
apiVersion: ecs-mesh.dev/v1alpha1
kind: MeshBinding
metadata: {name: demo}
spec:
  controlPlane: kuma
  mesh: default
  selector: {clusters: ["arn:aws:ecs:eu-west-1:111122223333:cluster/demo"]}
---
apiVersion: ecs-mesh.dev/v1alpha1
kind: Workload
metadata: {name: demo-app}
spec:
  selector: {services: [demo-app]}
  service: demo-app
  inbounds: [{name: http, containerPort: 5050, port: 15000, protocol: http}]
"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file: Arc<Path> = Arc::from(Path::new("mesh.yaml"));
    let (manifests, findings) = read_file(&file, MANIFESTS);
    let assembled = assemble(manifests, ManifestScope::Complete);
    for finding in findings.iter().chain(&assembled.errors) {
        println!("{finding}");
    }

    let task = Task {
        arn: TaskArn::parse("arn:aws:ecs:eu-west-1:111122223333:task/demo/3f2a9c0d5e6b4a718293a4b5c6d7e8f9")?,
        version: 4,
        last_status: LastStatus::Running,
        desired_status: DesiredStatus::Running,
        group: TaskGroup::parse("service:demo-app"),
        definition: TaskDefinitionArn::parse(
            "arn:aws:ecs:eu-west-1:111122223333:task-definition/demo-app:7",
        )?,
        role_override: None,
        addresses: InterfaceAddresses::new(Some("10.0.1.17".parse()?), None)?,
        host: TaskHost::None,
        deployment: None,
        created_at: None,
        tags: None,
        stopped_containers: Box::default(),
    };

    let operator = OperatorId::parse("example")?;
    // No document has left the manifests yet.
    let history = ManifestHistory::default();
    let evaluator = Evaluator {
        manifests: &assembled.set,
        control_plane: "kuma",
        kind: ControlPlaneType::Kuma,
        zone_proxies: Some(ZoneProxyForm::default()),
        operator: &operator,
        history: &history,
        now: Timestamp(0),
    };
    // The verdict names each fact that it needs. An operator asks AWS for it; this example makes it up.
    let mut facts = TaskFacts::default();
    let evaluation = loop {
        let evaluation = evaluator.evaluate(&task, &facts);
        match &evaluation.verdict {
            Verdict::NeedsFact(MissingFact::Definition) => {
                println!("needs the task definition {}", task.definition);
                facts.definition = Fact::Known(Arc::new(TaskDefinition {
                    arn: task.definition.clone(),
                    task_role: Some(ecs_mesh_model::RoleArn::parse(
                        "arn:aws:iam::111122223333:role/demo-app",
                    )?),
                    network_mode: Some("awsvpc".to_owned()),
                    containers: Vec::new(),
                }));
            }
            Verdict::NeedsFact(MissingFact::Role(role)) => {
                println!("needs the tags of {role}");
                let tags = [("kuma.io/type", "dataplane"), ("kuma.io/mesh", "default")];
                let tags = tags.map(|(key, value)| (key.to_owned(), value.to_owned()));
                facts.role = Fact::Known(RoleTags {
                    tags: Some(Arc::new(tags.into_iter().collect())),
                    confirmed: true,
                });
            }
            _ => break evaluation,
        }
    };

    let decision = decide(&DecisionInput {
        liveness: TaskLiveness::Live,
        evaluation: Some(&evaluation),
        known: &[],
        sighting: Sighting::Recent,
        manifests_complete: true,
        settling: None,
        self_registered: false,
        now: Timestamp(0),
    });
    for step in &decision.steps {
        println!("{}: {:#?}", step.id, step.action);
    }
    Ok(())
}

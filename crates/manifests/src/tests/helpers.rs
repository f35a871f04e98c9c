//! A directory of manifests that a test can edit.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::{LoadOutcome, Loaded, ManifestSources};
use ecs_mesh_api::manifests::ManifestFinding;

pub(super) const CONTROL_PLANE: &str = "\
apiVersion: ecs-mesh.dev/v1alpha1
kind: ControlPlane
metadata: {name: kuma}
spec:
  type: kuma
  kuma: {address: 'https://cp.internal:5682'}
";

pub(super) const BINDING: &str = "\
apiVersion: ecs-mesh.dev/v1alpha1
kind: MeshBinding
metadata: {name: demo}
spec:
  controlPlane: kuma
  mesh: default
  selector: {clusters: ['arn:aws:ecs:eu-west-1:111122223333:cluster/demo']}
";

pub(super) const WORKLOAD: &str = "\
apiVersion: ecs-mesh.dev/v1alpha1
kind: Workload
metadata: {name: kv}
spec:
  bindings: [demo]
  selector: {services: [kv]}
  service: kv
  inbounds: [{name: http, containerPort: 5050, port: 15050, protocol: http}]
";

/// A directory that is removed at the end of the test.
pub(super) struct TestDirectory {
    root: TempDir,
}

impl TestDirectory {
    pub(super) fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    pub(super) fn with(files: &[(&str, &str)]) -> Self {
        let directory = Self::new();
        for (name, text) in files {
            directory.write(name, text);
        }
        directory
    }

    /// A directory with a control plane, a binding and a workload, one file each.
    pub(super) fn demo() -> Self {
        Self::with(&[("a-cp.yaml", CONTROL_PLANE), ("b-binding.yaml", BINDING), ("c-kv.yaml", WORKLOAD)])
    }

    pub(super) fn path(&self) -> PathBuf {
        self.root.path().to_owned()
    }

    pub(super) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.root.path().join(name), text).unwrap();
    }

    pub(super) fn remove(&self, name: &str) {
        fs::remove_file(self.root.path().join(name)).unwrap();
    }

    pub(super) fn sources(&self) -> ManifestSources {
        ManifestSources::new([self.path()])
    }

    pub(super) fn load(&self) -> Loaded {
        self.sources().load(None).into_loaded().unwrap()
    }

    pub(super) fn reload(&self, before: &Loaded) -> LoadOutcome {
        self.sources().load(Some(before))
    }

    /// The findings, one a line, without the directory's path.
    pub(super) fn text(&self, findings: &[ManifestFinding]) -> String {
        let root = self.root.path().display().to_string();
        let lines: Vec<String> = findings.iter().map(ManifestFinding::to_string).collect();
        lines.join("\n").replace(&format!("{root}/"), "").replace(&root, "manifests")
    }
}

/// The errors of one file.
pub(super) fn errors_of(text: &str) -> String {
    let directory = TestDirectory::with(&[("a.yaml", text)]);
    directory.text(&directory.load().errors)
}

/// The set that stays in force.
pub(super) fn kept(outcome: LoadOutcome) -> Loaded {
    match outcome {
        LoadOutcome::Kept(loaded) => loaded,
        other => panic!("the set in force was not kept: {other:?}"),
    }
}

/// The set that comes into force.
pub(super) fn replaced(outcome: LoadOutcome) -> Loaded {
    match outcome {
        LoadOutcome::Replaced(loaded) => loaded,
        other => panic!("no new set came into force: {other:?}"),
    }
}

//! The cases of `tests/fixtures/manifests/cases.yaml`, and all manifests of examples, reference and golden files, in
//! three validators.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde::Deserialize;
use serde_json::{Value, json};

use super::root;
use super::validators::{self, NamedManifests, ReportedErrors};

#[derive(Deserialize)]
struct CaseTable {
    bases: BTreeMap<String, Value>,
    cases: Vec<ManifestCase>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct ManifestCase {
    base: String,
    at: String,
    set: Value,
    /// The field in a validator's finding, if it differs from `at`.
    names: Option<String>,
    #[serde(default)]
    rejected_by: BTreeSet<String>,
}

impl CaseTable {
    fn read() -> Self {
        let text = fs::read_to_string(root().join("tests/fixtures/manifests/cases.yaml")).unwrap();
        serde_saphyr::from_str(&text).unwrap()
    }

    fn manifests(&self) -> NamedManifests {
        let bases = self.bases.iter().map(|(kind, manifest)| (kind.clone(), manifest.to_string()));
        let cases = self.cases.iter().map(|case| {
            let mut manifest = self.bases[&case.base].clone();
            put(&mut manifest, &case.at, &case.set);
            (case.name(), manifest.to_string())
        });
        bases.chain(cases).collect()
    }

    /// Compares each case with a validator's findings.
    fn check(&self, validator: &str, findings: &ReportedErrors) {
        let mut wrong = Vec::new();
        for kind in self.bases.keys().filter(|kind| !findings[*kind].is_empty()) {
            wrong.push(format!("base {kind}: {:?}", findings[kind]));
        }
        for case in &self.cases {
            let faults = &findings[&case.name()];
            let field = case.names.as_ref().unwrap_or(&case.at);
            let named = faults.iter().any(|fault| fault.names(field));
            if case.rejected_by.contains(validator) != named || named == faults.is_empty() {
                wrong.push(format!("{}: {faults:?}", case.name()));
            }
        }
        assert!(wrong.is_empty(), "by {validator}:\n{}", wrong.join("\n"));
    }
}

impl ManifestCase {
    fn name(&self) -> String {
        format!("{} with {} {}", self.base, self.at, self.set)
    }
}

/// Sets the value at the path, such as `spec.inbounds[0].port`; null removes the field.
fn put(manifest: &mut Value, path: &str, value: &Value) {
    let pointer = path.replace('[', ".").replace(']', "");
    let (parents, last) = pointer.rsplit_once('.').map_or(("", pointer.as_str()), |split| split);
    let mut at = manifest;
    for step in parents.split('.').filter(|step| !step.is_empty()) {
        at = match step.parse::<usize>() {
            Ok(index) => &mut at[index],
            Err(_) => &mut at[step],
        };
    }
    match (last.parse::<usize>(), value) {
        (Ok(index), _) => {
            if at.is_null() {
                *at = json!([]);
            }
            let items = at.as_array_mut().unwrap();
            if index < items.len() {
                items[index] = value.clone();
            } else {
                items.push(value.clone());
            }
        }
        (Err(_), Value::Null) => {
            at.as_object_mut().unwrap().remove(last).expect("the field does not exist");
        }
        (Err(_), _) => at[last] = value.clone(),
    }
}

#[test]
fn loader_rejects_the_cases_of_the_table() {
    let table = CaseTable::read();
    table.check("loader", &validators::loading(&table.manifests()));
}

#[test]
fn editor_schema_rejects_the_cases_of_the_table() {
    let table = CaseTable::read();
    let Some(findings) = validators::editor(&table.manifests()) else { return };
    table.check("editor", &findings);
}

#[test]
fn api_server_rejects_the_cases_of_the_table() {
    let table = CaseTable::read();
    let Some(findings) = validators::server(&validators::definitions(), &table.manifests()) else { return };
    table.check("server", &findings.manifests);
}

#[test]
fn api_server_accepts_the_crds() {
    let definitions = validators::definitions();
    let Some(findings) = validators::server(&definitions, &NamedManifests::new()) else { return };
    assert_eq!((definitions.len(), findings.definitions), (6, vec![]));
    for (found, worse) in [
        ("x-kubernetes-list-type: map", "x-kubernetes-list-type: heap"),
        ("default: tcp", "default: tpc"),
        ("type: integer", "type: whole"),
        ("scope: Cluster", "scope: World"),
        ("jsonPath: .spec.service", "jsonPath: spec.service"),
        (
            "required:\n            - selector",
            "additionalProperties: false\n            required:\n            - selector",
        ),
    ] {
        let workload = definitions.iter().find(|text| text.contains("kind: Workload\n")).unwrap();
        assert!(workload.contains(found), "{found} is not in it");
        let findings = validators::server(&[workload.replace(found, worse)], &NamedManifests::new()).unwrap();
        assert!(!findings.definitions.is_empty(), "{worse} was taken");
    }
}

#[test]
fn schemas_accept_all_committed_manifests() {
    let manifests = committed();
    let loading = validators::loading(&manifests);
    let accepted: NamedManifests =
        manifests.into_iter().filter(|(name, _)| loading[name].is_empty()).collect();
    assert!(accepted.len() > 100, "only {} manifests were found", accepted.len());
    let refused = |faults: ReportedErrors| -> Vec<String> {
        let refused = faults.into_iter().filter(|(_, faults)| !faults.is_empty());
        refused.map(|(name, faults)| format!("{name}: {faults:?}")).collect()
    };
    if let Some(findings) = validators::editor(&accepted) {
        assert_eq!(refused(findings), Vec::<String>::new());
    }
    if let Some(findings) = validators::server(&validators::definitions(), &accepted) {
        assert_eq!(refused(findings.manifests), Vec::<String>::new());
    }
}

/// The documents of examples, reference and golden files.
fn committed() -> NamedManifests {
    let mut manifests = NamedManifests::new();
    let mut add = |file: &str, text: &str| {
        for (number, document) in text.split("---\n").enumerate() {
            manifests.insert(format!("{file} {number}"), document.to_owned());
        }
    };
    for folder in ["examples/manifests", "examples/consul"] {
        for path in fs::read_dir(root().join(folder)).unwrap().map(|file| file.unwrap().path()) {
            add(&path.display().to_string(), &fs::read_to_string(&path).unwrap());
        }
    }
    let reference = fs::read_to_string(root().join("docs/reference/manifests.md")).unwrap();
    for block in reference.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
        // The first document shows the common fields, and the last is empty.
        if !block.contains("spec: {}") && block.contains("kind:") {
            add(block, block);
        }
    }
    let golden = ["tests/golden/intent", "tests/golden/consul-auth"].map(|folder| root().join(folder));
    for path in
        golden.iter().flat_map(|folder| fs::read_dir(folder).unwrap()).map(|file| file.unwrap().path())
    {
        let text = fs::read_to_string(&path).unwrap();
        let case: Value = serde_saphyr::from_str(text.split("\n---\n").next().unwrap()).unwrap();
        for (subject, spec) in case["manifests"].as_object().unwrap() {
            let (kind, name) = subject.split_once('/').unwrap();
            let version = ecs_mesh_api::API_VERSION;
            let manifest =
                json!({ "apiVersion": version, "kind": kind, "metadata": { "name": name }, "spec": spec });
            add(&format!("{} {subject}", path.display()), &manifest.to_string());
        }
    }
    manifests
}

//! Rules of a `Workload`.

use super::outbound::check_own;
use super::{FindingCollector, cluster, proxy};
use crate::limits::DNS_LABEL_RULE;
use crate::manifests::document::DocumentOrigin;
use crate::manifests::finding::quoted;
use crate::manifests::outbounds::reserved;
use crate::manifests::set::Binding;
use crate::manifests::yaml::child;
use crate::{ControlPlaneType, Inbound, WorkloadSpec};
use ecs_mesh_model::{CONSUL_SERVICE_RULE, Tags, is_consul_service};

/// Tags that follow from other fields.
const OWN_TAGS: [(&str, &str); 3] = [
    ("kuma.io/service", "it is the Workload's `service`"),
    ("kuma.io/protocol", "it is the inbound's `protocol`"),
    ("kuma.io/zone", "the control plane sets it"),
];

pub(super) fn check(spec: &WorkloadSpec, report: &mut FindingCollector<'_>) {
    let selector = &spec.selector;
    if selector.services.is_empty()
        && selector.families.is_empty()
        && selector.tags.is_empty()
        && selector.clusters.is_empty()
    {
        report.add(
            "spec.selector",
            "is empty and would select every task: give services, families, tags or clusters",
        );
    }
    report.globs_have_content("spec.selector.services", &selector.services);
    report.globs_have_content("spec.selector.families", &selector.families);
    cluster::check("spec.selector.clusters", &selector.clusters, report);
    check_description(spec, report);
}

/// The rules of a `Workload` that a description breaks which a task gives of itself, and which has no selector. Each with the
/// path of the field.
pub fn broken_description(spec: &WorkloadSpec) -> Vec<(String, String)> {
    let origin = DocumentOrigin::of_task();
    let mut findings = Vec::new();
    check_description(spec, &mut FindingCollector { origin: &origin, findings: &mut findings });
    findings.into_iter().map(|finding| (finding.path, finding.message)).collect()
}

fn check_description(spec: &WorkloadSpec, report: &mut FindingCollector<'_>) {
    if let Some(label) = &spec.workload
        && !is_dns_label(label)
    {
        report.add("spec.workload", format!("{} is not allowed: {DNS_LABEL_RULE}", quoted(label)));
    }
    for (index, inbound) in spec.inbounds.iter().enumerate() {
        check_inbound(&format!("spec.inbounds[{index}]"), inbound, report);
        check_against_earlier(index, &spec.inbounds, report);
    }
    check_own(spec, report);
    proxy::check(spec, report);
}

/// A service name that Consul rejects.
pub(super) enum BindingMismatch {
    /// In every binding of the workload: no task could register.
    Everywhere(String),
    /// In this binding; others may accept the name.
    Somewhere(String),
}

/// Whether Consul rejects the service's name: Kuma allows names that Consul does not. With `all_known`, the bindings are all
/// that the workload can have.
pub(super) fn refused_by_consul<'a>(
    spec: &WorkloadSpec,
    bindings: impl Iterator<Item = &'a Binding>,
    all_known: bool,
) -> Option<BindingMismatch> {
    // Consul converts names to lower case first.
    if is_consul_service(&spec.service.as_str().to_ascii_lowercase()) {
        return None;
    }
    let (consuls, others): (Vec<&Binding>, Vec<&Binding>) =
        bindings.partition(|binding| binding.control_plane_type == ControlPlaneType::Consul);
    let first = &consuls.first()?.name;
    let found = quoted(spec.service.as_str());
    let message = format!(
        "{found} is not a Consul service name, and MeshBinding {first} has a Consul control plane: its tasks \
         could not log in; write the name that they register: {CONSUL_SERVICE_RULE}"
    );
    Some(if all_known && others.is_empty() {
        BindingMismatch::Everywhere(message)
    } else {
        BindingMismatch::Somewhere(format!("{message}; or list in spec.bindings the bindings that it is for"))
    })
}

fn check_inbound(path: &str, inbound: &Inbound, report: &mut FindingCollector<'_>) {
    let Inbound { name, container_port, port, service_address, tags, .. } = inbound;
    if let Some(name) = name
        && !is_dns_label(name)
    {
        report.add(format!("{path}.name"), format!("{} is not allowed: {DNS_LABEL_RULE}", quoted(name)));
    }
    for (field, port) in [("port", *port), ("containerPort", *container_port)] {
        if let Some(user) = reserved(port) {
            report.add(format!("{path}.{field}"), format!("{port} is {user}: choose another"));
        }
    }
    let on_loopback = service_address.is_some_and(|address| address.is_loopback());
    if service_address.is_some_and(|address| address.is_unspecified()) {
        let message =
            "is not an address to connect to: write the app's listen address, or leave the field out";
        report.add(format!("{path}.serviceAddress"), message);
    }
    if port == container_port && !on_loopback {
        let message = format!(
            "{port} is also the containerPort: choose another, or let the app listen on \
             loopback alone and set serviceAddress: 127.0.0.1"
        );
        report.add(format!("{path}.port"), message);
    }
    check_tags(&format!("{path}.tags"), tags, report);
}

fn check_against_earlier(index: usize, inbounds: &[Inbound], report: &mut FindingCollector<'_>) {
    let (inbound, path) = (&inbounds[index], format!("spec.inbounds[{index}]"));
    for (earlier, other) in inbounds[..index].iter().enumerate() {
        let other_path = format!("spec.inbounds[{earlier}]");
        if inbound.port == other.port {
            let message = format!("{} is also the port of {other_path}: choose another", inbound.port);
            report.add(format!("{path}.port"), message);
        }
        if inbound.name.is_some() && inbound.name == other.name {
            report.add(format!("{path}.name"), format!("is also the name of {other_path}: choose another"));
        }
        for (sidecar, sidecar_path, app, app_path) in
            [(inbound, &path, other, &other_path), (other, &other_path, inbound, &path)]
        {
            let app_on_loopback = app.service_address.is_some_and(|address| address.is_loopback());
            if sidecar.port == app.container_port && !app_on_loopback {
                let message = format!("{} is also {app_path}.containerPort: choose another", sidecar.port);
                report.add(format!("{sidecar_path}.port"), message);
            }
        }
    }
}

/// Kuma's own rules for tags (`pkg/core/resources/apis/mesh/dataplane_validator.go`).
fn check_tags(path: &str, tags: &Tags, report: &mut FindingCollector<'_>) {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':');
    for (key, value) in tags {
        let path = child(path, key);
        if let Some((_, instead)) = OWN_TAGS.iter().find(|(own, _)| own == key) {
            report.add(path, format!("this tag cannot be set here: {instead}"));
            continue;
        }
        if key.is_empty() || !key.bytes().all(|b| allowed(b) || b == b'/') {
            report.add(
                path.clone(),
                "the tag's name is not allowed: letters, digits, '.', '-', '_', ':' and '/'",
            );
        }
        if value.is_empty() || !value.bytes().all(allowed) {
            let rule = "letters, digits, '.', '-', '_' and ':', not empty";
            report.add(path, format!("the tag's value {} is not allowed: {rule}", quoted(value)));
        }
    }
}

/// Whether the text is a DNS-1035 label ([`DNS_LABEL_RULE`]).
pub fn is_dns_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with('-')
}

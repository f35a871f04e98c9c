//! Upstreams of a task: possible service names, no duplicates, free ports.

use std::collections::BTreeMap;

use crate::facts::AuditedDefinition;
use crate::parse::config::TaskConfig;
use crate::report::AuditFinding;
use crate::rules_catalog::{PORT_CLASH, UPSTREAM_DUPLICATE, UPSTREAM_NAME, UPSTREAM_PORT};
use ecs_mesh_model::is_consul_service;

pub(super) fn check(definition: &AuditedDefinition, config: &TaskConfig) -> Vec<AuditFinding> {
    let used = used_ports(definition, config);
    let (mut destinations, mut listeners) = (BTreeMap::new(), BTreeMap::new());
    let mut findings = Vec::new();
    for (index, upstream) in config.upstreams().into_iter().enumerate() {
        let at = |field: &str| config.location(&format!("proxy.upstreams[{index}].{field}"));
        let name = upstream.name();
        if !upstream.is_query() && !is_consul_service(name) {
            findings.push(UPSTREAM_NAME.violation(at("destinationName"), format!("it is {name:?}")));
        }
        let destination = [
            if upstream.is_query() { "prepared_query" } else { "service" },
            name,
            upstream.text("destinationNamespace"),
            upstream.text("destinationPartition"),
            upstream.text("destinationPeer"),
            upstream.text("datacenter"),
        ];
        if let Some(first) = destinations.insert(destination, index) {
            let found = format!("{name:?} is also proxy.upstreams[{first}]");
            findings.push(UPSTREAM_DUPLICATE.violation(at("destinationName"), found));
        }
        let Some(port) = upstream.port() else { continue };
        if !(1..=65_535).contains(&port) {
            findings.push(UPSTREAM_PORT.violation(at("localBindPort"), format!("{port} is not a port")));
            continue;
        }
        if let Some(first) = listeners.insert((upstream.address(), port), index) {
            let found = format!("{}:{port} is also used by proxy.upstreams[{first}]", upstream.address());
            findings.push(PORT_CLASH.violation(at("localBindPort"), found));
        } else if let Some(by) = used.get(&port) {
            findings.push(PORT_CLASH.violation(at("localBindPort"), format!("{port} is {by}")));
        }
    }
    findings
}

/// Listeners of the task by port, upstreams excluded.
fn used_ports(definition: &AuditedDefinition, config: &TaskConfig) -> BTreeMap<i64, String> {
    let mut used = BTreeMap::new();
    for (_, container) in definition.containers() {
        for port in container.port_mappings.iter().filter_map(|mapping| mapping.container_port) {
            used.insert(i64::from(port), format!("the port of container {}", container.name));
        }
    }
    let own = [
        (config.number("/service/port"), "the service's own port (service.port)"),
        (config.number("/proxy/publicListenerPort").or(Some(20_000)), "the proxy's public listener"),
        (config.number("/proxy/healthCheckPort").or(Some(22_000)), "the proxy's health check"),
        (config.finds_services_by_dns().then_some(8_600), "the proxy's DNS"),
    ];
    used.extend(own.into_iter().filter_map(|(port, by)| Some((port?, by.to_owned()))));
    used
}

//! The catalog: nodes, services and checks, with the index of each change.
//!
//! A write without a change neither moves an index nor wakes blocking queries.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::service::{HealthCheck, ServiceInstance};

/// The catalog.
#[derive(Clone, Debug, Default)]
pub(super) struct Catalog {
    pub(super) nodes: BTreeMap<String, CatalogNode>,
    pub(super) nodes_changed: u64,
    pub(super) services_changed: u64,
    pub(super) checks_changed: u64,
    /// Index of the last change and number of instances of each service.
    names: BTreeMap<String, (u64, usize)>,
    /// Index of the last removal of a node, and of the last instance of a service.
    node_removed: u64,
    service_removed: u64,
    virtual_addresses: BTreeMap<String, u32>,
}

/// A node.
#[derive(Clone, Debug, Default)]
pub(super) struct CatalogNode {
    pub(super) spec: NodeSpec,
    pub(super) created: u64,
    pub(super) modified: u64,
    /// Index of the last change of the node or one of its services.
    pub(super) changed: u64,
    pub(super) services: BTreeMap<String, Arc<ServiceInstance>>,
    pub(super) checks: BTreeMap<String, Arc<HealthCheck>>,
}

/// The node part of a registration.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct NodeSpec {
    pub(super) id: String,
    pub(super) address: String,
    pub(super) tagged: Value,
    pub(super) meta: Value,
}

impl CatalogNode {
    pub(super) fn shown(&self, name: &str, datacenter: &str) -> Value {
        json!({
            "ID": self.spec.id,
            "Node": name,
            "Address": self.spec.address,
            "Datacenter": datacenter,
            "TaggedAddresses": self.spec.tagged,
            "Meta": self.spec.meta,
            "CreateIndex": self.created,
            "ModifyIndex": self.modified,
        })
    }
}

/// The states before and after a write; the same state if nothing changed.
pub(super) type BeforeAfter<T> = (Option<Arc<T>>, Arc<T>);

impl Catalog {
    /// The index of a node and its services; for an unknown node, the index of the last removal of a node.
    pub(super) fn node_index(&self, name: &str) -> u64 {
        self.nodes.get(name).map_or(self.node_removed, |node| node.changed)
    }

    /// The index of all instances of a service.
    pub(super) fn service_index(&self, name: &str) -> u64 {
        self.names.get(name).map_or(self.service_removed, |(index, _)| *index)
    }

    /// The instances of a service, with their nodes.
    pub(super) fn instances<'a>(
        &'a self,
        name: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a CatalogNode, &'a Arc<ServiceInstance>)> {
        self.nodes.iter().flat_map(move |(node_name, node)| {
            let services = node.services.values().filter(move |service| service.name == name);
            services.map(move |service| (node_name.as_str(), node, service))
        })
    }

    /// Writes a node. Returns whether something changed.
    pub(super) fn put_node(&mut self, index: u64, name: &str, spec: NodeSpec) -> bool {
        let node = self.nodes.entry(name.to_owned()).or_default();
        if node.created != 0 && node.spec == spec {
            return false;
        }
        node.spec = spec;
        node.created = if node.created == 0 { index } else { node.created };
        node.modified = index;
        node.changed = index;
        self.nodes_changed = index;
        let names: Vec<String> = node.services.values().map(|service| service.name.clone()).collect();
        for name in names {
            self.touch(index, &name);
        }
        true
    }

    /// Writes an instance on an existing node.
    pub(super) fn put_service(
        &mut self,
        index: u64,
        node: &str,
        mut service: ServiceInstance,
    ) -> Option<BeforeAfter<ServiceInstance>> {
        if let Some(virtual_for) = service.virtual_for() {
            let address = self.virtual_address(virtual_for);
            service.set_virtual_address(&address);
        }
        let node = self.nodes.get_mut(node)?;
        let before = node.services.get(&service.id).cloned();
        if let Some(before) = before.as_ref().filter(|before| before.is_as(&service)) {
            return Some((Some(Arc::clone(before)), Arc::clone(before)));
        }
        service.created = before.as_ref().map_or(index, |before| before.created);
        service.modified = index;
        let service = Arc::new(service);
        node.services.insert(service.id.clone(), Arc::clone(&service));
        node.changed = index;
        if let Some(before) = before.as_ref().filter(|before| before.name != service.name) {
            self.lost(index, &before.name);
        }
        if before.as_ref().is_none_or(|before| before.name != service.name) {
            self.names.entry(service.name.clone()).or_default().1 += 1;
        }
        self.touch(index, &service.name);
        Some((before, service))
    }

    /// Writes a check on an existing node, and touches the service that it names.
    pub(super) fn put_check(
        &mut self,
        index: u64,
        node: &str,
        mut check: HealthCheck,
    ) -> Option<BeforeAfter<HealthCheck>> {
        let node = self.nodes.get_mut(node)?;
        let mut touched = Vec::new();
        if check.service_id.is_empty() {
            touched.extend(node.services.values().map(|service| service.name.clone()));
        } else {
            let service = node.services.get(&check.service_id)?;
            touched.push(service.name.clone());
            check = check.of_service(service);
        }
        let before = node.checks.get(&check.id).cloned();
        if let Some(before) = before.as_ref().filter(|before| before.is_as(&check)) {
            return Some((Some(Arc::clone(before)), Arc::clone(before)));
        }
        check.created = before.as_ref().map_or(index, |before| before.created);
        check.modified = index;
        let check = Arc::new(check);
        node.checks.insert(check.id.clone(), Arc::clone(&check));
        self.checks_changed = index;
        for name in touched {
            self.touch(index, &name);
        }
        Some((before, check))
    }

    /// Removes an instance with its checks.
    pub(super) fn remove_service(
        &mut self,
        index: u64,
        node: &str,
        id: &str,
    ) -> Option<Arc<ServiceInstance>> {
        let node = self.nodes.get_mut(node)?;
        let service = node.services.remove(id)?;
        node.checks.retain(|_, check| check.service_id != id);
        self.checks_changed = index;
        node.changed = index;
        self.lost(index, &service.name);
        self.free_virtual_address(&service);
        Some(service)
    }

    /// Removes a node with its services and checks.
    pub(super) fn remove_node(&mut self, index: u64, name: &str) -> Option<CatalogNode> {
        let node = self.nodes.remove(name)?;
        for service in node.services.values() {
            self.lost(index, &service.name);
            self.free_virtual_address(service);
        }
        self.nodes_changed = index;
        self.node_removed = index;
        Some(node)
    }

    fn touch(&mut self, index: u64, name: &str) {
        if let Some((changed, _)) = self.names.get_mut(name) {
            *changed = index;
        }
        self.services_changed = index;
    }

    fn lost(&mut self, index: u64, name: &str) {
        self.touch(index, name);
        let Some((_, count)) = self.names.get_mut(name) else { return };
        *count -= 1;
        if *count == 0 {
            self.names.remove(name);
            self.service_removed = index;
        }
    }

    /// The virtual address of a mesh service: the lowest free one in 240.0.0.0/4.
    fn virtual_address(&mut self, service: &str) -> String {
        let mut used: Vec<u32> = self.virtual_addresses.values().copied().collect();
        used.sort_unstable();
        let free = used.iter().zip(1..).take_while(|(used, number)| *used == number).count();
        let free = u32::try_from(free + 1).unwrap_or(1);
        let number = *self.virtual_addresses.entry(service.to_owned()).or_insert(free);
        std::net::Ipv4Addr::from((240 << 24) + number).to_string()
    }

    fn free_virtual_address(&mut self, removed: &ServiceInstance) {
        let Some(service) = removed.virtual_for() else { return };
        let mut services = self.nodes.values().flat_map(|node| node.services.values());
        if services.all(|other| other.virtual_for() != Some(service)) {
            self.virtual_addresses.remove(service);
        }
    }
}

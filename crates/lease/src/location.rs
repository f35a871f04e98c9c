//! Where a lease is kept, as the command line names it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ecs_mesh_api::manifests::ManifestSet;
use ecs_mesh_api::{AllowList, ConsulConnection, ControlPlaneSpec};
use ecs_mesh_aws::sdk::AwsClients;
use ecs_mesh_clock::Clock;
use ecs_mesh_consul::{ConsulSessionLock, settings};
use ecs_mesh_control_plane::http::HttpTransport;
use ecs_mesh_controller::Secrets;
use ecs_mesh_model::OperatorId;

use crate::consul::ConsulLeaseStore;
use crate::dynamodb::DynamoDbLeaseStore;
use crate::store::LeaseStore;
use crate::timing::LeaseTiming;

/// Where the lease is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseLocation {
    /// Nowhere: this is the only copy.
    None,
    /// In an item of this table.
    DynamoDb(String),
    /// In the lock of a key at the Consul of this `ControlPlane`, or of the only one.
    Consul(Option<String>),
}

/// The clients that may keep a lease.
pub struct LeaseClients<'a> {
    /// AWS.
    pub aws: &'a AwsClients,
    /// The manifests, which name the Consul.
    pub manifests: &'a ManifestSet,
    /// The files and environment variables that the manifests may name.
    pub allowed: &'a AllowList,
}

impl LeaseLocation {
    /// The store of this operator's lease; `None` without a lease. Contacts no server.
    ///
    /// # Errors
    /// If the manifests do not have the Consul, or its connection cannot be used.
    pub fn store(
        &self,
        operator: &OperatorId,
        clients: &LeaseClients<'_>,
        timing: LeaseTiming,
    ) -> Result<Option<Box<dyn LeaseStore>>, String> {
        match self {
            Self::None => Ok(None),
            Self::DynamoDb(table) => {
                let dynamodb = clients.aws.dynamodb.clone();
                Ok(Some(Box::new(DynamoDbLeaseStore::new(
                    dynamodb,
                    table,
                    operator.clone(),
                    Clock::system(),
                ))))
            }
            Self::Consul(_) => {
                let connection = self.connection(clients.manifests)?;
                // A connection of its own: its calls take no part in the lease.
                let secrets: Arc<dyn Secrets> = Arc::new(clients.aws.secrets.clone());
                let transport = HttpTransport::new(settings(connection, clients.allowed), secrets)
                    .map_err(|error| error.to_string())?;
                let lock = ConsulSessionLock::new(transport, connection, &consul_key(operator));
                Ok(Some(Box::new(ConsulLeaseStore::new(lock, timing))))
            }
        }
    }

    /// The name of the `ControlPlane` whose Consul keeps the lease; `None` if none does.
    ///
    /// # Errors
    /// If the manifests do not have the Consul.
    pub fn control_plane(&self, manifests: &ManifestSet) -> Result<Option<Arc<str>>, String> {
        match self {
            Self::None | Self::DynamoDb(_) => Ok(None),
            Self::Consul(_) => self.consul(manifests).map(|(name, _)| Some(Arc::clone(name))),
        }
    }

    fn connection<'a>(&self, manifests: &'a ManifestSet) -> Result<&'a ConsulConnection, String> {
        let (name, spec) = self.consul(manifests)?;
        spec.consul.as_ref().ok_or_else(|| format!("ControlPlane {name}: spec.consul is missing"))
    }

    fn consul<'a>(
        &self,
        manifests: &'a ManifestSet,
    ) -> Result<(&'a Arc<str>, &'a Arc<ControlPlaneSpec>), String> {
        let name = match self {
            Self::Consul(name) => name.as_deref(),
            Self::None | Self::DynamoDb(_) => None,
        };
        let is_meant = |(found, spec): &(&Arc<str>, &Arc<ControlPlaneSpec>)| {
            spec.consul.is_some() && name.is_none_or(|name| ***found == *name)
        };
        let found: Vec<_> = manifests.control_planes.iter().filter(is_meant).collect();
        match (&found[..], name) {
            ([one], _) => Ok(*one),
            ([], Some(name)) => {
                Err(format!("--lease {self}: the manifests have no ControlPlane {name} of type consul"))
            }
            ([], None) => Err(format!("--lease {self}: the manifests have no ControlPlane of type consul")),
            (several, _) => {
                let names: Vec<&str> = several.iter().map(|(name, _)| &***name).collect();
                Err(format!(
                    "--lease {self}: the manifests have several ControlPlanes of type consul; help: name one of {} as \
                     consul:NAME",
                    names.join(", ")
                ))
            }
        }
    }
}

/// The key whose lock is the operator's lease.
pub fn consul_key(operator: &OperatorId) -> String {
    format!("ecs-mesh/{}/lease", operator.as_str())
}

impl FromStr for LeaseLocation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "none" => Ok(Self::None),
            None if text == "consul" => Ok(Self::Consul(None)),
            Some(("consul", name)) if !name.is_empty() => Ok(Self::Consul(Some(name.to_owned()))),
            Some(("dynamodb", table)) if is_table_name(table) => Ok(Self::DynamoDb(table.to_owned())),
            Some(("dynamodb", table)) => {
                Err(format!("{table:?} is no name of a table: 3 to 255 of A-Z a-z 0-9 . - _ are allowed"))
            }
            _ => Err(format!("{text:?} is none of dynamodb:TABLE, consul, consul:CONTROL-PLANE and none")),
        }
    }
}

impl fmt::Display for LeaseLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::DynamoDb(table) => write!(f, "dynamodb:{table}"),
            Self::Consul(None) => f.write_str("consul"),
            Self::Consul(Some(name)) => write!(f, "consul:{name}"),
        }
    }
}

/// Source: <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.NamingRulesDataTypes.html>.
fn is_table_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (3..=255).contains(&name.len()) && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn location_is_parsed_or_explained() {
        for text in ["none", "consul", "consul:main", "dynamodb:ecs-mesh-leases"] {
            assert_eq!(text.parse::<LeaseLocation>().unwrap().to_string(), text);
        }
        for (text, part) in [
            ("dynamodb", "none of dynamodb:TABLE"),
            ("dynamodb:a", "no name of a table"),
            ("dynamodb:a/b/c", "no name of a table"),
            ("consul:", "none of"),
            ("etcd:x", "none of"),
        ] {
            let error = text.parse::<LeaseLocation>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn consul_must_be_one_of_the_manifests() {
        let spec = |text: &str| Arc::new(serde_json::from_str::<ControlPlaneSpec>(text).unwrap());
        let consul = spec(r#"{"type": "consul", "consul": {"address": "http://127.0.0.1:8500"}}"#);
        let kuma = spec(r#"{"type": "kuma", "kuma": {"address": "http://127.0.0.1:5681"}}"#);
        let of = |names: &[(&str, &Arc<ControlPlaneSpec>)], location: &str| {
            let control_planes =
                names.iter().map(|(name, spec)| ((*name).into(), Arc::clone(spec))).collect();
            let manifests = ManifestSet { control_planes, ..ManifestSet::default() };
            location.parse::<LeaseLocation>().unwrap().control_plane(&manifests)
        };
        let (one, two) = ([("kuma", &kuma), ("a", &consul)], [("a", &consul), ("b", &consul)]);
        assert_eq!(of(&one, "consul"), Ok(Some("a".into())));
        assert_eq!(of(&two, "consul:b"), Ok(Some("b".into())));
        assert!(of(&two, "consul").unwrap_err().contains("one of a, b"));
        assert!(of(&one, "consul:kuma").unwrap_err().contains("no ControlPlane kuma of type consul"));
        assert_eq!(of(&one, "dynamodb:table"), Ok(None));
    }
}

//! The kinds of resources: their names on the command line, and their places in the read API.

use serde_json::Value;

/// A kind of resource of the read API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceKind {
    /// ECS tasks with their verdict.
    Tasks,
    /// Services of a mesh.
    Services,
    /// `MeshBinding`s.
    Bindings,
    /// Identities that tasks hold.
    Identities,
    /// Declared calls.
    Outbounds,
    /// Conditions that a person should look at, grouped by cause.
    Warnings,
    /// Changes, from the history in memory.
    Changes,
}

struct Names {
    singular: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
}

impl ResourceKind {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::Tasks,
        Self::Services,
        Self::Bindings,
        Self::Identities,
        Self::Outbounds,
        Self::Warnings,
        Self::Changes,
    ];

    fn names(self) -> Names {
        let (singular, plural, short): (_, _, &[&str]) = match self {
            Self::Tasks => ("task", "tasks", &["tk"]),
            Self::Services => ("service", "services", &["svc"]),
            Self::Bindings => ("binding", "bindings", &["mb", "meshbinding", "meshbindings"]),
            Self::Identities => ("identity", "identities", &["id"]),
            Self::Outbounds => ("outbound", "outbounds", &["ob"]),
            Self::Warnings => ("warning", "warnings", &["warn"]),
            Self::Changes => ("change", "changes", &["ch"]),
        };
        Names { singular, plural, short }
    }

    /// The kind of a singular, plural or short name, in any case.
    ///
    /// # Errors
    /// Lists the names of all kinds.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let is = |kind: &Self| {
            let names = kind.names();
            lower == names.singular || lower == names.plural || names.short.contains(&lower.as_str())
        };
        Self::ALL.into_iter().find(is).ok_or_else(|| {
            let all: Vec<String> = Self::ALL
                .into_iter()
                .map(|kind| format!("{} ({})", kind.plural(), kind.names().short[0]))
                .collect();
            format!("{text:?} is no kind of resource: use {}", all.join(", "))
        })
    }

    /// The name of one, such as `task`.
    pub fn singular(self) -> &'static str {
        self.names().singular
    }

    /// The name of several, such as `tasks`, which is also the path in the API.
    pub fn plural(self) -> &'static str {
        self.names().plural
    }

    /// The filters of the list, by the names of their parameters.
    pub fn filters(self) -> &'static [&'static str] {
        match self {
            Self::Tasks => &[
                "cluster",
                "account",
                "ecsService",
                "service",
                "workload",
                "binding",
                "controlPlane",
                "state",
                "warning",
                "q",
                "all",
            ],
            Self::Services => &["controlPlane", "mesh", "state", "q"],
            Self::Bindings => &["controlPlane", "q"],
            Self::Identities => &["task", "role", "service", "controlPlane", "state", "q"],
            Self::Outbounds => &["from", "to", "state", "q"],
            Self::Warnings => &["controlPlane", "reason", "q"],
            Self::Changes => &["since", "until", "task", "service", "binding", "kind", "q", "warnings"],
        }
    }

    /// The name by which `get` finds the object again.
    pub fn object_name(self, object: &Value) -> String {
        let text = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
        match self {
            Self::Tasks | Self::Bindings | Self::Identities => text("name"),
            Self::Services => {
                let mesh = object["mesh"].as_str().unwrap_or("-");
                format!("{}/{mesh}/{}", text("controlPlane"), text("name"))
            }
            Self::Outbounds => format!("{}/{}", text("from"), text("to")),
            Self::Warnings => text("id"),
            // A number, or its text.
            Self::Changes => object["id"].as_str().map_or_else(|| object["id"].to_string(), str::to_owned),
        }
    }

    /// Whether the object is meant by a name on the command line: its own, or for services and outbounds a shorter one, which
    /// several objects may have.
    pub fn is_named(self, object: &Value, name: &str) -> bool {
        self.object_name(object) == name
            || match self {
                Self::Services => object["name"].as_str() == Some(name),
                Self::Outbounds => object["from"].as_str() == Some(name),
                _ => false,
            }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kinds_have_singular_plural_and_short_names() {
        for (text, kind) in [
            ("task", ResourceKind::Tasks),
            ("Tasks", ResourceKind::Tasks),
            ("svc", ResourceKind::Services),
            ("identity", ResourceKind::Identities),
            ("identities", ResourceKind::Identities),
            ("change", ResourceKind::Changes),
        ] {
            assert_eq!(ResourceKind::parse(text), Ok(kind), "{text}");
        }
        let error = ResourceKind::parse("pods").unwrap_err();
        assert!(ResourceKind::ALL.iter().all(|kind| error.contains(kind.plural())), "{error}");
    }

    #[test]
    fn every_name_belongs_to_one_kind() {
        let mut seen = std::collections::BTreeSet::new();
        for kind in ResourceKind::ALL {
            let names = kind.names();
            for name in [names.singular, names.plural].iter().chain(names.short) {
                assert!(seen.insert(*name), "{name}");
            }
        }
    }

    #[test]
    fn object_is_found_again_by_its_name() {
        let service = json!({"name": "kv", "controlPlane": "kuma", "mesh": "default"});
        let at_consul = json!({"name": "kv", "controlPlane": "consul"});
        assert_eq!(ResourceKind::Services.object_name(&service), "kuma/default/kv");
        assert_eq!(ResourceKind::Services.object_name(&at_consul), "consul/-/kv");
        for (kind, object, name) in [
            (ResourceKind::Services, &service, "kv"),
            (ResourceKind::Services, &service, "kuma/default/kv"),
            (ResourceKind::Outbounds, &json!({"from": "web", "to": "kv"}), "web/kv"),
            (ResourceKind::Outbounds, &json!({"from": "web", "to": "kv"}), "web"),
            (ResourceKind::Changes, &json!({"id": 7}), "7"),
        ] {
            assert!(kind.is_named(object, name), "{name}");
        }
        assert!(!ResourceKind::Services.is_named(&service, "consul/-/kv"));
    }
}

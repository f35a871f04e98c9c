//! Tags of inbounds in Kuma 3.x, where inbounds have none: they become labels of the Dataplane.

use std::fmt;

use crate::Inbound;
use ecs_mesh_model::is_label_value;

/// Tags that follow from other fields, or that the control plane sets.
const DERIVED_TAGS: [&str; 3] = ["kuma.io/service", "kuma.io/protocol", "kuma.io/zone"];

impl Inbound {
    /// The tags that follow from no other field, and that the control plane does not set.
    pub fn further_tags(&self) -> impl Iterator<Item = (&str, &str)> {
        let tags = self.tags.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        tags.filter(move |(name, _)| !DERIVED_TAGS.contains(name))
    }
}

/// A tag that cannot become a label, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InexpressibleTag<'a> {
    /// Name or value are not those of a label.
    NoLabel(&'a str),
    /// The name is the control plane's or the operator's.
    Reserved(&'a str),
    /// Not all inbounds have it with one value.
    Differs(&'a str),
}

impl<'a> InexpressibleTag<'a> {
    /// The next step.
    pub const HELP: &'static str =
        "remove the tag from Workload.spec.inbounds[].tags, or give all inbounds one value that is a label";

    /// The tags of a Dataplane's inbounds that cannot become its labels.
    pub fn of(inbounds: &'a [Inbound]) -> Vec<Self> {
        let mut problems = Vec::new();
        for (name, value) in inbounds.iter().flat_map(Inbound::further_tags) {
            let differs =
                || inbounds.iter().any(|inbound| inbound.tags.get(name).map(String::as_str) != Some(value));
            let problem = if is_reserved_key(name) {
                Self::Reserved(name)
            } else if !is_label_key(name) || !is_label_value(value) {
                Self::NoLabel(name)
            } else if differs() {
                Self::Differs(name)
            } else {
                continue;
            };
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        problems
    }
}

impl fmt::Display for InexpressibleTag<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLabel(name) => {
                write!(f, "the inbound tag {name} is no label of a Dataplane, which tags become in 3.x")
            }
            Self::Reserved(name) => write!(f, "the inbound tag {name} would become a reserved label"),
            Self::Differs(name) => write!(
                f,
                "the inbound tag {name} differs between inbounds, which have no tags of their own in 3.x"
            ),
        }
    }
}

/// Whether a label's name belongs to the control plane or to this operator.
fn is_reserved_key(name: &str) -> bool {
    let Some((prefix, _)) = name.split_once('/') else { return false };
    ["kuma.io", "ecs-mesh.dev"]
        .iter()
        .any(|own| prefix.strip_suffix(own).is_some_and(|before| before.is_empty() || before.ends_with('.')))
}

/// Whether Kuma accepts the name of a label: a name as in Kubernetes, with or without a DNS subdomain before `/`.
///
/// Source: <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/>.
fn is_label_key(name: &str) -> bool {
    let Some((prefix, name)) = name.split_once('/') else { return is_label_value(name) };
    let is_part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    prefix.len() <= 253 && prefix.split('.').all(is_part) && is_label_value(name)
}

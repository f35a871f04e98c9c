//! Strict deserialisation of a tree that reports all errors instead of the first.
//!
//! serde stops at the first error. The value that caused it is replaced by one that is accepted nearly everywhere, and the
//! tree is read again. Errors that only the replacement causes are not reported. The repaired tree is returned, too, so
//! that the rules between its fields can be checked in the same run.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, VariantAccess, Visitor,
};

use super::finding::{nearest, quoted, suggestion};
use super::yaml::{PathStep, StandIn, YamlEntry, YamlNode, YamlValue};

/// Maximum number of reads of a tree. Further errors of a document show once these are corrected.
const MAX_ROUNDS: usize = 100;

/// An error of a tree.
#[derive(Clone, Debug)]
pub(super) struct TypeProblem {
    /// From the tree's root.
    pub(super) path: Vec<PathStep>,
    /// From 1, in the file.
    pub(super) line: Option<u32>,
    /// The found value and the allowed values.
    pub(super) message: String,
    kind: ProblemKind,
}

#[derive(Debug, Clone, Copy)]
enum ProblemKind {
    /// The value is invalid.
    Invalid,
    /// The required field of this name is missing.
    Missing(&'static str),
    /// The field is unknown; `meant` is the most similar one.
    Unknown { meant: Option<&'static str> },
}

/// A tree that is not a `T`.
pub(super) struct Misread<T> {
    /// All errors.
    pub(super) problems: Vec<TypeProblem>,
    /// The repaired tree, read with each kind of stand-in; empty where it cannot be repaired.
    pub(super) readings: Vec<T>,
    /// The paths that were repaired.
    pub(super) repaired: Vec<Vec<PathStep>>,
}

/// Reads the tree as a `T`, or returns all errors.
pub(super) fn read<T: DeserializeOwned>(root: &YamlNode) -> Result<T, Misread<T>> {
    let mut found = match T::deserialize(NodeDeserializer { node: root }) {
        Ok(value) => return Ok(value),
        Err(problem) => problem,
    };
    let mut repair = Repair {
        tree: root.clone(),
        stand_ins: BTreeSet::new(),
        renamed: BTreeSet::new(),
        removed: BTreeSet::new(),
    };
    let mut problems = Vec::new();
    let mut readings = Vec::new();
    for _ in 0..MAX_ROUNDS {
        let location = found.location();
        if !repair.caused(&location) {
            problems.push(found.clone().located(root.line));
        }
        if !repair.make(&found, location) {
            break;
        }
        match T::deserialize(NodeDeserializer { node: &repair.tree }) {
            Ok(value) => {
                repair.tree.read_stand_ins_as(StandIn::Second);
                let other = T::deserialize(NodeDeserializer { node: &repair.tree });
                readings = other.map_or_else(|_| Vec::new(), |other| vec![value, other]);
                break;
            }
            Err(problem) => found = problem,
        }
    }
    Err(Misread { problems: drop_cascading(problems), readings, repaired: repair.paths() })
}

/// A copy of the tree in which errors that were found are repaired, so that the next one shows.
struct Repair {
    tree: YamlNode,
    /// Paths with a value that nearly every type accepts.
    stand_ins: BTreeSet<Vec<PathStep>>,
    /// Paths of values that stood under a misspelt key.
    renamed: BTreeSet<Vec<PathStep>>,
    /// Paths that were removed because no replacement was accepted.
    removed: BTreeSet<Vec<PathStep>>,
}

impl Repair {
    /// Whether the repair, and not the file, causes the error at this path.
    fn caused(&self, place: &[PathStep]) -> bool {
        self.removed.contains(place)
            || innermost_around(&self.stand_ins, place).is_some()
            || innermost_around(&self.renamed, place).is_some()
    }

    /// The paths whose values are not those of the file. The rest of a list moves up where an item is removed, so that
    /// the whole list counts.
    fn paths(&self) -> Vec<Vec<PathStep>> {
        let removed = self.removed.iter().map(|path| match path.split_last() {
            Some((PathStep::Index(_), list)) => list.to_vec(),
            _ => path.clone(),
        });
        removed.chain(self.stand_ins.iter().cloned()).chain(self.renamed.iter().cloned()).collect()
    }

    /// Changes the tree so that the error does not recur; `false` where that is impossible.
    fn make(&mut self, problem: &TypeProblem, place: Vec<PathStep>) -> bool {
        match problem.kind {
            // No replacement is accepted, and the field is required: the enclosing value is removed.
            ProblemKind::Missing(_) if self.removed.contains(&place) => self.remove(problem.path.clone()),
            ProblemKind::Invalid if self.caused(&place) => {
                match (innermost_around(&self.stand_ins, &place), innermost_around(&self.renamed, &place)) {
                    (Some(stand_in), _) => self.remove(stand_in),
                    (None, Some(renamed)) => {
                        self.tree.put_anything(&renamed);
                        self.stand_ins.insert(renamed)
                    }
                    (None, None) => false,
                }
            }
            ProblemKind::Unknown { meant: Some(key) } if self.tree.rename(&place, key) => {
                let parent = &place[..place.len() - 1];
                self.renamed.insert([parent, &[PathStep::Key(key.to_owned())]].concat())
            }
            ProblemKind::Unknown { .. } => self.remove(place),
            ProblemKind::Missing(_) | ProblemKind::Invalid if place.is_empty() => false,
            ProblemKind::Missing(_) | ProblemKind::Invalid => {
                self.tree.put_anything(&place);
                self.stand_ins.insert(place)
            }
        }
    }

    fn remove(&mut self, path: Vec<PathStep>) -> bool {
        self.tree.remove(&path);
        self.stand_ins.retain(|stand_in| !stand_in.starts_with(&path));
        !path.is_empty() && self.removed.insert(path)
    }
}

/// The longest of these paths that is the place or encloses it.
fn innermost_around(paths: &BTreeSet<Vec<PathStep>>, place: &[PathStep]) -> Option<Vec<PathStep>> {
    (0..=place.len()).rev().map(|end| &place[..end]).find(|path| paths.contains(*path)).map(Vec::from)
}

/// A required field with a misspelt name is one error instead of two.
fn drop_cascading(mut problems: Vec<TypeProblem>) -> Vec<TypeProblem> {
    let meant: BTreeSet<(Vec<PathStep>, &str)> = problems
        .iter()
        .filter_map(|problem| match problem.kind {
            ProblemKind::Unknown { meant } => Some((problem.path.split_last()?.1.to_vec(), meant?)),
            _ => None,
        })
        .collect();
    problems.retain(|problem| match (problem.kind, problem.path.split_last()) {
        (ProblemKind::Missing(field), Some((_, parent))) => !meant.contains(&(parent.to_vec(), field)),
        _ => true,
    });
    problems
}

impl TypeProblem {
    /// Whether a required field is missing.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self.kind, ProblemKind::Missing(_))
    }

    fn new(message: String) -> Self {
        Self { path: Vec::new(), line: None, message, kind: ProblemKind::Invalid }
    }

    /// The path of the invalid or missing value.
    fn location(&self) -> Vec<PathStep> {
        let field = match self.kind {
            ProblemKind::Missing(field) => Some(PathStep::Key(field.to_owned())),
            _ => None,
        };
        self.path.iter().cloned().chain(field).collect()
    }

    /// The problem with its full path and a line.
    fn located(self, line: u32) -> Self {
        Self { path: self.location(), ..self.at(line) }
    }

    /// Sets the line unless it is known: the innermost one wins.
    fn at(mut self, line: u32) -> Self {
        self.line = self.line.or(Some(line));
        self
    }

    fn within(mut self, step: PathStep, line: u32) -> Self {
        self.path.insert(0, step);
        self.at(line)
    }

    fn invalid(node: &YamlNode, expected: &dyn Expected) -> Self {
        let expected = type_name(&expected.to_string());
        let mut message = match &node.value {
            YamlValue::Null => "has no value: give one, or leave the field out".to_owned(),
            _ => format!("expected {expected}, found {}", describe(node)),
        };
        if matches!(node.value, YamlValue::Text)
            && node.text.parse::<f64>().is_ok()
            && expected.contains("number")
        {
            message.push_str(" (write it without quotes)");
        }
        Self::new(message).at(node.line)
    }
}

/// serde's names of expected types, and ours.
const TYPE_NAMES: [(&str, &str); 9] = [
    ("a nonzero u16", "a whole number from 1 to 65535"),
    ("u16", "a whole number from 0 to 65535"),
    ("u32", "a whole number from 0 to 4294967295"),
    ("f64", "a number"),
    ("a boolean", "true or false"),
    ("a string", "a text"),
    ("path string", "a file's path"),
    ("a sequence", "a list"),
    ("a map", "a mapping"),
];

fn type_name(expected: &str) -> String {
    if expected.starts_with("struct ") {
        return "a mapping".to_owned();
    }
    TYPE_NAMES.iter().find(|(theirs, _)| *theirs == expected).map_or(expected, |(_, ours)| ours).to_owned()
}

fn describe(node: &YamlNode) -> String {
    match &node.value {
        YamlValue::Null | YamlValue::Anything(_) => "nothing".to_owned(),
        YamlValue::Bool(_) | YamlValue::Unsigned(_) | YamlValue::Float(_) => {
            node.text.chars().take(80).collect()
        }
        YamlValue::Text => format!("the text {}", quoted(&node.text)),
        YamlValue::List(_) => "a list".to_owned(),
        YamlValue::Map(_) => "a mapping".to_owned(),
    }
}

impl fmt::Display for TypeProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for TypeProblem {}

impl de::Error for TypeProblem {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Unsigned(number) => number.to_string(),
            other => other.to_string(),
        };
        Self::new(format!("expected {}, found {found}", type_name(&expected.to_string())))
    }

    fn unknown_field(field: &str, allowed: &'static [&'static str]) -> Self {
        let meant = nearest(field, allowed.iter().copied());
        Self {
            kind: ProblemKind::Unknown { meant },
            ..Self::new(format!("unknown field{}", suggestion(field, "Allowed", allowed)))
        }
    }

    fn unknown_variant(found: &str, allowed: &'static [&'static str]) -> Self {
        Self::new(format!("{} is not allowed{}", quoted(found), suggestion(found, "Allowed", allowed)))
    }

    fn missing_field(field: &'static str) -> Self {
        Self { kind: ProblemKind::Missing(field), ..Self::new("required, and missing".to_owned()) }
    }
}

#[derive(Clone, Copy)]
struct NodeDeserializer<'a> {
    node: &'a YamlNode,
}

macro_rules! whole_numbers {
    ($($method:ident, $visit:ident, $type:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeProblem> {
            let number = match self.node.value {
                YamlValue::Unsigned(number) => <$type>::try_from(number).ok(),
                YamlValue::Anything(StandIn::First) => Some(1),
                YamlValue::Anything(StandIn::Second) => Some(2),
                _ => None,
            };
            match number {
                Some(number) => visitor.$visit(number),
                None => Err(TypeProblem::invalid(self.node, &visitor)),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for NodeDeserializer<'_> {
    type Error = TypeProblem;

    whole_numbers! {
        deserialize_u8, visit_u8, u8;
        deserialize_u16, visit_u16, u16;
        deserialize_u32, visit_u32, u32;
        deserialize_u64, visit_u64, u64;
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeProblem> {
        match &self.node.value {
            YamlValue::Null | YamlValue::Anything(_) => visitor.visit_unit(),
            YamlValue::Bool(value) => visitor.visit_bool(*value),
            YamlValue::Unsigned(value) => visitor.visit_u64(*value),
            YamlValue::Float(value) => visitor.visit_f64(*value),
            YamlValue::Text => visitor.visit_str(&self.node.text),
            YamlValue::List(_) => self.deserialize_seq(visitor),
            YamlValue::Map(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeProblem> {
        match self.node.value {
            YamlValue::Bool(value) => visitor.visit_bool(value),
            YamlValue::Anything(stand_in) => visitor.visit_bool(stand_in == StandIn::Second),
            _ => Err(TypeProblem::invalid(self.node, &visitor)),
        }
    }

    #[allow(clippy::cast_precision_loss)] // no field of that size is a float
    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeProblem> {
        match self.node.value {
            YamlValue::Unsigned(value) => visitor.visit_f64(value as f64),
            YamlValue::Float(value) => visitor.visit_f64(value),
            YamlValue::Anything(StandIn::First) => visitor.visit_f64(0.0),
            YamlValue::Anything(StandIn::Second) => visitor.visit_f64(1.0),
            _ => Err(TypeProblem::invalid(self.node, &visitor)),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeProblem> {
        let Some(text) = self.node.as_text() else { return Err(TypeProblem::invalid(self.node, &visitor)) };
        let address = visitor_expects(&visitor, "IP address");
        visitor.visit_str(text).map_err(|problem| {
            if address {
                TypeProblem::new(format!("{} is not an IP address, such as 127.0.0.1 or ::1", quoted(text)))
            } else {
                problem
            }
        })
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeProblem> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeProblem> {
        match self.node.value {
            YamlValue::Null => Err(TypeProblem::invalid(self.node, &visitor)),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, TypeProblem> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeProblem> {
        match &self.node.value {
            YamlValue::List(items) => visitor.visit_seq(SeqItems { rest: items.iter() }),
            YamlValue::Anything(_) => visitor.visit_seq(SeqItems { rest: [].iter() }),
            _ => Err(TypeProblem::invalid(self.node, &visitor)),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeProblem> {
        match &self.node.value {
            YamlValue::Map(entries) => visitor.visit_map(MapEntries { rest: entries.iter(), current: None }),
            YamlValue::Anything(_) => visitor.visit_map(MapEntries { rest: [].iter(), current: None }),
            _ => Err(TypeProblem::invalid(self.node, &visitor)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TypeProblem> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        allowed: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TypeProblem> {
        let anything = match self.node.value {
            YamlValue::Anything(StandIn::First) => allowed.first().copied(),
            YamlValue::Anything(StandIn::Second) => allowed.last().copied(),
            _ => None,
        };
        match anything.or(self.node.as_text()) {
            Some(text) => visitor.visit_enum(EnumVariant { text }),
            None if matches!(self.node.value, YamlValue::Null) => {
                Err(TypeProblem::invalid(self.node, &visitor))
            }
            None => Err(TypeProblem::new(format!(
                "expected one of {}, found {}",
                allowed.join(", "),
                describe(self.node)
            ))),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeProblem> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 f32 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

fn visitor_expects(visitor: &dyn Expected, text: &str) -> bool {
    visitor.to_string() == text
}

struct SeqItems<'a> {
    rest: std::slice::Iter<'a, (usize, YamlNode)>,
}

impl<'de> SeqAccess<'de> for SeqItems<'_> {
    type Error = TypeProblem;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, TypeProblem> {
        let Some((index, node)) = self.rest.next() else { return Ok(None) };
        seed.deserialize(NodeDeserializer { node })
            .map(Some)
            .map_err(|problem| problem.at(node.line).within(PathStep::Index(*index), node.line))
    }
}

struct MapEntries<'a> {
    rest: std::slice::Iter<'a, YamlEntry>,
    current: Option<&'a YamlEntry>,
}

impl<'de> MapAccess<'de> for MapEntries<'_> {
    type Error = TypeProblem;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, TypeProblem> {
        self.current = self.rest.next();
        let Some(entry) = self.current else { return Ok(None) };
        let key: StrDeserializer<'_, TypeProblem> = entry.key.as_str().into_deserializer();
        seed.deserialize(key)
            .map(Some)
            .map_err(|problem| problem.within(PathStep::Key(entry.key.clone()), entry.line))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, TypeProblem> {
        let Some(YamlEntry { key, line, node }) = self.current else {
            return Err(de::Error::custom("a value was requested before its key"));
        };
        // A mapping's line is that of its first field; a missing field is reported at the mapping's key.
        seed.deserialize(NodeDeserializer { node })
            .map_err(|problem| problem.within(PathStep::Key(key.clone()), *line))
    }
}

struct EnumVariant<'a> {
    text: &'a str,
}

impl<'de> EnumAccess<'de> for EnumVariant<'_> {
    type Error = TypeProblem;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), TypeProblem> {
        let text: StrDeserializer<'_, TypeProblem> = self.text.into_deserializer();
        Ok((seed.deserialize(text)?, self))
    }
}

impl<'de> VariantAccess<'de> for EnumVariant<'_> {
    type Error = TypeProblem;

    fn unit_variant(self) -> Result<(), TypeProblem> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, TypeProblem> {
        Err(de::Error::custom("expected a mapping"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, TypeProblem> {
        Err(de::Error::custom("expected a list"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, TypeProblem> {
        Err(de::Error::custom("expected a mapping"))
    }
}

//! From a tree to a typed value, strictly, with all that is wrong in it rather than the first thing only.
//!
//! serde stops at the first error. So that a person needs one round and not ten, a value that fits takes the place of
//! the one that caused it, and the tree is read again. What goes wrong only because of that is not reported.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, VariantAccess, Visitor,
};

use super::finding::{nearest, quoted, suggestion};
use super::yaml::{Entry, Node, Step, Value};

/// How often a tree is read for its errors; the rest of a document with more of them shows when these are mended.
const MAX_ROUNDS: usize = 100;

/// Something that keeps a tree from being the wanted value.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    /// From the tree's root.
    pub(super) path: Vec<Step>,
    /// From 1, in the file.
    pub(super) line: Option<u32>,
    /// What was found and what is allowed.
    pub(super) message: String,
    flavour: Flavour,
}

#[derive(Debug, Clone, Copy)]
enum Flavour {
    /// The value does not fit.
    Unfit,
    /// The field of this name is not there.
    Missing(&'static str),
    /// The field has no meaning; perhaps another was meant.
    Unknown { meant: Option<&'static str> },
}

/// Reads the tree as a `T`, or tells all that is wrong.
pub(super) fn read<T: DeserializeOwned>(root: &Node) -> Result<T, Vec<Problem>> {
    let mut found = match T::deserialize(Reader { node: root }) {
        Ok(value) => return Ok(value),
        Err(problem) => problem,
    };
    let mut repair = Repair { tree: root.clone(), stand_ins: BTreeSet::new(), removed: BTreeSet::new() };
    let mut problems = Vec::new();
    for _ in 0..MAX_ROUNDS {
        let found_at = found.place();
        if !repair.caused(&found_at) {
            problems.push(found.clone().located(root.line));
        }
        if !repair.make(&found, found_at) {
            break;
        }
        match T::deserialize(Reader { node: &repair.tree }) {
            Ok(_) => break,
            Err(problem) => found = problem,
        }
    }
    Err(without_echoes(problems))
}

/// A copy of the tree in which each problem is put out of the way of the next.
struct Repair {
    tree: Node,
    /// Where a value stands that fits nearly everything.
    stand_ins: BTreeSet<Vec<Step>>,
    /// Where something was taken out because nothing fitted.
    removed: BTreeSet<Vec<Step>>,
}

impl Repair {
    /// Whether the problem is one of the repair and not of what the person wrote.
    fn caused(&self, place: &[Step]) -> bool {
        self.removed.contains(place) || self.stand_in_around(place).is_some()
    }

    fn stand_in_around(&self, place: &[Step]) -> Option<Vec<Step>> {
        (0..=place.len())
            .rev()
            .map(|end| &place[..end])
            .find(|path| self.stand_ins.contains(*path))
            .map(Vec::from)
    }

    /// Changes the tree so that the problem does not come again; `false` where that cannot be.
    fn make(&mut self, problem: &Problem, place: Vec<Step>) -> bool {
        match problem.flavour {
            // Nothing fits here, and something must be here: what it is part of goes as a whole.
            Flavour::Missing(_) if self.removed.contains(&place) => self.remove(problem.path.clone()),
            Flavour::Unfit if self.caused(&place) => match self.stand_in_around(&place) {
                Some(stand_in) => self.remove(stand_in),
                None => false,
            },
            Flavour::Unknown { .. } => self.remove(place),
            Flavour::Missing(_) | Flavour::Unfit if place.is_empty() => false,
            Flavour::Missing(_) | Flavour::Unfit => {
                self.tree.put_anything(&place);
                self.stand_ins.insert(place)
            }
        }
    }

    fn remove(&mut self, path: Vec<Step>) -> bool {
        self.tree.remove(&path);
        self.stand_ins.retain(|stand_in| !stand_in.starts_with(&path));
        !path.is_empty() && self.removed.insert(path)
    }
}

/// A field that is missing because its name is misspelt has one error, not two.
fn without_echoes(mut problems: Vec<Problem>) -> Vec<Problem> {
    let meant: BTreeSet<(Vec<Step>, &str)> = problems
        .iter()
        .filter_map(|problem| match problem.flavour {
            Flavour::Unknown { meant } => Some((problem.path.split_last()?.1.to_vec(), meant?)),
            _ => None,
        })
        .collect();
    problems.retain(|problem| match (problem.flavour, problem.path.split_last()) {
        (Flavour::Missing(field), Some((_, parent))) => !meant.contains(&(parent.to_vec(), field)),
        _ => true,
    });
    problems
}

impl Problem {
    /// Whether a required field is not there.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self.flavour, Flavour::Missing(_))
    }

    fn new(message: String) -> Self {
        Self { path: Vec::new(), line: None, message, flavour: Flavour::Unfit }
    }

    /// Where the value is that does not fit or is not there.
    fn place(&self) -> Vec<Step> {
        let field = match self.flavour {
            Flavour::Missing(field) => Some(Step::Key(field.to_owned())),
            _ => None,
        };
        self.path.iter().cloned().chain(field).collect()
    }

    /// The problem with its full path and a line.
    fn located(self, line: u32) -> Self {
        Self { path: self.place(), ..self.at(line) }
    }

    /// Sets the line where none is known yet: the innermost place wins.
    fn at(mut self, line: u32) -> Self {
        self.line = self.line.or(Some(line));
        self
    }

    fn within(mut self, step: Step, line: u32) -> Self {
        self.path.insert(0, step);
        self.at(line)
    }

    fn unfit(node: &Node, expected: &dyn Expected) -> Self {
        let expected = words(&expected.to_string());
        let mut message = match &node.value {
            Value::Null => "has no value: give one, or leave the field out".to_owned(),
            _ => format!("expected {expected}, found {}", describe(node)),
        };
        if matches!(node.value, Value::Text)
            && node.text.parse::<f64>().is_ok()
            && expected.contains("number")
        {
            message.push_str(" (write it without quotes)");
        }
        Self::new(message).at(node.line)
    }
}

/// serde's words for what it wants, and ours.
const WORDS: [(&str, &str); 9] = [
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

fn words(expected: &str) -> String {
    if expected.starts_with("struct ") {
        return "a mapping".to_owned();
    }
    WORDS.iter().find(|(theirs, _)| *theirs == expected).map_or(expected, |(_, ours)| ours).to_owned()
}

fn describe(node: &Node) -> String {
    match &node.value {
        Value::Null | Value::Anything => "nothing".to_owned(),
        Value::Bool(_) | Value::Unsigned(_) | Value::Float(_) => node.text.chars().take(80).collect(),
        Value::Text => format!("the text {}", quoted(&node.text)),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a mapping".to_owned(),
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl de::Error for Problem {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Unsigned(number) => number.to_string(),
            other => other.to_string(),
        };
        Self::new(format!("expected {}, found {found}", words(&expected.to_string())))
    }

    fn unknown_field(field: &str, allowed: &'static [&'static str]) -> Self {
        let meant = nearest(field, allowed.iter().copied());
        Self {
            flavour: Flavour::Unknown { meant },
            ..Self::new(format!("unknown field{}", suggestion(field, "Allowed", allowed)))
        }
    }

    fn unknown_variant(found: &str, allowed: &'static [&'static str]) -> Self {
        Self::new(format!("{} is not allowed{}", quoted(found), suggestion(found, "Allowed", allowed)))
    }

    fn missing_field(field: &'static str) -> Self {
        Self { flavour: Flavour::Missing(field), ..Self::new("required, and missing".to_owned()) }
    }
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    node: &'a Node,
}

macro_rules! whole_numbers {
    ($($method:ident, $visit:ident, $type:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
            let number = match self.node.value {
                Value::Unsigned(number) => <$type>::try_from(number).ok(),
                Value::Anything => Some(1),
                _ => None,
            };
            match number {
                Some(number) => visitor.$visit(number),
                None => Err(Problem::unfit(self.node, &visitor)),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Problem;

    whole_numbers! {
        deserialize_u8, visit_u8, u8;
        deserialize_u16, visit_u16, u16;
        deserialize_u32, visit_u32, u32;
        deserialize_u64, visit_u64, u64;
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.node.value {
            Value::Null | Value::Anything => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Unsigned(value) => visitor.visit_u64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text => visitor.visit_str(&self.node.text),
            Value::List(_) => self.deserialize_seq(visitor),
            Value::Map(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self.node.value {
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Anything => visitor.visit_bool(false),
            _ => Err(Problem::unfit(self.node, &visitor)),
        }
    }

    #[allow(clippy::cast_precision_loss)] // no field of that size is a float
    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self.node.value {
            Value::Unsigned(value) => visitor.visit_f64(value as f64),
            Value::Float(value) => visitor.visit_f64(value),
            Value::Anything => visitor.visit_f64(0.0),
            _ => Err(Problem::unfit(self.node, &visitor)),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        let Some(text) = self.node.as_text() else { return Err(Problem::unfit(self.node, &visitor)) };
        let address = visitor_expects(&visitor, "IP address");
        visitor.visit_str(text).map_err(|problem| {
            if address {
                Problem::new(format!("{} is not an IP address, such as 127.0.0.1 or ::1", quoted(text)))
            } else {
                problem
            }
        })
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match self.node.value {
            Value::Null => Err(Problem::unfit(self.node, &visitor)),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Problem> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.node.value {
            Value::List(items) => visitor.visit_seq(Items { rest: items.iter() }),
            Value::Anything => visitor.visit_seq(Items { rest: [].iter() }),
            _ => Err(Problem::unfit(self.node, &visitor)),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        match &self.node.value {
            Value::Map(entries) => visitor.visit_map(Entries { rest: entries.iter(), current: None }),
            Value::Anything => visitor.visit_map(Entries { rest: [].iter(), current: None }),
            _ => Err(Problem::unfit(self.node, &visitor)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        allowed: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        let anything = matches!(self.node.value, Value::Anything).then(|| allowed.first().copied()).flatten();
        match anything.or(self.node.as_text()) {
            Some(text) => visitor.visit_enum(Choice { text }),
            None if matches!(self.node.value, Value::Null) => Err(Problem::unfit(self.node, &visitor)),
            None => Err(Problem::new(format!(
                "expected one of {}, found {}",
                allowed.join(", "),
                describe(self.node)
            ))),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 f32 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

fn visitor_expects(visitor: &dyn Expected, words: &str) -> bool {
    visitor.to_string() == words
}

struct Items<'a> {
    rest: std::slice::Iter<'a, (usize, Node)>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Problem;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Problem> {
        let Some((index, node)) = self.rest.next() else { return Ok(None) };
        seed.deserialize(Reader { node })
            .map(Some)
            .map_err(|problem| problem.at(node.line).within(Step::Index(*index), node.line))
    }
}

struct Entries<'a> {
    rest: std::slice::Iter<'a, Entry>,
    current: Option<&'a Entry>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Problem;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Problem> {
        self.current = self.rest.next();
        let Some(entry) = self.current else { return Ok(None) };
        let key: StrDeserializer<'_, Problem> = entry.key.as_str().into_deserializer();
        seed.deserialize(key)
            .map(Some)
            .map_err(|problem| problem.within(Step::Key(entry.key.clone()), entry.line))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Problem> {
        let Some(Entry { key, line, node }) = self.current else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        // A mapping's own line is that of its first field; what is missing in it is looked for at its key.
        seed.deserialize(Reader { node }).map_err(|problem| problem.within(Step::Key(key.clone()), *line))
    }
}

struct Choice<'a> {
    text: &'a str,
}

impl<'de> EnumAccess<'de> for Choice<'_> {
    type Error = Problem;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Problem> {
        let text: StrDeserializer<'_, Problem> = self.text.into_deserializer();
        Ok((seed.deserialize(text)?, self))
    }
}

impl<'de> VariantAccess<'de> for Choice<'_> {
    type Error = Problem;

    fn unit_variant(self) -> Result<(), Problem> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Problem> {
        Err(de::Error::custom("expected a mapping"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Problem> {
        Err(de::Error::custom("expected a list"))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Problem> {
        Err(de::Error::custom("expected a mapping"))
    }
}

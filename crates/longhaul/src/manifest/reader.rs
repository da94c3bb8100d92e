//! Reads a parsed TOML document into types, and goes on after a fault: what cannot be read is noted
//! with its place and left out, so that all faults of a file are told at once. What the keys mean is
//! left to the types.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer as _, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use toml::Spanned;
use toml::de::{DeInteger, DeString, DeTable, DeValue};

use super::error::{Fault, MAX_REPORTS, one_of, quoted, suggestion};

/// A value and its place.
pub(super) type Node<'a> = Spanned<DeValue<'a>>;

/// Reads a document. Returns `None` when there are more faults than are told.
pub(super) fn read<T: DeserializeOwned>(root: &Node<'_>, faults: &mut Vec<Fault>) -> Option<T> {
    let mut skipped = HashSet::new();
    while faults.len() <= MAX_REPORTS {
        match T::deserialize(Reader { node: root, path: String::new(), in_list: false, skipped: &skipped }) {
            Ok(value) => return Some(value),
            Err(stop) => {
                let (span, identity) = stop.place.unwrap_or_else(|| place(root));
                if !stop.follows {
                    faults.push(Fault { span, ..stop.fault });
                }
                if !skipped.insert(identity) || identity == place(root).1 {
                    return None;
                }
            }
        }
    }
    None
}

/// What tells one value from all others: its address. The document does not move while it is read.
type Identity = *const ();

fn place(node: &Node<'_>) -> (Range<usize>, Identity) {
    (node.span(), std::ptr::from_ref(node).cast())
}

/// One value of the document, and what has been found faulty so far.
struct Reader<'a> {
    node: &'a Node<'a>,
    /// Its keys, joined by dots.
    path: String,
    in_list: bool,
    skipped: &'a HashSet<Identity>,
}

/// Why reading stopped, and at which value; without a place, at the one being read.
#[derive(Debug)]
struct Stop {
    place: Option<(Range<usize>, Identity)>,
    fault: Fault,
    /// It may come of a fault that was noted already: something was left out of this table.
    follows: bool,
}

impl Stop {
    fn new(what: String, hint: String) -> Self {
        Stop { place: None, fault: Fault { span: 0..0, what, hint }, follows: false }
    }

    fn at(mut self, node: &Node<'_>) -> Self {
        self.place.get_or_insert_with(|| place(node));
        self
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fault.what)
    }
}

impl std::error::Error for Stop {}

impl serde::de::Error for Stop {
    /// Takes a message whose first line says what is wrong, and whose second what to do.
    fn custom<T: fmt::Display>(message: T) -> Self {
        let text = message.to_string();
        let (what, hint) = text.split_once('\n').unwrap_or((&text, ""));
        Stop::new(what.to_owned(), hint.to_owned())
    }

    fn missing_field(field: &'static str) -> Self {
        Stop::new(format!("`{field}` is missing here"), format!("add `{field} = …`"))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let names: Vec<String> = expected.iter().map(|name| format!("\"{name}\"")).collect();
        let what = format!("{} is not known here", quoted(variant));
        Stop::new(what, suggestion(variant, expected).unwrap_or_else(|| format!("write {}", one_of(&names))))
    }
}

impl<'a> Reader<'a> {
    fn below(&self, key: &str, node: &'a Node<'a>) -> Self {
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Reader { node, path, in_list: false, skipped: self.skipped }
    }

    fn keeps(&self, node: &Node<'_>) -> bool {
        !self.skipped.contains(&place(node).1)
    }

    fn expected(&self, what: &str, hint: impl Into<String>) -> Stop {
        let found = kind(self.node.get_ref());
        Stop::new(format!("expected {what}, found {found}"), hint.into()).at(self.node)
    }

    fn table<'de, V: Visitor<'de>>(&self, visitor: V, table: &'a DeTable<'a>) -> Result<V::Value, Stop> {
        let entries: Vec<_> = table.iter().filter(|(_, node)| self.keeps(node)).collect();
        let follows = entries.len() < table.len();
        let entries = Entries { reader: self, entries: entries.into_iter(), next: None };
        visitor.visit_map(entries).map_err(|stop| {
            let follows = stop.follows || (stop.place.is_none() && follows);
            Stop { follows, ..stop }.at(self.node)
        })
    }

    fn refuse_unknown(&self, table: &DeTable<'_>, fields: &'static [&'static str]) -> Result<(), Stop> {
        let known = |key: &str| fields.contains(&key);
        let Some((key, node)) =
            table.iter().find(|(key, node)| self.keeps(node) && !known(key.get_ref().as_ref()))
        else {
            return Ok(());
        };
        let name = key.get_ref();
        let inside = if self.path.is_empty() { String::new() } else { format!(" in `{}`", self.path) };
        let names: Vec<String> = fields.iter().map(|field| format!("`{field}`")).collect();
        let hint =
            suggestion(name, fields).unwrap_or_else(|| format!("remove it; there is {}", one_of(&names)));
        let fault =
            Fault { span: key.span(), what: format!("there is no key {}{inside}", quoted(name)), hint };
        Err(Stop { place: Some((key.span(), place(node).1)), fault, follows: false })
    }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Stop;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let read = match self.node.get_ref() {
            DeValue::String(text) => visitor.visit_str(text),
            DeValue::Integer(number) => match integer(number) {
                Some(number) => visitor.visit_i64(number),
                None => Err(Stop::new("this number is too large".into(), "write a smaller one".into())),
            },
            DeValue::Float(number) => match number.as_str().parse::<f64>().ok().filter(|it| it.is_finite()) {
                Some(number) => visitor.visit_f64(number),
                None => Err(Stop::new("this number is not finite".into(), "write a finite one".into())),
            },
            DeValue::Boolean(flag) => visitor.visit_bool(*flag),
            DeValue::Datetime(_) => Err(Stop::new(
                "a date cannot stand here".into(),
                "put it in quotes to make it a string".into(),
            )),
            DeValue::Array(nodes) => {
                let nodes = nodes.iter().filter(|node| self.keeps(node)).collect::<Vec<_>>().into_iter();
                visitor.visit_seq(Elements { reader: &self, nodes })
            }
            DeValue::Table(table) => return self.table(visitor, table),
        };
        read.map_err(|stop| stop.at(self.node))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        if let DeValue::Table(table) = self.node.get_ref() {
            self.refuse_unknown(table, fields)?;
        }
        self.deserialize_map(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match self.node.get_ref() {
            DeValue::Table(table) => self.table(visitor, table),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_) => {
                let heading =
                    if self.in_list { format!("[[{}]]", self.path) } else { format!("[{}]", self.path) };
                Err(self.expected("a table", format!("write {heading} and its keys below it")))
            }
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        if matches!(self.node.get_ref(), DeValue::Array(_)) {
            return self.deserialize_any(visitor);
        }
        Err(self.expected("a list", format!("write [[{}]], once for each", self.path)))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        if matches!(self.node.get_ref(), DeValue::String(_)) {
            return self.deserialize_any(visitor);
        }
        Err(self.expected("a string", "write a text in quotes"))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        if matches!(self.node.get_ref(), DeValue::Boolean(_)) {
            return self.deserialize_any(visitor);
        }
        Err(self.expected("true or false", "write true or false, without quotes"))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        visitor.visit_some(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let DeValue::String(name) = self.node.get_ref() else {
            let names: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
            return Err(self.expected("a string", format!("write {}", one_of(&names))));
        };
        let name: StrDeserializer<'_, Stop> = name.as_ref().into_deserializer();
        visitor.visit_enum(name).map_err(|stop| stop.at(self.node))
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct
        newtype_struct tuple tuple_struct identifier ignored_any
    }
}

/// The entries of a table, one after the other.
struct Entries<'r, 'a> {
    reader: &'r Reader<'a>,
    entries: std::vec::IntoIter<(&'a Spanned<DeString<'a>>, &'a Node<'a>)>,
    next: Option<(&'a str, &'a Node<'a>)>,
}

impl<'de> MapAccess<'de> for Entries<'_, '_> {
    type Error = Stop;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Stop> {
        let Some((key, node)) = self.entries.next() else { return Ok(None) };
        let name: &str = key.get_ref();
        self.next = Some((name, node));
        let name: StrDeserializer<'_, Stop> = name.into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Stop> {
        let (name, node) = self.next.take().expect("a value is asked for after its key");
        seed.deserialize(self.reader.below(name, node)).map_err(|stop| stop.at(node))
    }
}

/// The values of an array, one after the other.
struct Elements<'r, 'a> {
    reader: &'r Reader<'a>,
    nodes: std::vec::IntoIter<&'a Node<'a>>,
}

impl<'de> SeqAccess<'de> for Elements<'_, '_> {
    type Error = Stop;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Stop> {
        let Some(node) = self.nodes.next() else { return Ok(None) };
        let reader =
            Reader { node, in_list: true, path: self.reader.path.clone(), skipped: self.reader.skipped };
        seed.deserialize(reader).map(Some).map_err(|stop| stop.at(node))
    }
}

fn integer(number: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// Names the kind of a value, as TOML calls it.
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

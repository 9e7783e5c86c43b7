//! From the tree to the paper's types. serde stops at the first mistake; a user wants all of them at once. So each
//! mistake is written down, a stand-in of the right type takes its place, and the tree is read again.

mod access;
mod fault;
mod stand_in;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use figment::value::{Dict, Num, Value};
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::nearest::{nearest, suggestion};
use super::yaml::{flow, join};
use access::{Choice, Entries, Items};
use fault::Fault;
use stand_in::{STAND_INS, StandIn};

/// What was found wrong: dotted key and message.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<(String, String)>,
    /// Those of them that no type knows.
    pub(super) unknown: Vec<String>,
    /// Keys that stand-ins replace, and how many stand-ins they had.
    replaced: BTreeMap<String, usize>,
}

/// Reads a block of the tree as `T`; what is wrong goes to `findings`. `elsewhere` are keys that belong to somebody
/// else at this level: they help to say what a misspelt key was meant to be. `None`: not even stand-ins helped.
pub(super) fn read<T: DeserializeOwned>(tree: Dict, elsewhere: &[&str], findings: &mut Findings) -> Option<T> {
    let (state, tree) = (RefCell::new(std::mem::take(findings)), Value::from(tree));
    let result = loop {
        let root = Node { value: &tree, path: String::new(), untagged: false, elsewhere, state: &state };
        let fault = match T::deserialize(root) {
            Ok(value) => break Some(value),
            Err(fault) => fault.at(""),
        };
        let key = fault.key.unwrap_or_default();
        let mut state = state.borrow_mut();
        let tried = state.replaced.entry(key.clone()).or_insert(0);
        *tried += 1;
        let (first, last) = (*tried == 1, *tried > STAND_INS.len() || key.is_empty());
        if first {
            state.problems.push((key, fault.message));
        }
        if last {
            break None;
        }
    };
    *findings = state.into_inner();
    result
}

/// The field names of a struct, as its `Deserialize` tells them.
pub(super) fn fields<T: DeserializeOwned>() -> &'static [&'static str] {
    struct Ask<'a>(&'a Cell<&'static [&'static str]>);
    impl<'de> Deserializer<'de> for Ask<'_> {
        type Error = Fault;
        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Fault> {
            Err(Fault::new("only asked"))
        }
        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Fault> {
            self.0.set(fields);
            self.deserialize_any(visitor)
        }
        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }
    let found = Cell::new(&[][..]);
    let _ = T::deserialize(Ask(&found)); // always an error: only the names are of interest
    found.get()
}

/// A value of the tree and its dotted key.
#[derive(Clone)]
struct Node<'a> {
    value: &'a Value,
    path: String,
    /// The block of an enum, whose `kind` is already read.
    untagged: bool,
    elsewhere: &'a [&'a str],
    state: &'a RefCell<Findings>,
}

impl<'a> Node<'a> {
    fn wrong(&self, expected: &str) -> Fault {
        Fault::new(format!("must be {expected}, found {}", describe(self.value)))
    }

    fn problem(&self, key: String, message: String) {
        let mut state = self.state.borrow_mut();
        if !state.problems.iter().any(|(other, _)| *other == key) {
            state.problems.push((key, message));
        }
    }

    /// Reads a value below this one, or the stand-in for it.
    fn child<'de, S: DeserializeSeed<'de>>(
        &self,
        seed: S,
        value: Option<&Value>,
        path: String,
    ) -> Result<S::Value, Fault> {
        let tried = self.state.borrow().replaced.get(&path).copied();
        let result = match (tried, value) {
            (Some(tried), _) => seed.deserialize(StandIn { tried }),
            (None, Some(value)) => {
                seed.deserialize(Node { value, path: path.clone(), untagged: false, elsewhere: &[], state: self.state })
            }
            (None, None) => Err(Fault::new("missing")),
        };
        result.map_err(|fault| fault.at(&path))
    }

    fn entries(&self) -> Option<impl Iterator<Item = (&'a String, &'a Value)> + use<'a>> {
        let untagged = self.untagged;
        let dict = self.value.as_dict()?;
        Some(dict.iter().filter(move |(key, _)| !(untagged && *key == "kind")))
    }

    /// Hands the known keys to a struct and writes down the unknown ones.
    fn block<'de, V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        let Some(entries) = self.entries() else {
            return Err(self.wrong(&format!("a block with the keys {}", fields.join(", "))));
        };
        let mut known: Vec<(&str, Option<&Value>)> = Vec::new();
        for (key, value) in entries {
            if fields.contains(&key.as_str()) {
                known.push((key, Some(value)));
            } else {
                let near = suggestion(key, fields.iter().chain(self.elsewhere).copied());
                self.state.borrow_mut().unknown.push(join(&self.path, key));
                self.problem(join(&self.path, key), format!("unknown key{near}"));
            }
        }
        for field in fields {
            let absent = !known.iter().any(|(key, _)| key == field);
            if absent && self.state.borrow().replaced.contains_key(&join(&self.path, field)) {
                known.push((field, None));
            }
        }
        visitor.visit_map(Entries { node: &self, left: known.into_iter(), next: None })
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::String(..) | Value::Char(..) => format!("the text {}", flow(value)),
        Value::Bool(..) => format!("{} (a truth value)", flow(value)),
        Value::Num(..) => format!("the number {}", flow(value)),
        Value::Empty(..) => "nothing".to_string(),
        Value::Dict(..) => "a block of keys".to_string(),
        Value::Array(..) => format!("the list {}", flow(value)),
    }
}

macro_rules! whole_numbers {
    ($($method:ident, $visit:ident, $type:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            let number = match self.value {
                Value::Num(_, Num::U64(v)) => i128::from(*v),
                Value::Num(_, Num::I64(v)) => i128::from(*v),
                _ => return Err(self.wrong("a whole number")),
            };
            match <$type>::try_from(number) {
                Ok(number) => visitor.$visit(number),
                Err(_) if number < 0 && <$type>::MIN == 0 => Err(Fault::new(format!("must not be negative, found {number}"))),
                Err(_) => Err(Fault::new(format!("must be from {} to {}, found {number}", <$type>::MIN, <$type>::MAX))),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Node<'_> {
    type Error = Fault;

    whole_numbers! {
        deserialize_u8, visit_u8, u8; deserialize_u16, visit_u16, u16; deserialize_u32, visit_u32, u32; deserialize_u64, visit_u64, u64;
        deserialize_i8, visit_i8, i8; deserialize_i16, visit_i16, i16; deserialize_i32, visit_i32, i32; deserialize_i64, visit_i64, i64;
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Value::String(_, text) => visitor.visit_str(text),
            Value::Char(_, c) => visitor.visit_char(*c),
            Value::Bool(_, b) => visitor.visit_bool(*b),
            Value::Num(_, Num::U64(v)) => visitor.visit_u64(*v),
            Value::Num(_, Num::I64(v)) => visitor.visit_i64(*v),
            Value::Num(..) => self.deserialize_f64(visitor),
            Value::Empty(..) => visitor.visit_unit(),
            Value::Dict(..) => self.deserialize_map(visitor),
            Value::Array(..) => self.deserialize_seq(visitor),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Value::Num(_, number) => visitor.visit_f64(match *number {
                Num::F64(v) => v,
                Num::U64(v) => v as f64,
                Num::I64(v) => v as f64,
                _ => return Err(self.wrong("a number")),
            }),
            _ => Err(self.wrong("a number")),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Value::Bool(_, b) => visitor.visit_bool(*b),
            _ => Err(self.wrong("true or false")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Value::String(_, text) => visitor.visit_str(text),
            Value::Num(..) | Value::Bool(..) => Err(self.wrong("a text (put it in quotes)")),
            _ => Err(self.wrong("a text")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Value::Empty(..) => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value.as_array() {
            Some(list) => visitor.visit_seq(Items { node: &self, left: list.iter().enumerate() }),
            None => Err(self.wrong("a list")),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Fault> {
        match self.value.as_array() {
            Some(list) if list.len() == len => self.deserialize_seq(visitor),
            _ => Err(self.wrong(&format!("a list of {len} values"))),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.entries() {
            Some(entries) => {
                let left: Vec<_> = entries.map(|(key, value)| (key.as_str(), Some(value))).collect();
                visitor.visit_map(Entries { node: &self, left: left.into_iter(), next: None })
            }
            None => Err(self.wrong("a block of keys")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.block(fields, visitor)
    }

    /// `kind: sgd` in a block chooses the variant, whose fields are the other keys; a bare word is a variant without fields.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let known = || format!("the choices are: {}", variants.join(", "));
        let kind_path = join(&self.path, "kind");
        let tried = self.state.borrow().replaced.get(&kind_path).copied();
        if let Some(tried) = tried {
            return StandIn { tried }.deserialize_enum(name, variants, visitor);
        }
        let (word, path) = match self.value {
            Value::String(_, word) => (word.as_str(), self.path.clone()),
            Value::Dict(_, dict) => match dict.get("kind") {
                Some(Value::String(_, word)) => (word.as_str(), kind_path),
                Some(other) => {
                    return Err(
                        Fault::new(format!("must be a word, found {}; {}", describe(other), known())).at(&kind_path)
                    );
                }
                None => return Err(Fault::new(format!("missing; {}", known())).at(&kind_path)),
            },
            _ if variants.is_empty() => return Err(self.wrong("left away")),
            _ => {
                return Err(Fault::new(format!(
                    "must be a block with `kind:`, or one word, found {}; {}",
                    describe(self.value),
                    known()
                )));
            }
        };
        match variants.iter().find(|variant| **variant == word) {
            Some(variant) => visitor.visit_enum(Choice { node: Node { untagged: true, ..self }, variant }),
            None => {
                let near = nearest(word, variants).map_or(String::new(), |near| format!("did you mean {near}? "));
                Err(Fault::new(format!("unknown choice `{word}`; {near}{}", known())).at(&path))
            }
        }
    }

    forward_to_deserialize_any! { i128 u128 char bytes byte_buf unit unit_struct tuple_struct identifier ignored_any }
}

//! What serde asks a block, a list and a choice for.

use figment::value::Value;
use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor};

use super::Node;
use super::fault::Fault;
use crate::config::yaml::join;

pub(super) struct Entries<'n, 'a> {
    pub(super) node: &'n Node<'a>,
    pub(super) left: std::vec::IntoIter<(&'n str, Option<&'n Value>)>,
    pub(super) next: Option<(&'n str, Option<&'n Value>)>,
}

impl<'de> MapAccess<'de> for Entries<'_, '_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        self.next = self.left.next();
        self.next.map(|(key, _)| seed.deserialize::<StrDeserializer<Fault>>(key.into_deserializer())).transpose()
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let (key, value) = self.next.take().ok_or_else(|| Fault::new("a value without a key"))?;
        self.node.child(seed, value, join(&self.node.path, key))
    }
}

pub(super) struct Items<'n, 'a> {
    pub(super) node: &'n Node<'a>,
    pub(super) left: std::iter::Enumerate<std::slice::Iter<'n, Value>>,
}

impl<'de> SeqAccess<'de> for Items<'_, '_> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let item = self.left.next();
        item.map(|(index, value)| self.node.child(seed, Some(value), format!("{}[{index}]", self.node.path)))
            .transpose()
    }
}

pub(super) struct Choice<'a> {
    pub(super) node: Node<'a>,
    pub(super) variant: &'static str,
}

impl Choice<'_> {
    /// A bare word stands only for a variant without fields.
    fn needs_block(&self) -> Result<(), Fault> {
        match self.node.value {
            Value::String(..) => {
                Err(Fault::new(format!("{0} has keys of its own; write a block with `kind: {0}`", self.variant)))
            }
            _ => Ok(()),
        }
    }
}

impl<'de> EnumAccess<'de> for Choice<'_> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Fault> {
        let name: StrDeserializer<Fault> = self.variant.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for Choice<'_> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        for (key, _) in self.node.entries().into_iter().flatten() {
            self.node.state.borrow_mut().unknown.push(join(&self.node.path, key));
            self.node.problem(join(&self.node.path, key), format!("unknown key; {} has no keys", self.variant));
        }
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Fault> {
        self.needs_block()?;
        seed.deserialize(self.node)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        self.needs_block()?;
        self.node.block(fields, visitor)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Fault> {
        Err(Fault::new(format!("{} cannot be written in YAML: variants have named fields", self.variant)))
    }
}

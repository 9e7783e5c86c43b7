//! Values of the right type in place of those that are wrong, so that reading goes on to the next mistake.

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::fault::Fault;

/// Texts that some type with a syntax of its own reads: tried one after the other.
pub(super) const STAND_INS: [&str; 2] = ["1 step", "1 minute"];

/// A value of whatever type is asked for. It is never seen outside: a tree with a problem is refused.
#[derive(Clone, Copy)]
pub(super) struct StandIn {
    /// From 1.
    pub(super) tried: usize,
}

macro_rules! stand_ins {
    ($($method:ident, $visit:ident, $value:expr;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            visitor.$visit($value)
        }
    )*};
}

impl<'de> Deserializer<'de> for StandIn {
    type Error = Fault;

    stand_ins! {
        deserialize_u8, visit_u8, 1; deserialize_u16, visit_u16, 1; deserialize_u32, visit_u32, 1; deserialize_u64, visit_u64, 1;
        deserialize_i8, visit_i8, 1; deserialize_i16, visit_i16, 1; deserialize_i32, visit_i32, 1; deserialize_i64, visit_i64, 1;
        deserialize_f32, visit_f32, 1.0; deserialize_f64, visit_f64, 1.0; deserialize_bool, visit_bool, false; deserialize_char, visit_char, 'a';
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_str(STAND_INS.get(self.tried - 1).copied().unwrap_or_default())
    }
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_none()
    }
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_tuple(0, visitor)
    }
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_seq(StandIns { stand_in: self, left: vec![""; len].into_iter() })
    }
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_struct("", &[], visitor)
    }
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_map(StandIns { stand_in: self, left: fields.to_vec().into_iter() })
    }
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let left = variants.first().copied().into_iter().collect::<Vec<_>>().into_iter();
        visitor.visit_enum(StandIns { stand_in: self, left })
    }
    forward_to_deserialize_any! { i128 u128 str string bytes byte_buf unit_struct tuple_struct identifier ignored_any }
}

/// Stand-ins for the fields of a struct, the elements of a tuple, or the first variant of an enum.
pub(super) struct StandIns {
    stand_in: StandIn,
    left: std::vec::IntoIter<&'static str>,
}

impl<'de> MapAccess<'de> for StandIns {
    type Error = Fault;
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        self.left.next().map(|field| seed.deserialize::<StrDeserializer<Fault>>(field.into_deserializer())).transpose()
    }
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        seed.deserialize(self.stand_in)
    }
}

impl<'de> SeqAccess<'de> for StandIns {
    type Error = Fault;
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        self.left.next().map(|_| seed.deserialize(self.stand_in)).transpose()
    }
}

impl<'de> EnumAccess<'de> for StandIns {
    type Error = Fault;
    type Variant = StandIn;
    fn variant_seed<S: DeserializeSeed<'de>>(mut self, seed: S) -> Result<(S::Value, StandIn), Fault> {
        let first = self.left.next().ok_or_else(|| Fault::new("has no choices"))?;
        Ok((seed.deserialize::<StrDeserializer<Fault>>(first.into_deserializer())?, self.stand_in))
    }
}

impl<'de> VariantAccess<'de> for StandIn {
    type Error = Fault;
    fn unit_variant(self) -> Result<(), Fault> {
        Ok(())
    }
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Fault> {
        seed.deserialize(self)
    }
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_tuple(len, visitor)
    }
    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_struct("", fields, visitor)
    }
}

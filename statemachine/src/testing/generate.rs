//! Commands out of bytes, for every area there is and will be.
//!
//! [`command`] lets the command type deserialize itself from a source that makes up every value: it picks variants,
//! numbers and texts by the bytes that it is given, so that proptest can shrink them. What a text or number may be
//! depends on the name of its field; [`TEXTS`] and [`NUMBERS`] keep them few, so that commands meet in what they name.
//! Nothing here lists areas or commands: one that is added is generated.

use crate::Command;
use serde::Deserialize;
use serde::de::value::{Error, StrDeserializer, U32Deserializer};
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

/// What texts of a field are taken from; where a field is not listed, from the first.
const TEXTS: &[(&str, &[&str])] = &[
    ("", &["a", "b", "web"]),
    ("name", &["web", "api", "zone"]),
    ("app", &["web", "web", "api"]),
    ("env", &["A", "B"]),
    ("build_env", &["A"]),
    ("serial", &["SN1", "SN2", "SN3", "SN4", ""]),
    ("role", &["worker", "boot", "worker", "storage", "no role"]),
    (
        "macs",
        &[
            "52:54:00:00:00:01",
            "52:54:00:00:00:02",
            "52:54:00:00:00:03",
            "52:54:00:00:00:04",
        ],
    ),
    ("mac", &["52:54:00:00:00:01"]),
    ("address", &["10.0.0.2", "10.0.0.18", "10.9.0.1", "fd00::1"]),
    ("cidr", &["10.0.0.0/24", "10.1.0.0/24", "10.0.0.1/24"]),
    (
        "commit",
        &[
            "0123456789abcdef0123456789abcdef01234567",
            "f123456789abcdef0123456789abcdef01234567",
        ],
    ),
    ("Fetched", &["0123456789abcdef0123456789abcdef01234567"]),
    ("repository", &["https://git.test/site.git"]),
    ("reference", &["main", "v1"]),
    ("host", &["web.test", "api.test"]),
    ("path", &["/", "/api"]),
];

/// What numbers of a field are taken from; where a field is not listed, 0 to 5.
const NUMBERS: &[(&str, &[u64])] = &[
    ("", &[0, 1, 2, 3, 4, 5]),
    ("rollout", &[1, 1, 1, 2]),
    ("release", &[1, 1, 1, 2]),
    ("build", &[1, 1, 1, 2]),
    ("number", &[1, 1, 1, 2]),
    ("ordinal", &[1, 1, 1, 2]),
    ("attempt", &[1, 1, 1, 2]),
    ("node", &[1, 1, 1, 2]),
    ("index_offset", &[1]),
    ("machines_per_rack_max", &[2, 14, 20]),
    ("addresses_per_machine", &[1, 2]),
    ("range_bits", &[4]),
    ("mask_bits", &[24]),
    ("gateway_offset", &[16, 17]),
    ("offset", &[0, 16]),
    ("port", &[80, 8080]),
    ("weight", &[1, 10]),
    ("ttl_ms", &[1000, 5000, 30_000]),
    ("deregister_after_ms", &[1000, 60_000]),
    ("interval_ms", &[1000]),
    ("timeout_ms", &[1000]),
    ("deadline_ms", &[60_000]),
    ("stop_grace_ms", &[1000]),
    ("drain_ms", &[1000]),
    (
        "deadline",
        &[1_001_000, 1_002_000, 1_005_000, 1_030_000, 1_060_000],
    ),
];

/// Fields that are left out more often than not, since what they ask for is seldom so.
const SELDOM: &[&str] = &["expect", "index", "replaces", "instead_of"];

/// The command that `bytes` make. Beyond their end they are zeros.
pub fn command(bytes: &[u8]) -> Option<Command> {
    let mut bytes = bytes.iter().copied();
    Command::deserialize(Source {
        bytes: &mut bytes,
        field: "",
    })
    .ok()
}

type Bytes<'a> = std::iter::Copied<std::slice::Iter<'a, u8>>;

/// Makes up the value of one field.
struct Source<'a, 'b> {
    bytes: &'a mut Bytes<'b>,
    field: &'static str,
}

impl<'b> Source<'_, 'b> {
    /// A number below `count`.
    fn pick(&mut self, count: usize) -> usize {
        usize::from(self.bytes.next().unwrap_or(0)) % count.max(1)
    }

    fn text(&mut self) -> &'static str {
        let listed = TEXTS.iter().find(|(field, _)| *field == self.field);
        let (_, texts) = listed.unwrap_or(&TEXTS[0]);
        texts[self.pick(texts.len())]
    }

    fn number(&mut self) -> u64 {
        let listed = NUMBERS.iter().find(|(field, _)| *field == self.field);
        let (_, numbers) = listed.unwrap_or(&NUMBERS[0]);
        numbers[self.pick(numbers.len())]
    }

    fn inside(&mut self, field: &'static str) -> Source<'_, 'b> {
        Source {
            bytes: self.bytes,
            field,
        }
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $type:ty,)*) => {$(
        fn $method<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
            visitor.$visit(self.number() as $type)
        }
    )*};
}

impl<'de> Deserializer<'de> for Source<'_, '_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Error> {
        Err(Error::custom("log types say what they are"))
    }

    numbers! {
        deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16, deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64, deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32, deserialize_i64 visit_i64 i64,
    }

    fn deserialize_bool<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_bool(self.pick(2) == 1)
    }

    fn deserialize_str<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(self.text())
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_bytes(self.text().as_bytes())
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        let there = if SELDOM.contains(&self.field) { 4 } else { 2 };
        if self.pick(there) + 1 == there {
            visitor.visit_some(self)
        } else {
            visitor.visit_none()
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        let left = self.pick(3);
        visitor.visit_seq(Items { source: self, left })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, left: usize, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(Items { source: self, left })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        left: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_seq(Items { source: self, left })
    }

    fn deserialize_map<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        let left = self.pick(3);
        visitor.visit_map(Items { source: self, left })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_map(Fields { source: self, fields })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_enum(Variant {
            source: self,
            variants,
        })
    }

    serde::forward_to_deserialize_any! { i128 u128 f32 f64 char identifier ignored_any }
}

/// A number of values of the same field.
struct Items<'a, 'b> {
    source: Source<'a, 'b>,
    left: usize,
}

impl<'de> SeqAccess<'de> for Items<'_, '_> {
    type Error = Error;
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let field = self.source.field;
        seed.deserialize(self.source.inside(field)).map(Some)
    }
}

impl<'de> MapAccess<'de> for Items<'_, '_> {
    type Error = Error;
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.next_element_seed(seed)
    }
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let field = self.source.field;
        seed.deserialize(self.source.inside(field))
    }
}

/// The fields of a struct.
struct Fields<'a, 'b> {
    source: Source<'a, 'b>,
    fields: &'static [&'static str],
}

impl<'de> MapAccess<'de> for Fields<'_, '_> {
    type Error = Error;
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some(field) = self.fields.first() else {
            return Ok(None);
        };
        let name: StrDeserializer<'_, Error> = field.into_deserializer();
        seed.deserialize(name).map(Some)
    }
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let (field, rest) = self.fields.split_first().expect("a key came before");
        self.fields = rest;
        seed.deserialize(self.source.inside(field))
    }
}

/// A variant of an enum.
struct Variant<'a, 'b> {
    source: Source<'a, 'b>,
    variants: &'static [&'static str],
}

impl<'de, 'a, 'b> EnumAccess<'de> for Variant<'a, 'b> {
    type Error = Error;
    type Variant = Source<'a, 'b>;
    fn variant_seed<V: DeserializeSeed<'de>>(mut self, seed: V) -> Result<(V::Value, Self::Variant), Error> {
        // Batches are put together outside: here they would nest.
        let first = usize::from(self.variants.first() == Some(&"Batch"));
        let count = self
            .variants
            .len()
            .checked_sub(first + 1)
            .ok_or_else(|| Error::custom("no variants"))?;
        let index = first + self.source.pick(count + 1);
        let number: U32Deserializer<Error> = (index as u32).into_deserializer();
        let variant = seed.deserialize(number)?;
        if TEXTS.iter().any(|(field, _)| *field == self.variants[index]) {
            self.source.field = self.variants[index];
        }
        Ok((variant, self.source))
    }
}

impl<'de> VariantAccess<'de> for Source<'_, '_> {
    type Error = Error;
    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self)
    }
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_tuple(len, visitor)
    }
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_map(Fields { source: self, fields })
    }
}

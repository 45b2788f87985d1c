//! Values that have had more than one shape in Slurm's JSON. What is none of them is nothing, so that one field spoils no item.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// A number of any of Slurm's shapes; none where it is not set, infinite or something else.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Number(pub Option<f64>);

impl Number {
    pub fn whole(self) -> u64 {
        // Saturates: what is no count is none.
        self.0.map_or(0, |n| n as u64)
    }

    /// A time; 0 is none.
    pub fn time(self) -> Option<f64> {
        self.0.filter(|t| *t > 0.0)
    }
}

/// Words of any of Slurm's shapes, with commas between.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Text(pub String);

impl Text {
    /// Slurm writes some that are not there so.
    pub fn value(&self) -> String {
        match self.0.trim() {
            "(null)" | "N/A" | "None" => String::new(),
            text => text.to_owned(),
        }
    }

    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.0.split(',').map(str::trim).filter(|w| !w.is_empty())
    }
}

/// A list; or what should have been one.
pub struct OneOrMany<T>(pub Vec<T>);

macro_rules! lenient {
    ($type:ty, $visitor:ident) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                d.deserialize_any($visitor)
            }
        }
    };
}

struct NumberVisitor;
lenient!(Number, NumberVisitor);

impl<'de> Visitor<'de> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_u64<E>(self, n: u64) -> Result<Number, E> {
        Ok(Number(Some(n as f64)))
    }

    fn visit_i64<E>(self, n: i64) -> Result<Number, E> {
        // Slurm's older versions write -1 for what is not limited.
        Ok(Number((n >= 0).then_some(n as f64)))
    }

    fn visit_f64<E>(self, n: f64) -> Result<Number, E> {
        Ok(Number(n.is_finite().then_some(n)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Number, E> {
        Ok(Number(text.parse().ok().filter(|n: &f64| n.is_finite())))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Number, E> {
        Ok(Number(None))
    }

    fn visit_unit<E>(self) -> Result<Number, E> {
        Ok(Number(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Number, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Number(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Number, A::Error> {
        let (mut set, mut infinite, mut number) = (true, false, None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "set" => set = map.next_value::<Flag>()?.0,
                "infinite" => infinite = map.next_value::<Flag>()?.0,
                "number" => number = map.next_value::<Number>()?.0,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Number(number.filter(|_| set && !infinite)))
    }
}

pub struct Flag(pub bool);
struct FlagVisitor;
lenient!(Flag, FlagVisitor);

impl<'de> Visitor<'de> for FlagVisitor {
    type Value = Flag;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true or false")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Flag, E> {
        Ok(Flag(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Flag, E> {
        Ok(Flag(value != 0))
    }

    fn visit_unit<E>(self) -> Result<Flag, E> {
        Ok(Flag(false))
    }
}

struct TextVisitor;
lenient!(Text, TextVisitor);

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("words")
    }

    fn visit_str<E>(self, text: &str) -> Result<Text, E> {
        Ok(Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Text, E> {
        Ok(Text(text))
    }

    fn visit_u64<E>(self, n: u64) -> Result<Text, E> {
        Ok(Text(n.to_string()))
    }

    fn visit_i64<E>(self, n: i64) -> Result<Text, E> {
        Ok(Text(n.to_string()))
    }

    fn visit_f64<E>(self, n: f64) -> Result<Text, E> {
        Ok(Text(n.to_string()))
    }

    fn visit_bool<E>(self, b: bool) -> Result<Text, E> {
        Ok(Text(b.to_string()))
    }

    fn visit_unit<E>(self) -> Result<Text, E> {
        Ok(Text::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Text, A::Error> {
        let mut all = String::new();
        while let Some(Text(word)) = list.next_element::<Text>()? {
            if !word.is_empty() {
                if !all.is_empty() {
                    all.push(',');
                }
                all.push_str(&word);
            }
        }
        Ok(Text(all))
    }

    /// A number in its newer shape, or something that has no words.
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Text, A::Error> {
        let number = NumberVisitor.visit_map(map)?;
        Ok(Text(number.0.map(|n| n.to_string()).unwrap_or_default()))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Many<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Many<T> {
            type Value = OneOrMany<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<OneOrMany<T>, A::Error> {
                let mut all = Vec::new();
                while let Some(item) = list.next_element()? {
                    all.push(item);
                }
                Ok(OneOrMany(all))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<OneOrMany<T>, A::Error> {
                T::deserialize(serde::de::value::MapAccessDeserializer::new(map)).map(|t| OneOrMany(vec![t]))
            }

            fn visit_unit<E>(self) -> Result<OneOrMany<T>, E> {
                Ok(OneOrMany(Vec::new()))
            }
        }
        d.deserialize_any(Many(PhantomData))
    }
}

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

//! Numbers as columns of bytes: what a collect pushes crosses the border in one copy.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Series and values.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Points(pub Vec<(u32, f64)>);

/// Series, values and times.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct TimedPoints(pub Vec<(u32, f64, u64)>);

/// Series.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Ids(pub Vec<u32>);

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Times(pub Vec<u64>);

/// One entry of a column: so many bytes, always.
trait Entry: Sized {
    const BYTES: usize;
    fn put(&self, bytes: &mut Vec<u8>);
    /// From exactly so many bytes.
    fn get(bytes: &[u8]) -> Option<Self>;
}

impl Entry for u32 {
    const BYTES: usize = 4;
    fn put(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.to_le_bytes());
    }
    fn get(bytes: &[u8]) -> Option<Self> {
        Some(Self::from_le_bytes(*bytes.first_chunk()?))
    }
}

impl Entry for u64 {
    const BYTES: usize = 8;
    fn put(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.to_le_bytes());
    }
    fn get(bytes: &[u8]) -> Option<Self> {
        Some(Self::from_le_bytes(*bytes.first_chunk()?))
    }
}

impl Entry for (u32, f64) {
    const BYTES: usize = 12;
    fn put(&self, bytes: &mut Vec<u8>) {
        self.0.put(bytes);
        self.1.to_bits().put(bytes);
    }
    fn get(bytes: &[u8]) -> Option<Self> {
        Some((u32::get(bytes)?, f64::from_bits(u64::get(bytes.get(4..)?)?)))
    }
}

impl Entry for (u32, f64, u64) {
    const BYTES: usize = 20;
    fn put(&self, bytes: &mut Vec<u8>) {
        (self.0, self.1).put(bytes);
        self.2.put(bytes);
    }
    fn get(bytes: &[u8]) -> Option<Self> {
        let (series, value) = Entry::get(bytes)?;
        Some((series, value, u64::get(bytes.get(12..)?)?))
    }
}

fn write<T: Entry, S: Serializer>(column: &[T], serializer: S) -> Result<S::Ok, S::Error> {
    let mut bytes = Vec::with_capacity(column.len() * T::BYTES);
    for entry in column {
        entry.put(&mut bytes);
    }
    serializer.serialize_bytes(&bytes)
}

struct Column<T>(std::marker::PhantomData<T>);

impl<T: Entry> Visitor<'_> for Column<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bytes, a multiple of {}", T::BYTES)
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<T>, E> {
        let entries = bytes.chunks_exact(T::BYTES);
        let whole = entries.remainder().is_empty();
        let read: Option<Vec<T>> = entries.map(T::get).collect();
        read.filter(|_| whole).ok_or_else(|| E::invalid_length(bytes.len(), &self))
    }
}

macro_rules! columns {
    ($($name:ident),*) => { $(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                write(&self.0, serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_bytes(Column(std::marker::PhantomData)).map(Self)
            }
        }
    )* };
}

columns!(Points, TimedPoints, Ids, Times);

//! The enums of the data path as numbers, for serde: their own crate knows no serde.

use serde::{Deserialize, Deserializer, Serializer, de::Error};

pub(crate) fn serialize<T: Copy + Into<i32>, S: Serializer>(
    word: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_i32((*word).into())
}

pub(crate) fn deserialize<'de, T: TryFrom<i32>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    let number = i32::deserialize(deserializer)?;
    T::try_from(number).map_err(|_| D::Error::custom(format_args!("{number} is none of the known words")))
}

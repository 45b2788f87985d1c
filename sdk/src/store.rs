//! Small values that outlive the instance and the agent. Grant: `store`, in bytes.

use std::time::Duration;

use crate::{Failure, sys};

/// Why a value could not be kept or had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Keys and values together exceed the granted bytes.
    #[error("the plugin's store is full: {0}")]
    Full(String),
    /// The node could not read or write it.
    #[error("the plugin's store failed: {0}")]
    Other(String),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let reason = match error {
            StoreError::Full(_) => "store-full",
            StoreError::Other(_) => "store",
        };
        Self::new(reason, error.to_string())
    }
}

/// The value under `key`, where there is one that has not expired.
///
/// # Errors
/// [`StoreError::Other`].
pub fn get(key: &str) -> Result<Option<Vec<u8>>, StoreError> {
    sys::store_get(key)
}

/// Keeps a value, for good or for `ttl` (in whole seconds, rounded up).
///
/// # Errors
/// [`StoreError::Full`] where the granted bytes would not do.
pub fn set(key: &str, value: &[u8], ttl: Option<Duration>) -> Result<(), StoreError> {
    sys::store_set(key, value, ttl.map(|t| t.as_secs() + u64::from(t.subsec_nanos() > 0)))
}

/// Removes a value; one that is not there is no error.
///
/// # Errors
/// [`StoreError::Other`].
pub fn delete(key: &str) -> Result<(), StoreError> {
    sys::store_delete(key)
}

/// The keys that begin with `prefix`, in order.
///
/// # Errors
/// [`StoreError::Other`].
pub fn keys(prefix: &str) -> Result<Vec<String>, StoreError> {
    sys::store_keys(prefix)
}

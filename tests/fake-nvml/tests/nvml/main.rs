//! The real helper and the real capability on the fake library.

mod capability;
mod documents;
mod failures;
mod library;
mod support;

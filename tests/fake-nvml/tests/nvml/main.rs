//! The real helper and the real capability on the fake library.
#![allow(unsafe_code)]

mod capability;
mod documents;
mod failures;
mod library;
mod support;

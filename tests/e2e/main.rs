//! The whole system with its real binaries: one test binary, a module a theme.

mod config;
mod durability;
mod fleet;
mod hostile;
mod identity;
mod peers;
mod scenario;
mod standalone;

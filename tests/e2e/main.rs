//! The whole system with its real binaries: one test binary, a module a theme.

mod actions;
mod config;
mod containers;
mod containers_vllm;
mod dropin;
mod durability;
mod engine_logs;
mod exporters;
mod fleet;
mod former;
mod gpu;
mod hostile;
mod https;
mod identity;
mod litellm;
mod logstore;
mod packaging;
mod peers;
mod rollout;
mod scenario;
mod shipper;
mod slurm;
mod standalone;
mod suite;
mod trust;
mod wall;

//! The engine: one configuration for the daemon, which maps compiled plugins, and the compiler, which makes them. A
//! compiled file fits only an engine of the same configuration, so there is no second one.

use std::sync::Arc;

use wasmtime::{Config, Engine, InstanceAllocationStrategy};

use crate::code::Pages;

/// Stands for the engine and its configuration in the names of compiled files, so that a new agent does not try the old
/// one's. (The engine's own check decides whether a file fits.)
pub(crate) const FINGERPRINT: &str = concat!(env!("CARGO_PKG_VERSION"), "\n", include_str!("engine.rs"));

/// The configuration. Everything that the plugins' contract has no use for is off: most of the engine's known faults
/// lie there.
pub fn config() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .concurrency_support(false)
        .wasm_component_model(true)
        .shared_memory(false)
        .wasm_threads(false)
        .wasm_shared_everything_threads(false)
        .wasm_gc(false)
        .wasm_function_references(false)
        .wasm_exceptions(false)
        .wasm_memory64(false)
        .wasm_custom_page_sizes(false)
        .wasm_wide_arithmetic(false)
        .wasm_relaxed_simd(false)
        .wasm_tail_call(false)
        // Where a component lies within a component, as the runtimes of other languages have it, what passes between the two
        // is copied by a module that sees both memories. The limit on memory is on all of them together.
        .wasm_multi_memory(true);
    // On demand, with little address space: nodes under Slurm often bound it. Growth beyond the reservation moves the memory,
    // during which nothing else runs on the thread: once, to where the largest that a plugin may have by itself fits.
    config
        .allocation_strategy(InstanceAllocationStrategy::OnDemand)
        .memory_reservation(16 << 20)
        .memory_reservation_for_growth(48 << 20)
        .memory_guard_size(64 << 10)
        .guard_before_linear_memory(false)
        .memory_may_move(true)
        // The image of a memory would be mapped from a file, and there is none where plugins run.
        .memory_init_cow(false);
    // Host functions run on the guest's stack, below what the guest itself may use.
    config.max_wasm_stack(512 << 10).async_stack_size(2 << 20);
    // An author debugs with his own tools: the node keeps no tables for it.
    config.generate_address_map(false).wasm_backtrace_max_frames(None);
    #[cfg(feature = "compile")]
    config.cranelift_opt_level(wasmtime::OptLevel::Speed).parallel_compilation(false);
    config
}

/// The engine of a process that runs plugins.
pub(crate) fn runtime() -> wasmtime::Result<Engine> {
    let mut config = config();
    config.with_custom_code_memory(Some(Arc::new(Pages)));
    Engine::new(&config)
}

//! NVML without a GPU: a shared library with the real one's symbols and structs, driven by a scenario.
//!
//! `FAKE_NVML_SCENARIO` names a TOML file, read again whenever it changes; without it the library says that the driver
//! is not loaded. See `scenarios/` for what can be said; the keys are the names of the fields in the document of the
//! `nvml` capability. A key that is not there, or is `"n/a"`, is not supported by the device. A number may be a
//! table `{ start = 5, per_second = 0.5 }`: a counter since the file was written, the same in every process.
//!
//! `[[faults]]` make a function return an error, hang, or take its time: `call` (a name, or `*`), `gpu` and `field` narrow it.
//! `[[events]]` are XIDs, each told once a process, by its `id`.
//!
//! Structs and signatures are those of the bindings that the code under test uses; the compiler compares them.
#![allow(unsafe_code)]

mod device;
mod event;
mod field;
mod profiling;
mod scenario;
mod state;
mod system;

/// For the fuzzer: reads a scenario, and each number in it.
#[doc(hidden)]
pub fn try_scenario(text: &str, written: std::time::SystemTime) {
    let Ok(scenario) = scenario::Scenario::parse(text, written) else { return };
    scenario.system.try_all();
    for gpu in &scenario.gpus {
        let all = gpu.links.iter().chain(&gpu.instances).chain(&gpu.processes);
        all.chain([&gpu.values]).for_each(scenario::Values::try_all);
        let _ = scenario.fault("nvmlDeviceGetName", Some(0), None);
    }
}

/// Exports functions, each compared with the bindings' own type.
macro_rules! export {
    ($($(#[$attribute:meta])* fn $name:ident($($argument:ident: $kind:ty),* $(,)?) $body:block)*) => {
        $(
            $(#[$attribute])*
            /// As nvml.h says.
            ///
            /// # Safety
            /// Pointers are valid for writing, as nvml.h says.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($argument: $kind),*) -> nvml_wrapper_sys::bindings::nvmlReturn_t {
                $body
            }

            const _: fn(&mut nvml_wrapper_sys::bindings::NvmlLib) = |lib| lib.$name = Ok($name);
        )*
    };
}
use export;

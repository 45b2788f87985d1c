//! The fake against what is known of the real one.

use std::mem::size_of;
use std::path::{Path, PathBuf};

use nvml_wrapper_sys::bindings as sys;
use picket_agent_nvml::Tell;

use crate::support::{Helper, library};

/// Sizes by nvml.h on 64-bit machines: it puts them into the version stamps that drivers compare.
#[test]
fn structs_have_the_sizes_of_the_header() {
    for (name, size, expected) in [
        ("nvmlMemory_v2_t", size_of::<sys::nvmlMemory_v2_t>(), 40),
        ("nvmlMemory_t", size_of::<sys::nvmlMemory_t>(), 24),
        ("nvmlPciInfo_t", size_of::<sys::nvmlPciInfo_t>(), 68),
        ("nvmlProcessInfo_t", size_of::<sys::nvmlProcessInfo_t>(), 24),
        ("nvmlFieldValue_t", size_of::<sys::nvmlFieldValue_t>(), 40),
        ("nvmlEventData_t", size_of::<sys::nvmlEventData_t>(), 32),
        ("nvmlGpuFabricInfo_v2_t", size_of::<sys::nvmlGpuFabricInfo_v2_t>(), 36),
        ("nvmlGpuFabricInfo_v3_t", size_of::<sys::nvmlGpuFabricInfo_v3_t>(), 40),
        ("nvmlTemperature_v1_t", size_of::<sys::nvmlTemperature_v1_t>(), 12),
        ("nvmlDeviceAttributes_t", size_of::<sys::nvmlDeviceAttributes_t>(), 40),
        ("nvmlGpmMetric_t", size_of::<sys::nvmlGpmMetric_t>(), 40),
        ("nvmlRowRemapperHistogramValues_t", size_of::<sys::nvmlRowRemapperHistogramValues_t>(), 20),
    ] {
        assert_eq!(size, expected, "{name}");
    }
}

/// Every function that the helper's source names is exported.
#[test]
fn it_has_every_symbol_that_the_helper_calls() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../agent/nvml/src/bin/picket-nvml/ffi.rs");
    let source = std::fs::read_to_string(source).unwrap();
    // SAFETY: its initializers do nothing.
    let library = unsafe { libloading::Library::new(library()) }.unwrap();
    let mut called = 0;
    for word in source.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
        if !word.starts_with("nvml") || !word[4..].starts_with(|c: char| c.is_ascii_uppercase()) {
            continue;
        }
        let function = ["Init", "Shutdown", "System", "Device", "Event", "Gpm"];
        // `nvmlDevice_t` is a type, `nvmlDeviceGetX` a function.
        if !function.iter().any(|f| word[4..].starts_with(f)) || word.ends_with("_t") || word.contains("enum")
        {
            continue;
        }
        if matches!(word, "nvmlEventTypeXidCriticalError") || word.starts_with("nvmlGpmMetric_") {
            continue;
        }
        called += 1;
        // In the mode of old drivers alone.
        if word == "nvmlDeviceGetGpuFabricInfo" {
            continue;
        }
        // SAFETY: it is looked for, not called.
        let found = unsafe { library.get::<unsafe extern "C" fn() -> u32>(word.as_bytes()) };
        assert!(found.is_ok(), "{word} is not exported");
    }
    assert!(called > 50, "{called}");
}

/// NVIDIA's own library, on a machine without its driver.
#[test]
fn the_real_library_without_a_driver_or_skip() {
    let parts = std::env::current_exe().unwrap();
    let parts = parts.ancestors().nth(3).unwrap().join("parts/bin/libnvidia-ml.so.1");
    let places = [parts, PathBuf::from("/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1")];
    let Some(library) = places.iter().find(|place| place.exists()) else {
        eprintln!(
            "SKIPPED the_real_library_without_a_driver: libnvidia-ml.so.1 is not here (Debian non-free: libnvidia-ml1)"
        );
        return;
    };
    if Path::new("/dev/nvidiactl").exists() {
        eprintln!("SKIPPED the_real_library_without_a_driver: this machine has the driver");
        return;
    }
    let mut helper = Helper::with(library, None);
    let told = helper.snapshot().unwrap_err();
    // nvmlInit = 9
    assert!(matches!(&told, Tell::NoDriver(why) if why.contains("driver-not-loaded")), "{told:?}");
}

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| inputs::run("nvml_frames", bytes));

//! The input is the file.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| format_fuzz::holds::holds_for(&input));

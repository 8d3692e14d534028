//! The input says which pieces of the file are not zero.
#![no_main]

use format_fuzz::pieces::Pieces;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Some(file) = Pieces::parse(input) {
        format_fuzz::holds::holds_for(&file);
    }
});

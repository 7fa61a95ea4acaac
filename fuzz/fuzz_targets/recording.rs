//! What may stand in a recording.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| fuzz::recording(octets));

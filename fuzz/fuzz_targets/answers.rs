//! What the server may answer.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| fuzz::answers(octets));

//! What a filter rule of the server's or of the configuration may be.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| fuzz::filter(octets));

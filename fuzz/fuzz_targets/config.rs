//! What may stand in the configuration file.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| fuzz::config(octets));

//! What may be in a packet, read by the programs' own code.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| fuzz::packet(octets));

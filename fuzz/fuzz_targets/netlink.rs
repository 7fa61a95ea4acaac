//! What the kernel may say of links, routes and filters.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| fuzz::netlink(octets));

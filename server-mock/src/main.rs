//! server-mock
fn main() {}

//! Each wall of the pure modules, seen standing on a bad sample.

use super::*;

const QUOTA: Walls<'_> = Walls { modules: &["units", "quota"], depth: 1 };
const METER: Walls<'_> = Walls { modules: &["units"], depth: 0 };

#[test]
fn a_pure_source_passes() {
    let source = r#"
        //! tokio::time is only spoken of here.
        use std::{collections::BTreeMap, fmt, time::Duration};
        use crate::{quota::event::Event, units::{BootInstant, Octets}};
        use super::session::Session;
        mod helper;
        #[expect(clippy::too_many_lines, reason = "tokio::spawn")]
        fn f(x: &mut fmt::Formatter<'_>) -> u64 { helper::g(); Event::Tick; u64::from(1_u8); super::session::new() }
        #[cfg(test)]
        mod tests { use fastrand::Rng; fn t() { println!("{}", std::fs::read("x")); } }
    "#;
    assert_eq!(breaches(source, QUOTA), Vec::<String>::new());
}

#[test]
fn every_way_out_is_seen() {
    for bad in [
        "use tokio::time;",
        "use tokio;",
        "use ::serde::Serialize;",
        "use {std::fmt, rusqlite::Connection};",
        "use crate::reporter::Report;",
        "use crate::{units::Octets, ledger::Ledger};",
        "use crate::*;",
        "use std::fs;",
        "use std::{fmt, io::{self, Read}};",
        "use std::time::Instant;",
        "use super::super::clock::now;",
        "use super::super::super::x;",
        "fn f() { tracing::info!(\"x\") }",
        "fn f() { ::log::info!(\"x\") }",
        "fn f() { crate::clock::now() }",
        "fn f() { super::super::clock::now() }",
        "fn f() { std::thread::spawn(|| ()) }",
        "fn f() -> <aya::Ebpf as X>::Y {}",
        "async fn f() {}",
        "fn f() { println!(\"x\") }",
        "extern crate log;",
        "#[cfg(test)] mod tests { fn t() {} } use reqwest::Client;",
        "#[cfg(test)] use fastrand::Rng; use reqwest::Client;",
    ] {
        assert!(!breaches(bad, QUOTA).is_empty(), "not seen: {bad}");
    }
}

#[test]
fn super_of_a_file_at_the_root_is_the_crate() {
    assert!(breaches("use super::units::Octets;", METER).is_empty());
    assert!(!breaches("use super::clock::now;", METER).is_empty());
    assert!(breaches("use super::super::units::Octets;", QUOTA).is_empty());
}

#[test]
fn a_breach_tells_its_line_and_its_path() {
    assert_eq!(breaches("\nuse std::{fmt,\n  fs::File};", QUOTA), ["line 3: `std::fs::File`"]);
}

#[test]
fn modules_for_tests_only_are_known_by_their_declaration() {
    assert_eq!(test_only_modules("mod a; #[cfg(test)] mod walk; #[cfg(test)] pub(crate) mod make;"), ["walk", "make"]);
}

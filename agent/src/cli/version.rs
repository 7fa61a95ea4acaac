//! `weir version`: which versions this program is of, and speaks.

use std::process::ExitCode;

use agent_common::LAYOUT_VERSION;
use anyhow::Result;
use serde::Serialize;

use super::{as_json, print};
use crate::args;
use crate::ledger::schema_version;

/// What the program is, and what it agrees on with others.
#[derive(Debug, Serialize)]
struct Versions {
    schema: u32,
    version: &'static str,
    map_layout: u32,
    ledger_schema: usize,
    wire: &'static str,
}

/// Prints the versions.
pub fn run(asked: &args::Version) -> Result<ExitCode> {
    let versions = Versions {
        schema: 1,
        version: env!("CARGO_PKG_VERSION"),
        map_layout: LAYOUT_VERSION,
        ledger_schema: schema_version(),
        wire: "Nchf_ConvergedCharging v3 (3GPP TS 32.291 Rel-16)",
    };
    print(&if asked.json { as_json(&versions)? } else { render(&versions) })?;
    Ok(ExitCode::SUCCESS)
}

fn render(Versions { schema: _, version, map_layout, ledger_schema, wire }: &Versions) -> String {
    format!("weir {version}\nmap layout    {map_layout}\nledger schema {ledger_schema}\nwire          {wire}\n")
}

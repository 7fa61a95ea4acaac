//! `weir version`: which versions this program is of, and speaks.

use std::process::ExitCode;

use agent_common::LAYOUT_VERSION;
use anyhow::Result;
use serde::Serialize;

use super::words::Screen;
use super::{as_json, print};
use crate::args;
use crate::ledger::schema_version;

/// What the program is, and what it agrees on with others.
#[derive(Debug, Serialize)]
pub struct Versions {
    schema: u32,
    version: &'static str,
    map_layout: u32,
    ledger_schema: usize,
    wire: &'static str,
}

impl Versions {
    /// Those of this program.
    #[must_use]
    pub fn own() -> Self {
        Self {
            schema: 1,
            version: env!("CARGO_PKG_VERSION"),
            map_layout: LAYOUT_VERSION,
            ledger_schema: schema_version(),
            wire: "Nchf_ConvergedCharging v3 (3GPP TS 32.291 Rel-16)",
        }
    }
}

/// Prints the versions.
pub fn run(asked: &args::Version) -> Result<ExitCode> {
    let versions = Versions::own();
    print(&if asked.json { as_json(&versions)? } else { render(&versions, &Screen::plain()) })?;
    Ok(ExitCode::SUCCESS)
}

/// The versions in lines that fit.
#[must_use]
pub fn render(Versions { schema: _, version, map_layout, ledger_schema, wire }: &Versions, screen: &Screen) -> String {
    let mut page = format!("weir {version}\n");
    screen.add(&mut page, 2, &format!("map layout {map_layout}"));
    screen.add(&mut page, 2, &format!("ledger schema {ledger_schema}"));
    screen.add(&mut page, 2, &format!("wire {wire}"));
    page
}

//! `weir doctor`: what is wrong on this machine, for people or as JSON.

use std::process::ExitCode;

use anyhow::Result;

use super::words::Screen;
use super::{as_json, print, runtime};
use crate::args::{Doctor, Look, Units};
use crate::doctor::{self, Reach};

/// Looks, prints, and ends with 0 when all is well, 1 with warnings, 2 with problems.
pub fn run(asked: &Doctor) -> Result<ExitCode> {
    let reach = if asked.offline { Reach::Offline } else { Reach::Server };
    let report = runtime()?.block_on(doctor::examine(&asked.config, reach))?;
    let look = Look { json: asked.json, units: Units::default(), color: asked.color };
    print(&if asked.json {
        as_json(&doctor::as_json(&report))?
    } else {
        doctor::render(&report, &Screen::of_stdout(look))
    })?;
    Ok(ExitCode::from(report.exit_status()))
}

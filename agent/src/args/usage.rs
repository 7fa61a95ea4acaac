//! `weir usage`.

use std::path::PathBuf;

use clap::Args;

use super::{Look, Whom};
use crate::usage::{By, Wish};

/// `weir usage`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Usage {
    /// What the spans are.
    #[command(flatten)]
    pub spans: Spans,
    /// Only the SIMs that this link has carried
    #[arg(long, value_name = "NAME")]
    pub link: Option<String>,
    /// Only this SIM: imsi-…
    #[arg(long, value_name = "SUBSCRIBER")]
    pub sim: Option<String>,
    /// From the span with this time on: 2026-11, 2026-11-28, 2026-11-28T10:00
    #[arg(long, value_name = "TIME")]
    pub begin: Option<String>,
    /// Up to the span with this time
    #[arg(long, value_name = "TIME")]
    pub end: Option<String>,
    /// Draw a chart into FILE (SVG) instead
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub svg: Option<PathBuf>,
    /// Which agent.
    #[command(flatten)]
    pub whom: Whom,
    /// How to show it.
    #[command(flatten)]
    pub look: Look,
}

/// What the spans are: one of these, or days.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Args)]
#[group(multiple = false)]
#[expect(clippy::struct_excessive_bools, reason = "a flag each, of which the group admits one")]
pub struct Spans {
    /// By five minutes (kept for about two days)
    #[arg(long = "5min")]
    pub five_minutes: bool,
    /// By hours (kept for about two months)
    #[arg(long)]
    pub hours: bool,
    /// By days (the default; kept for about two years)
    #[arg(long)]
    pub days: bool,
    /// By calendar months (kept for good)
    #[arg(long)]
    pub months: bool,
    /// By billing periods (`usage.billing_day`)
    #[arg(long)]
    pub period: bool,
    /// The ten days with the most
    #[arg(long)]
    pub top: bool,
}

impl Spans {
    const fn by(self) -> By {
        match self {
            Self { five_minutes: true, .. } => By::FiveMinutes,
            Self { hours: true, .. } => By::Hour,
            Self { months: true, .. } => By::Month,
            Self { period: true, .. } => By::Period,
            Self { top: true, .. } => By::Top,
            Self { .. } => By::Day,
        }
    }
}

impl Usage {
    /// The question that was asked.
    #[must_use]
    pub fn wish(&self) -> Wish {
        Wish {
            by: Some(self.spans.by().word().to_owned()),
            begin: self.begin.clone(),
            end: self.end.clone(),
            link: self.link.clone(),
            sim: self.sim.clone(),
        }
    }
}

//! weir's agent: asks for units, keeps the ledger, reports, and gives unused units back.

pub mod args;
pub mod cli;
pub mod clock;
pub mod config;
pub mod datapath;
pub mod doctor;
pub mod drill;
pub mod eventloop;
pub mod failure;
pub mod ledger;
pub mod link;
pub mod local;
pub mod onboarding;
pub mod prohibited;
pub mod quota;
pub mod recording;
pub mod reporter;
pub mod units;
pub mod usage;

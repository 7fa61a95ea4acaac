//! weir's agent: asks for units, keeps the ledger, reports, and gives unused units back.

pub mod clock;
pub mod link;
pub mod quota;
pub mod units;

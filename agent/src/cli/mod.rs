//! The commands beside `run`, one file each.

pub mod replay;
pub mod status;

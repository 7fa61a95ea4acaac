//! The commands beside `run`, one file each.

pub mod status;

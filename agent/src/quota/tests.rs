//! Scripted runs of the core.

//! Map keys and values.
#![no_std]

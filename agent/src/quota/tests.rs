//! The core under test: scripts that pin exact commands. The simulator in package `e2e` plays it at random.

mod doubt;
mod filter;
mod hand;
mod moments;
mod odd;
mod order;
mod renewal;
mod script;
mod slices;
mod stingy;
mod switch;
mod turns;
mod used_up;

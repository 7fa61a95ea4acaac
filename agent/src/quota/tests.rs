//! The core under test: scripts that pin exact commands, and a seeded walk against a model of everything around it.

mod doubt;
mod hand;
mod odd;
mod script;
mod server;
mod slices;
mod stingy;
mod switch;
mod walk;
mod world;

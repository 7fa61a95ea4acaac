//! The server from outside: real HTTP against a server that was really started.

// The lint that forbids unwrap outside of tests looks for this mark.
#[cfg(test)]
mod charging;
#[cfg(test)]
mod exactly_once;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod goldens;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod onboarding;
#[cfg(test)]
mod problems;
#[cfg(test)]
mod running;

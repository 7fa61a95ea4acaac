//! The machine that figures come from: without it they mean little.

use std::fs;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// What a reader has to know of a machine to make sense of its figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// What the processor calls itself.
    pub cpu: String,
    /// How many of them take part.
    pub processors: usize,
    /// `uname -r`.
    pub kernel: String,
    /// `uname -m`.
    pub architecture: String,
    /// The load average over the minute before: on a quiet machine well below 1.
    pub load: f64,
}

impl Machine {
    /// This one, now.
    pub fn look() -> Result<Self> {
        let uname = nix::sys::utsname::uname().context("uname")?;
        let load = read("/proc/loadavg")?;
        Ok(Self {
            cpu: cpu_name(&read("/proc/cpuinfo")?),
            processors: std::thread::available_parallelism().context("count processors")?.get(),
            kernel: uname.release().to_string_lossy().into_owned(),
            architecture: uname.machine().to_string_lossy().into_owned(),
            load: load.split(' ').next().and_then(|figure| figure.parse().ok()).context("a load average")?,
        })
    }

    /// One line for people.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { cpu, processors, kernel, architecture, load } = self;
        format!("{processors} × {cpu}, Linux {kernel} {architecture}, load average {load} before")
    }
}

/// x86 has a line for it; ARM names implementer and part by number, which is better than nothing.
fn cpu_name(cpuinfo: &str) -> String {
    let line = |key: &str| {
        let value = |line: &str| {
            line.strip_prefix(key).and_then(|rest| rest.split_once(':')).map(|(_, value)| value.trim().to_owned())
        };
        cpuinfo.lines().find_map(value)
    };
    line("model name")
        .or_else(|| Some(format!("CPU implementer {} part {}", line("CPU implementer")?, line("CPU part")?)))
        .unwrap_or_else(|| "CPU without a name".to_owned())
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {path}"))
}

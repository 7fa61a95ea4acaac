//! The machine that figures come from: without it they mean little.

use std::fs;

use anyhow::{Context as _, Result, ensure};
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

/// What all processors together have done since boot, in seconds (proc(5), `/proc/stat`).
#[derive(Debug, Clone, Copy)]
pub struct Processors {
    /// Worked, whoever for.
    pub worked: f64,
    /// Wanted to work while the machine below this one let others work instead.
    stolen: f64,
}

impl Processors {
    /// Until now.
    pub fn now() -> Result<Self> {
        let text = read("/proc/stat")?;
        let line = text.lines().next().context("a line for all processors")?;
        let times: Vec<f64> = line.split_whitespace().skip(1).map_while(|time| time.parse().ok()).collect();
        ensure!(times.len() >= 8, "times of the processors: {line}");
        // Hundredths: user, nice, system; then idle and waiting for input; then interrupts, hard and soft; stolen.
        let sum = |indices: &[usize]| indices.iter().map(|index| times[*index]).sum::<f64>() / 100.0;
        Ok(Self { worked: sum(&[0, 1, 2, 5, 6]), stolen: sum(&[7]) })
    }

    /// Of the time that was wanted since then the part that others had: 0 to 1.
    #[must_use]
    pub fn stolen_since(&self, then: &Self) -> f64 {
        let (stolen, worked) = (self.stolen - then.stolen, self.worked - then.worked);
        if stolen + worked > 0.0 { stolen / (stolen + worked) } else { 0.0 }
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

//! Whether something can come in between while a program counts on its CPU, which decides how it has to count.

use std::fs;

use aya::EbpfLoader;

/// The constant of the programs (`agent-ebpf/src/counters.rs`).
const UNDISTURBED: &str = "UNDISTURBED";

/// How a program adds to the counters of its CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counting {
    /// By a load and a store: nothing that adds to them can come in between.
    Plain,
    /// By locked instructions, which costs some nanoseconds a packet.
    Locked,
}

impl Counting {
    /// What this kernel needs: locks on `PREEMPT_RT`, where two packets of one CPU can be under way at the same time.
    #[must_use]
    pub fn of_this_kernel() -> Self {
        let version = nix::sys::utsname::uname().map(|name| name.version().to_string_lossy().into_owned());
        // Kernels with the patches of the time before Linux 6.12 say it there as well.
        let realtime = fs::read_to_string("/sys/kernel/realtime").unwrap_or_default();
        Self::of(version.ok().as_deref(), &realtime)
    }

    /// By `uname -v` and `/sys/kernel/realtime`. Where the kernel does not say what it is, locks are right on each.
    fn of(version: Option<&str>, realtime: &str) -> Self {
        match version {
            Some(version)
                if !version.contains("PREEMPT_RT") && !version.contains("PREEMPT RT") && realtime.trim() != "1" =>
            {
                Self::Plain
            }
            _ => Self::Locked,
        }
    }

    /// A loader that has the programs count so.
    #[must_use]
    pub fn loader<'a>(self) -> EbpfLoader<'a> {
        let undisturbed: &'static u64 = match self {
            Self::Plain => &1,
            Self::Locked => &0,
        };
        let mut loader = EbpfLoader::new();
        loader.override_global(UNDISTURBED, undisturbed, true);
        loader
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_realtime_kernel_and_one_that_says_nothing_get_locks() {
        let of = |version| Counting::of(version, "");
        assert_eq!(of(Some("#1 SMP PREEMPT_RT Debian 6.12.9-1 (2025-01-10)")), Counting::Locked);
        assert_eq!(of(Some("#3 SMP PREEMPT RT Tue Mar 3 2015")), Counting::Locked);
        assert_eq!(Counting::of(Some("#1 SMP"), "1\n"), Counting::Locked);
        assert_eq!(of(None), Counting::Locked);
        assert_eq!(of(Some("#1 SMP PREEMPT_DYNAMIC Debian 6.1.128-1 (2025-02-07)")), Counting::Plain);
        assert_eq!(Counting::of(Some("#1 SMP"), "0\n"), Counting::Plain);
    }
}

//! The kernel: what its BPF can do, where a meter can be attached, and which modules forward packets past it.

use std::fs;
use std::io;

use anyhow::Result;

use super::finding::{Check, Finding};
use super::{AS_ROOT, is_forbidden};
use crate::datapath::{compiles_programs, has_tcx, require_fetching_atomics};

/// Modules of vendors that forward established flows by themselves, and whose they are.
const FORWARDERS: [(&str, &str); 12] = [
    ("shortcut_fe", "Shortcut Forwarding Engine"),
    ("shortcut_fe_cm", "Shortcut Forwarding Engine"),
    ("fast_classifier", "Shortcut Forwarding Engine"),
    ("qca_nss_sfe", "Qualcomm, in software"),
    ("qca_nss_ecm", "Qualcomm, in hardware"),
    ("ecm", "Qualcomm, in hardware"),
    ("mtkhnat", "MediaTek, in hardware"),
    ("hw_nat", "Ralink and MediaTek, in hardware"),
    ("ctf", "Broadcom, in software"),
    ("pktflow", "Broadcom, in hardware"),
    ("fcache", "Broadcom, in hardware"),
    ("ppa_api", "Lantiq and Intel, in hardware"),
];

/// All of it.
pub(super) fn findings() -> Vec<Finding> {
    let modules = fs::read_to_string("/proc/modules").unwrap_or_default();
    vec![
        atomics(&require_fetching_atomics()),
        hooks(&has_tcx(), release().trim()),
        jit(&compiles_programs()),
        forwarders(&modules),
    ]
}

fn release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default()
}

fn atomics(tried: &Result<()>) -> Finding {
    let check = Check::KernelAtomics;
    match tried {
        Ok(()) => {
            Finding::ok(check, "the kernel counts and compares in one step, so a gate holds its ceiling to the octet")
        }
        Err(error) if is_forbidden(error) => {
            Finding::not_checked(check, "whether the kernel holds a ceiling to the octet was not tried", AS_ROOT)
        }
        Err(error) => {
            Finding::problem(check, format!("{error:#}"), "install another kernel: Linux 5.15 or later, 64 bit")
        }
    }
}

fn hooks(tcx: &io::Result<bool>, release: &str) -> Finding {
    let check = Check::KernelHooks;
    match tcx {
        Ok(true) => Finding::ok(check, format!("Linux {release} has TCX hooks")),
        Ok(false) => Finding::ok(
            check,
            format!("Linux {release} has no TCX (it came with 6.6): filters of clsact meter as exactly"),
        ),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Finding::not_checked(check, "which hooks the kernel has was not asked", AS_ROOT)
        }
        Err(error) => {
            Finding::warning(check, format!("the kernel does not say which hooks it has: {error}"), "report this")
        }
    }
}

fn jit(compiles: &io::Result<bool>) -> Finding {
    let check = Check::KernelJit;
    match compiles {
        Ok(true) => Finding::ok(check, "BPF programs run as machine code"),
        Ok(false) => Finding::warning(
            check,
            "BPF programs are interpreted, not compiled",
            "sysctl -w net.core.bpf_jit_enable=1, and write it into /etc/sysctl.d; then restart weir",
        ),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Finding::not_checked(check, "whether BPF programs are compiled was not tried", AS_ROOT)
        }
        Err(error) => {
            Finding::not_checked(check, format!("no BPF program could be tried: {error}"), "see kernel.atomics")
        }
    }
}

/// By the lines of `/proc/modules`.
fn forwarders(modules: &str) -> Finding {
    let names: Vec<&str> = modules.lines().filter_map(|line| line.split(' ').next()).collect();
    let found: Vec<String> = FORWARDERS
        .iter()
        .filter(|(name, _)| names.contains(name))
        .map(|(name, whose)| format!("{name} ({whose})"))
        .collect();
    if found.is_empty() {
        return Finding::ok(Check::KernelModules, "no module is loaded that is known to forward past the meter");
    }
    Finding::warning(
        Check::KernelModules,
        format!("modules are loaded that forward flows by themselves: {}", found.join(", ")),
        "switch the acceleration off on metered links, or unload the module (rmmod), and compare link.counters under load",
    )
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;
    use crate::doctor::finding::Verdict;

    fn denied() -> io::Error {
        io::Error::from_raw_os_error(libc::EPERM)
    }

    #[test]
    fn a_kernel_that_is_too_old_is_a_problem_and_a_missing_right_is_none() {
        assert_eq!(atomics(&Ok(())).verdict, Verdict::Ok);
        let too_old = atomics(&Err(anyhow!("this kernel is too old")));
        assert_eq!((too_old.verdict, too_old.what.as_str()), (Verdict::Problem, "this kernel is too old"));
        assert_eq!(atomics(&Err(anyhow!(denied()).context("trying"))).verdict, Verdict::NotChecked);
    }

    #[test]
    fn hooks_and_compiler_are_told() {
        for (tcx, word) in [(true, "has TCX"), (false, "clsact")] {
            let told = hooks(&Ok(tcx), "6.1");
            assert!(told.verdict == Verdict::Ok && told.what.contains(word), "{told:?}");
        }
        assert_eq!(hooks(&Err(denied()), "6.1").verdict, Verdict::NotChecked);
        assert_eq!(jit(&Ok(true)).verdict, Verdict::Ok);
        let interpreted = jit(&Ok(false));
        assert_eq!(interpreted.verdict, Verdict::Warning);
        assert!(interpreted.fix.unwrap().contains("net.core.bpf_jit_enable=1"));
        assert_eq!(jit(&Err(denied())).verdict, Verdict::NotChecked);
    }

    #[test]
    fn a_module_that_forwards_past_the_meter_is_named() {
        let plain = "xt_fast_classifier_like 16384 0 - Live 0x0\nnf_flow_table 32768 1 nft_flow_offload, Live 0x0\n";
        assert_eq!(forwarders(plain).verdict, Verdict::Ok);
        let accelerated = format!("{plain}fast_classifier 45056 0 - Live 0x0\nmtkhnat 77824 2 - Live 0x0\n");
        let told = forwarders(&accelerated);
        assert_eq!(told.verdict, Verdict::Warning);
        assert!(told.what.contains("fast_classifier (Shortcut") && told.what.contains("mtkhnat (Media"), "{told:?}");
    }
}

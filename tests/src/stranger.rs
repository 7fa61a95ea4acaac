//! A BPF program of somebody else at the hooks: it counts the packets that it sees and has one verdict for all of them.
#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test fails by panicking, its helpers too")]

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

/// `TC_ACT_OK`: the packet goes on its way, and nobody behind sees it.
pub const ACCEPT: i32 = 0;
/// `TC_ACT_UNSPEC`: whoever is behind is to judge.
pub const NEXT: i32 = -1;

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_LINK_CREATE: libc::c_long = 28;
const PROG_TYPE_XDP: u64 = 6;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_F_BEFORE: u32 = 1 << 3;

/// The program. It stays attached for as long as this value lives (a TCX link) or its filter does.
#[derive(Debug)]
pub struct Stranger {
    program: OwnedFd,
    seen: OwnedFd,
    link: Option<OwnedFd>,
}

impl Stranger {
    /// Loads it.
    #[must_use]
    pub fn with_verdict(verdict: i32) -> Self {
        // An array (type 2): keys of four octets, values of eight, one entry.
        let map = own(bpf(BPF_MAP_CREATE, &mut [2_u32, 4, 8, 1, 0]));
        let instruction = |code: u8, registers: u8, immediate: i32| {
            u64::from(code) | u64::from(registers) << 8 | u64::from(immediate.cast_unsigned()) << 32
        };
        let program = [
            // r1 = the address of the map's value; r2 = 1; *r1 += r2, atomically; r0 = the verdict; exit.
            instruction(0x18, 0x21, map.as_raw_fd()),
            0,
            instruction(0xb7, 0x02, 1),
            instruction(0xdb, 0x21, 0),
            instruction(0xb4, 0x00, verdict),
            instruction(0x95, 0, 0),
        ];
        let license = c"GPL";
        // A classifier (type 3).
        let count = u64::try_from(program.len()).unwrap();
        let mut load = [3 | count << 32, program.as_ptr() as u64, license.as_ptr() as u64, 0, 0, 0];
        let program = own(bpf(BPF_PROG_LOAD, &mut load));
        Self { program, seen: map, link: None }
    }

    /// Attaches it to the ingress hook of an interface by TCX, behind whoever is there.
    #[must_use]
    pub fn at_tcx(self, ifindex: u32) -> Self {
        self.link(ifindex, 0)
    }

    /// The same, before whoever is there.
    #[must_use]
    pub fn first_at_tcx(self, ifindex: u32) -> Self {
        self.link(ifindex, BPF_F_BEFORE)
    }

    fn link(mut self, ifindex: u32, flags: u32) -> Self {
        let program = self.program.as_raw_fd().cast_unsigned();
        self.link = Some(own(bpf(BPF_LINK_CREATE, &mut [program, ifindex, BPF_TCX_INGRESS, flags, 0, 0, 0, 0])));
        self
    }

    /// Pins it, for `tc filter add … bpf da object-pinned PATH`.
    pub fn pin(&self, path: &Path) {
        let name = CString::new(path.as_os_str().as_bytes()).unwrap();
        bpf(BPF_OBJ_PIN, &mut [name.as_ptr() as u64, u64::from(self.program.as_raw_fd().cast_unsigned())]);
    }

    /// How many packets it has seen.
    #[must_use]
    pub fn seen(&self) -> u64 {
        let (key, mut value) = (0_u32, 0_u64);
        let map = u64::from(self.seen.as_raw_fd().cast_unsigned());
        bpf(BPF_MAP_LOOKUP_ELEM, &mut [map, &raw const key as u64, &raw mut value as u64]);
        value
    }
}

/// Loads an XDP program that lets every packet pass, and pins it, for `ip link set … xdpgeneric pinned PATH`.
pub fn pin_xdp(path: &Path) {
    // r0 = XDP_PASS; exit.
    let program = [0xb7 | 2_u64 << 32, 0x95];
    let license = c"GPL";
    let count = u64::try_from(program.len()).unwrap();
    let mut load = [PROG_TYPE_XDP | count << 32, program.as_ptr() as u64, license.as_ptr() as u64, 0, 0, 0];
    let program = own(bpf(BPF_PROG_LOAD, &mut load));
    let name = CString::new(path.as_os_str().as_bytes()).unwrap();
    bpf(BPF_OBJ_PIN, &mut [name.as_ptr() as u64, u64::from(program.as_raw_fd().cast_unsigned())]);
}

fn bpf<T: Copy, const N: usize>(command: libc::c_long, attributes: &mut [T; N]) -> libc::c_long {
    // SAFETY: the callers give numbers as the command takes them, and addresses that live over the call.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size_of_val(attributes)) };
    assert!(answer >= 0, "bpf command {command}: {}", io::Error::last_os_error());
    answer
}

fn own(fd: libc::c_long) -> OwnedFd {
    // SAFETY: the kernel has just made it for us.
    unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap()) }
}

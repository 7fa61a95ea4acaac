//! A test alone in namespaces of one thread, with a BPF file system and a tun interface, and a loader for each way to attach.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking, its helpers too"
)]

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::fd::{AsRawFd, FromRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use agent::datapath::{LoadSpec, Loaded, load_and_pin};
use anyhow::{Context as _, Result, bail, ensure};
use aya::programs::{SchedClassifier, TcAttachType};
use nix::{
    mount::{MsFlags, mount},
    net::if_::if_nametoindex,
    sched::{CloneFlags, unshare},
};

use crate::eventually::eventually;
use crate::process::binary;
use crate::scenario::SOON;

/// The name of the interface.
pub const LINK: &str = "wwan0.7";

/// The order by which a program takes the kernel for one without TCX.
pub const WITHOUT_TCX: (&str, &str) = ("WEIR_DRILL_ATTACH", "clsact");

/// How a meter is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// As the kernel lets it be: by TCX links since Linux 6.6.
    Best,
    /// By filters of clsact.
    Clsact,
}

impl Way {
    /// Each that the kernel has: where there is no TCX they are one.
    #[must_use]
    pub fn all() -> Vec<Self> {
        if has_tcx() { vec![Self::Best, Self::Clsact] } else { vec![Self::Clsact] }
    }

    /// Has a loader meter a link of this thread's namespaces.
    pub fn load(self, spec: &LoadSpec) -> Result<Loaded> {
        if self == Self::Best {
            return load_and_pin(spec);
        }
        let output = loader(spec)?.envs([WITHOUT_TCX]).output().context("run the loader")?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Loaded::from_line(&String::from_utf8_lossy(&output.stdout)).context("what the loader has done")
    }
}

/// Whether the kernel knows TCX: it then has an answer to who is at such a hook.
#[must_use]
pub fn has_tcx() -> bool {
    SchedClassifier::query_tcx("lo", TcAttachType::Egress).is_ok()
}

/// A loader as the agent starts it.
pub fn loader(spec: &LoadSpec) -> Result<Command> {
    let mut command = Command::new(binary("weir")?);
    command.args(["datapath-load", "--link", &spec.link, "--pin-root"]).arg(&spec.pin_root);
    for epoch in &spec.retire {
        command.arg("--retire").arg(epoch.to_string());
    }
    Ok(command)
}

/// What a loader is told of [`LINK`].
#[must_use]
pub fn spec(pin_root: PathBuf) -> LoadSpec {
    LoadSpec { link: LINK.to_owned(), pin_root, retire: Vec::new() }
}

/// Runs `body` in network and mount namespaces of its own, with a directory that holds a BPF file system at `bpf`. They
/// belong to one thread and go with it, whatever happens.
pub fn alone(body: impl FnOnce(&Path) + Send + 'static) {
    let directory = tempfile::Builder::new().prefix(&format!("weir-{}-", std::process::id())).tempdir().unwrap();
    let root = directory.path().to_owned();
    let inside = move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("namespaces (these tests run as root)");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        fs::create_dir(root.join("bpf")).unwrap();
        mount(Some("bpf"), &root.join("bpf"), Some("bpf"), MsFlags::empty(), None::<&str>).unwrap();
        // Nothing but what a test sends: no router solicitations.
        fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        body(&root);
    };
    if let Err(panic) = thread::spawn(inside).join() {
        std::panic::resume_unwind(panic);
    }
}

/// A tun interface that is up; it goes away with this value.
#[derive(Debug)]
pub struct Tun {
    file: File,
}

impl Tun {
    /// Makes it.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a device is nobody's default")]
    pub fn new() -> Self {
        let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun").unwrap();
        let flags = i16::try_from(libc::IFF_TUN | libc::IFF_NO_PI).unwrap();
        request(&file, libc::TUNSETIFF, flags);
        // SAFETY: no address is handed over.
        let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        assert!(socket >= 0, "{}", io::Error::last_os_error());
        // SAFETY: just made, and owned by nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        request(&socket, libc::SIOCSIFFLAGS, i16::try_from(libc::IFF_UP).unwrap());
        Self { file }
    }

    /// Takes it away; it is gone when this returns. The kernel takes it when the last one closes the file, and a program that another
    /// thread is just starting has it open until then.
    pub fn remove(self) {
        drop(self.file);
        eventually("the interface to be gone", SOON, || {
            ensure!(if_nametoindex(LINK).is_err(), "somebody has its file open");
            Ok(())
        })
        .unwrap();
    }

    /// Lets a packet of 128 octets come in, UDP from port 53 of 198.51.100.7; the kernel has seen it when this returns.
    pub fn receive(&mut self) {
        let mut packet = vec![0; 128];
        packet[..20].copy_from_slice(&[0x45, 0, 0, 128, 0, 0, 0, 0, 64, 17, 0, 0, 198, 51, 100, 7, 192, 0, 2, 1]);
        packet[21] = 53;
        self.file.write_all(&packet).unwrap();
    }
}

fn request(file: &impl AsRawFd, command: libc::Ioctl, flags: i16) {
    // SAFETY: all zero is a value of this structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, letter) in request.ifr_name.iter_mut().zip(LINK.bytes()) {
        // A character of C is signed on some machines and not on others.
        *place = libc::c_char::from_ne_bytes([letter]);
    }
    request.ifr_ifru.ifru_flags = flags;
    // SAFETY: both commands read an `ifreq`, which lives over the call.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), command, &raw mut request) };
    assert_eq!(answer, 0, "{}", io::Error::last_os_error());
}

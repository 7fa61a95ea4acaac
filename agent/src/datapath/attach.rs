//! Puts the programs on an interface and takes them off: TCX links, first in the chain, pinned.
//!
//! The boundary of the mechanism: everything outside this file asks for "attached", not for TCX. Kernels without TCX
//! (before 6.6) get an error that says so.

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    ptr,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use aya::programs::{
    LinkOrder, ProgramInfo, SchedClassifier, TcAttachType,
    links::{FdLink, PinnedLink},
    tc::TcAttachOptions,
};

use super::{
    maps::{Direction, Pins},
    survey::programs_at,
};

/// What the kernel says about a pinned TCX link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkState {
    /// The program that it runs.
    pub(super) program_id: u32,
    /// The interface it sits on; 0 once that was deleted.
    pub(super) ifindex: u32,
}

/// Attaches a loaded program ahead of all others and pins program and link.
///
/// First, because an earlier program that returns `TC_ACT_OK` would hide packets from the meter.
pub(super) fn attach(program: &mut SchedClassifier, interface: &str, direction: Direction, pins: &Pins) -> Result<()> {
    let order = TcAttachOptions::TcxOrder(LinkOrder::first());
    let link_id = program.attach_with_options(interface, hook(direction), order).map_err(|error| {
        anyhow!(error).context(format!(
            "the kernel refused a TCX link at the {direction} hook of {interface}; TCX needs Linux 6.6 or newer, built \
             with CONFIG_NET_XGRESS"
        ))
    })?;
    let link = FdLink::try_from(program.take_link(link_id)?).context("the new link is no file descriptor")?;
    let path = pins.link(direction);
    link.pin(&path).with_context(|| format!("pinning the link as {}", path.display()))?;
    pin_program(program, direction, pins)
}

/// Puts a loaded program in the place of the one that a pinned link runs now; no packet goes by in between.
pub(super) fn replace(program: &mut SchedClassifier, direction: Direction, pins: &Pins) -> Result<()> {
    let path = pins.link(direction);
    let link = PinnedLink::from_pin(&path).with_context(|| format!("opening the pinned link {}", path.display()))?;
    let link = FdLink::from(link).try_into().with_context(|| format!("{} is no TCX link", path.display()))?;
    // The link now belongs to `program`; when both are dropped the pin keeps it.
    program.attach_to_link(link).with_context(|| format!("replacing the {direction} program"))?;
    let old = pins.program(direction);
    remove_if_there(&old)?;
    pin_program(program, direction, pins)
}

fn pin_program(program: &mut SchedClassifier, direction: Direction, pins: &Pins) -> Result<()> {
    let path = pins.program(direction);
    program.pin(&path).with_context(|| format!("pinning the program as {}", path.display()))
}

/// Makes sure that the program of this link, and no other meter, sits at the hook.
///
/// The same object attached twice counts twice, and nothing else would ever tell.
pub(super) fn assert_alone(interface: &str, direction: Direction, pins: &Pins) -> Result<()> {
    let ours = link_state(&pins.link(direction))?.program_id;
    let meters: Vec<u32> = programs_at(interface, direction)?.iter().map(ProgramInfo::id).collect();
    match meters.as_slice() {
        [one] if *one == ours => Ok(()),
        [] => bail!("the {direction} program was attached to {interface}, but the kernel does not list it there"),
        others => bail!(
            "{interface} carries {} meters at its {direction} hook (programs {others:?}, ours is {ours}); each would \
             count every packet. Another agent, or an older layout, holds the other: stop it and remove its pins",
            others.len()
        ),
    }
}

/// Takes the meter of `link` off its interface and removes its pins. What was counted is gone with them.
pub fn detach_and_unpin(pin_root: &Path, link: &str) -> Result<()> {
    remove_pins(&Pins::new(pin_root, link))
}

/// Whatever is pinned there, of whichever layout: links first, so that nothing runs any more when the maps go.
pub(super) fn remove_pins(pins: &Pins) -> Result<()> {
    let entries = match fs::read_dir(pins.directory()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("listing the pins {pins}"))?,
    };
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<Vec<_>>>()
        .with_context(|| format!("listing the pins {pins}"))?;
    let is_link = |path: &Path| path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"link_"));
    paths.sort_by_key(|path| !is_link(path));
    for path in paths {
        if is_link(&path) { detach(&path)? } else { remove_if_there(&path)? }
    }
    match fs::remove_dir(pins.directory()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing the directory {pins}"))
        }
        _ => Ok(()),
    }
}

/// Takes a pinned link off its interface, and then removes the pin.
///
/// Without its pin the link would go as well, but some time later (an inode is freed after a grace period of RCU), and
/// a program attached meanwhile would meet it still counting.
fn detach(path: &Path) -> Result<()> {
    match get_pinned(path) {
        Ok(link) => {
            detach_link(link.as_raw_fd()).with_context(|| format!("detaching {}", path.display()))?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("opening the pinned link {}", path.display())),
    }
    remove_if_there(path)
}

pub(super) fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing the pin {}", path.display()))
        }
        _ => Ok(()),
    }
}

pub(super) fn hook(direction: Direction) -> TcAttachType {
    match direction {
        Direction::Uplink => TcAttachType::Egress,
        Direction::Downlink => TcAttachType::Ingress,
    }
}

/// Takes a link off its interface. The kernel waits until no packet is in its program any more.
pub(super) fn detach_link(link: RawFd) -> io::Result<()> {
    let mut attr = DetachAttr { link: link.cast_unsigned() };
    // SAFETY: the attribute lives over the call and holds no address.
    unsafe { bpf(BPF_LINK_DETACH, &mut attr) }.map(drop)
}

/// A link by its number.
pub(super) fn get_link(id: u32) -> io::Result<OwnedFd> {
    let mut attr = GetByIdAttr { id, ..GetByIdAttr::default() };
    // SAFETY: the attribute lives over the call and holds no address.
    let fd = unsafe { bpf(BPF_LINK_GET_FD_BY_ID, &mut attr) }?;
    own(fd)
}

fn own(fd: libc::c_long) -> io::Result<OwnedFd> {
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Asks the kernel about a pinned link. (aya tells the program of a link but not its interface.)
pub(super) fn link_state(path: &Path) -> Result<LinkState> {
    let link = get_pinned(path).with_context(|| format!("opening the pinned link {}", path.display()))?;
    let info = link_info(&link).with_context(|| format!("asking the kernel about the link {}", path.display()))?;
    ensure!(info.kind == BPF_LINK_TYPE_TCX, "{} is a link of type {}, not of TCX", path.display(), info.kind);
    Ok(LinkState { program_id: info.program_id, ifindex: info.ifindex })
}

const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_LINK_GET_FD_BY_ID: libc::c_long = 30;
const BPF_LINK_DETACH: libc::c_long = 34;
const BPF_LINK_TYPE_TCX: u32 = 11;

/// `union bpf_attr` of `BPF_OBJ_GET`.
#[repr(C)]
#[derive(Default)]
struct GetAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

/// `union bpf_attr` of `BPF_LINK_GET_FD_BY_ID`.
#[repr(C)]
#[derive(Default)]
struct GetByIdAttr {
    id: u32,
    next_id: u32,
    flags: u32,
}

/// `union bpf_attr` of `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct InfoAttr {
    fd: u32,
    length: u32,
    info: u64,
}

/// `union bpf_attr` of `BPF_LINK_DETACH`.
#[repr(C)]
struct DetachAttr {
    link: u32,
}

/// `struct bpf_link_info` of a TCX link; longer in the kernel, which fills in as much as is asked for.
#[repr(C)]
#[derive(Default)]
pub(super) struct LinkInfo {
    kind: u32,
    id: u32,
    program_id: u32,
    padding: u32,
    pub(super) ifindex: u32,
    attach_type: u32,
}

pub(super) fn get_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = GetAttr { path: path.as_ptr() as u64, ..GetAttr::default() };
    // SAFETY: the attribute and the path live over the call.
    own(unsafe { bpf(BPF_OBJ_GET, &mut attr) }?)
}

pub(super) fn link_info(link: &OwnedFd) -> io::Result<LinkInfo> {
    let mut info = LinkInfo::default();
    let mut attr = InfoAttr {
        fd: link.as_raw_fd().cast_unsigned(),
        length: u32::try_from(size_of::<LinkInfo>()).map_err(io::Error::other)?,
        info: (&raw mut info) as u64,
    };
    // SAFETY: the attribute and the space for the answer live over the call, and its length is told.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(info)
}

/// # Safety
/// `attr` is what the command expects, and every address in it is good for what the command does with it.
unsafe fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the caller's promise.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, ptr::from_mut(attr), size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

//! The `bpf` system calls that aya does not make for us: links and programs by pin or number, and who sits at a TCX hook.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    ptr,
    time::Duration,
};

use super::direction::Direction;

const BPF_OBJ_GET: libc::c_long = 7;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_LINK_GET_FD_BY_ID: libc::c_long = 30;
const BPF_LINK_DETACH: libc::c_long = 34;
const BPF_LINK_TYPE_TCX: u32 = 11;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;

/// A packet is in a program for microseconds; after so long none is in one that it was in before.
const IN_FLIGHT: Duration = Duration::from_millis(50);

/// So many programs are looked for at a hook; the kernel lets no more be there.
const PROGRAMS_AT_A_HOOK: usize = 64;
/// So many maps of a program are looked at; ours has six.
const MAPS_OF_A_PROGRAM: usize = 32;

/// What the kernel says about a TCX link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkState {
    /// The program that it runs.
    pub(super) program_id: u32,
    /// The interface it sits on; 0 once that was deleted.
    pub(super) ifindex: u32,
}

/// What the kernel says about a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProgramState {
    /// Its number.
    pub(super) id: u32,
    /// Its name, cut off after 15 octets.
    pub(super) name: String,
    /// The numbers of its maps.
    pub(super) map_ids: Vec<u32>,
    /// Whether it runs as machine code; false as well where we may not know.
    pub(super) is_compiled: bool,
}

/// A program at a TCX hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AtHook {
    /// The program.
    pub(super) program_id: u32,
    /// The link that holds it there; 0 when no link does.
    pub(super) link_id: u32,
}

/// `union bpf_attr` of `BPF_OBJ_GET`.
#[repr(C)]
#[derive(Default)]
struct GetAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

/// `union bpf_attr` of `BPF_PROG_GET_FD_BY_ID` and `BPF_LINK_GET_FD_BY_ID`.
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

/// `union bpf_attr` of `BPF_PROG_QUERY`.
#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    count: u32,
    padding: u32,
    program_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// `struct bpf_link_info` of a TCX link; longer in the kernel, which fills in as much as is asked for.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program_id: u32,
    padding: u32,
    ifindex: u32,
    attach_type: u32,
}

/// `struct bpf_prog_info` as far as its name.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_length: u32,
    translated_length: u32,
    jited_instructions: u64,
    translated_instructions: u64,
    load_time: u64,
    created_by: u32,
    map_count: u32,
    map_ids: u64,
    name: [u8; 16],
}

/// Opens what is pinned there.
pub(super) fn get_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = GetAttr { path: path.as_ptr() as u64, ..GetAttr::default() };
    // SAFETY: the attribute and the path live over the call.
    own(unsafe { bpf(BPF_OBJ_GET, &mut attr) }?)
}

/// Opens a link by its number.
pub(super) fn link_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attr = GetByIdAttr { id, ..GetByIdAttr::default() };
    // SAFETY: the attribute lives over the call and holds no address.
    own(unsafe { bpf(BPF_LINK_GET_FD_BY_ID, &mut attr) }?)
}

/// Opens a program by its number.
pub(super) fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attr = GetByIdAttr { id, ..GetByIdAttr::default() };
    // SAFETY: the attribute lives over the call and holds no address.
    own(unsafe { bpf(BPF_PROG_GET_FD_BY_ID, &mut attr) }?)
}

/// Asks the kernel about a TCX link. (aya tells the program of a link but not its interface.)
pub(super) fn link_state(link: &OwnedFd) -> io::Result<LinkState> {
    let mut info = LinkInfo::default();
    // SAFETY: `LinkInfo` is how `struct bpf_link_info` begins for such links.
    unsafe { info_by_fd(link, &mut info) }?;
    if info.kind != BPF_LINK_TYPE_TCX {
        return Err(io::Error::other(format!("a link of type {}, not of TCX", info.kind)));
    }
    Ok(LinkState { program_id: info.program_id, ifindex: info.ifindex })
}

/// Asks the kernel about a program.
pub(super) fn program_state(program: &OwnedFd) -> io::Result<ProgramState> {
    let mut map_ids = [0_u32; MAPS_OF_A_PROGRAM];
    let map_count = u32::try_from(map_ids.len()).map_err(io::Error::other)?;
    let mut info = ProgramInfo { map_count, map_ids: map_ids.as_mut_ptr() as u64, ..ProgramInfo::default() };
    // SAFETY: `ProgramInfo` is how `struct bpf_prog_info` begins, and there is room for as many maps as it says.
    unsafe { info_by_fd(program, &mut info) }?;
    let name: Vec<u8> = info.name.into_iter().take_while(|letter| *letter != 0).collect();
    let count = usize::try_from(info.map_count).map_err(io::Error::other)?.min(map_ids.len());
    Ok(ProgramState {
        id: info.id,
        name: String::from_utf8_lossy(&name).into_owned(),
        map_ids: map_ids[..count].to_vec(),
        is_compiled: info.jited_length > 0,
    })
}

/// The programs at a TCX hook of an interface, in the order in which they run; none where the kernel has no TCX.
pub(super) fn programs_at_tcx(ifindex: u32, direction: Direction) -> io::Result<Vec<AtHook>> {
    let mut program_ids = [0_u32; PROGRAMS_AT_A_HOOK];
    let mut link_ids = [0_u32; PROGRAMS_AT_A_HOOK];
    let mut attr = QueryAttr {
        ifindex,
        attach_type: match direction {
            Direction::Uplink => BPF_TCX_EGRESS,
            Direction::Downlink => BPF_TCX_INGRESS,
        },
        program_ids: program_ids.as_mut_ptr() as u64,
        count: u32::try_from(program_ids.len()).map_err(io::Error::other)?,
        link_ids: link_ids.as_mut_ptr() as u64,
        ..QueryAttr::default()
    };
    // SAFETY: both lists live over the call and are as long as is told.
    match unsafe { bpf(BPF_PROG_QUERY, &mut attr) } {
        Ok(_) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    }
    let count = usize::try_from(attr.count).map_err(io::Error::other)?.min(program_ids.len());
    let both = program_ids.into_iter().zip(link_ids).take(count);
    Ok(both.map(|(program_id, link_id)| AtHook { program_id, link_id }).collect())
}

/// Tells whether the kernel has TCX, by whether it has an answer to who is at such a hook of the loopback.
pub fn has_tcx() -> io::Result<bool> {
    const LOOPBACK: u32 = 1;
    let mut attr = QueryAttr { ifindex: LOOPBACK, attach_type: BPF_TCX_EGRESS, ..QueryAttr::default() };
    // SAFETY: the attribute lives over the call and holds no address.
    match unsafe { bpf(BPF_PROG_QUERY, &mut attr) } {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes a link off its interface. The kernel waits until no packet is in its program any more.
pub(super) fn detach_link(link: &OwnedFd) -> io::Result<()> {
    let mut attr = DetachAttr { link: link.as_raw_fd().cast_unsigned() };
    // SAFETY: the attribute lives over the call and holds no address.
    unsafe { bpf(BPF_LINK_DETACH, &mut attr) }.map(drop)
}

/// Waits until every packet that is in a program now has left it: some tens of milliseconds.
pub(super) fn wait_for_packets() {
    // `MEMBARRIER_CMD_GLOBAL` is a grace period of RCU, under which the hooks run; with one processor it has nothing to wait for.
    const GLOBAL: libc::c_long = 1;
    // SAFETY: takes no address.
    if unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) } != 0 {
        std::thread::sleep(IN_FLIGHT);
    }
}

/// # Safety
/// `T` is a beginning of what the kernel knows of such an object, and every address in it is good for what is asked.
unsafe fn info_by_fd<T>(object: &impl AsFd, info: &mut T) -> io::Result<()> {
    let mut attr = InfoAttr {
        fd: object.as_fd().as_raw_fd().cast_unsigned(),
        length: u32::try_from(size_of::<T>()).map_err(io::Error::other)?,
        info: ptr::from_mut(info) as u64,
    };
    // SAFETY: the attribute and the space for the answer live over the call, and its length is told.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr) }.map(drop)
}

pub(super) fn own(fd: libc::c_long) -> io::Result<OwnedFd> {
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// # Safety
/// `attr` is what the command expects, and every address in it is good for what the command does with it.
pub(super) unsafe fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the caller's promise.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, ptr::from_mut(attr), size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

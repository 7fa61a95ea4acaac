//! Puts the programs on an interface and takes them off, ahead of others: by TCX links, or by filters where the kernel has no TCX.
//!
//! The boundary of the mechanism: everything outside asks for "attached". Which way it is, the pins tell for each hook: there is a pinned
//! link, or there is none and the program is held by a filter, which no pin can hold and which is found by its program.

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::Path,
};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    maps::MapInfo,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        links::{FdLink, PinnedLink},
        tc::TcAttachOptions,
    },
    sys::SyscallError,
};
use nix::net::if_::{if_nameindex, if_nametoindex};

use super::{
    clsact::{self, Slot, filters_at},
    direction::{DIRECTIONS, Direction},
    maps::COUNTERS,
    pins::{Pins, pinned_link, remove_if_there, running},
    survey::{epoch_of, hidden_at, seats_at},
    sys::{detach_link, get_pinned, link_state, programs_at_tcx, wait_for_packets},
};
use crate::drill;

/// What holds one program of an open meter at its hook.
#[derive(Debug)]
pub(super) enum Hold {
    /// A link. Held open, so that the program stays attached for as long as the agent lives, whatever becomes of the file system with the pins.
    Link {
        /// Its hook.
        direction: Direction,
        /// It.
        link: OwnedFd,
    },
    /// A filter, which stays by itself.
    Filter {
        /// Its hook.
        direction: Direction,
        /// Its program.
        program_id: u32,
    },
}

impl Hold {
    /// By the pins.
    pub(super) fn open(pins: &Pins, direction: Direction) -> Result<Self> {
        match pinned_link(pins, direction)? {
            Some(link) => Ok(Self::Link { direction, link }),
            None => Ok(Self::Filter { direction, program_id: running(pins, direction)? }),
        }
    }

    /// Tells whether it is at the hook of the interface with this index, in the namespace of this thread.
    pub(super) fn is_on(&self, ifindex: u32) -> bool {
        match self {
            Self::Link { link, .. } => link_state(link).is_ok_and(|state| state.ifindex == ifindex),
            Self::Filter { direction, program_id } => {
                let is_listed = || {
                    let filters = filters_at(ifindex, *direction).unwrap_or_default();
                    filters.iter().any(|filter| filter.program_id == *program_id)
                };
                // Somebody may have changed the list while it was written to us.
                is_listed() || is_listed()
            }
        }
    }

    /// What runs before it at the hook of this interface, in words.
    pub(super) fn ahead(&self, ifindex: u32) -> Result<Vec<String>> {
        let (direction, mut words) = match self {
            Self::Link { direction, link } => {
                let own = link_state(link).context("asking about a link")?.program_id;
                (*direction, tcx_programs(ifindex, *direction, |program_id| program_id != own)?)
            }
            Self::Filter { direction, program_id } => {
                let mut words = tcx_programs(ifindex, *direction, |_| true)?;
                words.extend(clsact::ahead_of(*program_id, ifindex, *direction)?);
                (*direction, words)
            }
        };
        for word in &mut words {
            *word = format!("{direction}: {word}");
        }
        Ok(words)
    }
}

/// The first programs at a TCX hook, in words, as long as this holds for them.
fn tcx_programs(ifindex: u32, direction: Direction, are_wanted: impl Fn(u32) -> bool) -> Result<Vec<String>> {
    let all = programs_at_tcx(ifindex, direction).context("asking which programs are at a hook")?;
    let first = all.iter().take_while(|at| are_wanted(at.program_id));
    Ok(first.map(|at| format!("program {}", at.program_id)).collect())
}

/// Tells whether both programs of these pins sit on that interface. Its index alone does not say so: in another namespace another
/// interface may have the same.
#[must_use]
pub fn sits_on(pins: &Pins, interface: &str, ifindex: u32) -> bool {
    if_nametoindex(interface) == Ok(ifindex)
        && DIRECTIONS.iter().all(|direction| match pinned_link(pins, *direction) {
            Ok(Some(link)) => link_state(&link).is_ok_and(|state| {
                state.ifindex == ifindex
                    && programs_at_tcx(ifindex, *direction)
                        .is_ok_and(|programs| programs.iter().any(|at| at.program_id == state.program_id))
            }),
            Ok(None) => slots(pins, ifindex, *direction).is_ok_and(|slots| !slots.is_empty()),
            Err(_) => false,
        })
}

/// Attaches a loaded program ahead of all others, and pins it.
///
/// First, because an earlier program that returns `TC_ACT_OK` would hide packets from the meter.
pub(super) fn attach(program: &mut SchedClassifier, interface: &str, direction: Direction, pins: &Pins) -> Result<()> {
    if !attach_link(program, interface, direction, pins)? {
        attach_filter(program, interface, direction, pins).with_context(|| {
            format!(
                "the kernel has no TCX (Linux 6.6 or newer, with CONFIG_NET_XGRESS), and the older way to the {direction} \
                 hook of {interface} is barred"
            )
        })?;
    }
    pin_program(program, direction, pins)
}

/// False when the kernel does not know such links.
fn attach_link(program: &mut SchedClassifier, interface: &str, direction: Direction, pins: &Pins) -> Result<bool> {
    if drill::forbids_tcx() {
        return Ok(false);
    }
    let order = TcAttachOptions::TcxOrder(LinkOrder::first());
    let link_id = match program.attach_with_options(interface, hook(direction), order) {
        Ok(link_id) => link_id,
        // What is asked for is right wherever it is known at all.
        Err(ProgramError::SyscallError(SyscallError { io_error, .. })) if is_invalid(&io_error) => return Ok(false),
        Err(error) => {
            let refused = format!("the kernel refused a TCX link at the {direction} hook of {interface}");
            return Err(anyhow!(error).context(refused));
        }
    };
    let link = FdLink::try_from(program.take_link(link_id)?).context("the new link is no file descriptor")?;
    let path = pins.link(direction);
    link.pin(&path).with_context(|| format!("pinning the link as {}", path.display()))?;
    Ok(true)
}

fn is_invalid(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EINVAL)
}

fn attach_filter(program: &SchedClassifier, interface: &str, direction: Direction, pins: &Pins) -> Result<()> {
    let ifindex = if_nametoindex(interface).with_context(|| format!("there is no interface {interface}"))?;
    clsact::attach(program.fd()?, ifindex, direction, epoch(pins)?)
}

/// Puts a loaded program in the place of the one that runs now; no packet goes by in between.
pub(super) fn replace(program: &mut SchedClassifier, interface: &str, direction: Direction, pins: &Pins) -> Result<()> {
    let path = pins.link(direction);
    let replacing = || format!("replacing the {direction} program");
    if path.exists() {
        let link =
            PinnedLink::from_pin(&path).with_context(|| format!("opening the pinned link {}", path.display()))?;
        let link = FdLink::from(link).try_into().with_context(|| format!("{} is no TCX link", path.display()))?;
        // The link now belongs to `program`; when both are dropped the pin keeps it.
        program.attach_to_link(link).with_context(replacing)?;
    } else {
        let ifindex = if_nametoindex(interface).with_context(|| format!("there is no interface {interface}"))?;
        for slot in slots(pins, ifindex, direction)? {
            clsact::replace(program.fd()?, &slot).with_context(replacing)?;
        }
    }
    // Whoever dies here leaves a pin that is not what runs: such a filter is found by its epoch.
    remove_if_there(&pins.program(direction))?;
    pin_program(program, direction, pins)
}

fn pin_program(program: &mut SchedClassifier, direction: Direction, pins: &Pins) -> Result<()> {
    let path = pins.program(direction);
    program.pin(&path).with_context(|| format!("pinning the program as {}", path.display()))
}

/// The number of their map of counters.
pub(super) fn epoch(pins: &Pins) -> Result<u32> {
    let path = pins.map(COUNTERS);
    Ok(MapInfo::from_pin(&path).with_context(|| format!("asking about the pinned map {}", path.display()))?.id())
}

/// The filters at a hook that run the program of these pins, or one that counts in their maps.
fn slots(pins: &Pins, ifindex: u32, direction: Direction) -> Result<Vec<Slot>> {
    let (program, epoch) = (running(pins, direction).ok(), epoch(pins).ok());
    let mut slots = Vec::new();
    for filter in filters_at(ifindex, direction)?.into_iter().filter(|filter| filter.name == direction.program_name()) {
        if Some(filter.program_id) == program || epoch.is_some() && epoch_of(filter.program_id)? == epoch {
            slots.push(filter.slot);
        }
    }
    Ok(slots)
}

/// Makes sure that the program of these pins, and no other meter, sits at the hook.
///
/// The same object attached twice counts twice, and nothing else would ever tell.
pub(super) fn assert_alone(interface: &str, direction: Direction, pins: &Pins) -> Result<()> {
    let ours = running(pins, direction)?;
    let ifindex = if_nametoindex(interface).with_context(|| format!("there is no interface {interface}"))?;
    let meters: Vec<u32> = seats_at(ifindex, direction, Some(ours))?.iter().map(|seat| seat.program_id).collect();
    match meters.as_slice() {
        [one] if *one == ours => {
            say_what_is_hidden(interface, &hidden_at(ifindex, direction, ours)?);
            Ok(())
        }
        [] => bail!("the {direction} program was attached to {interface}, but the kernel does not list it there"),
        others => bail!(
            "{interface} carries {} meters at its {direction} hook (programs {others:?}, ours is {ours}); each would \
             count every packet. Another agent, or an older layout, holds the other: stop it and remove its pins",
            others.len()
        ),
    }
}

#[expect(clippy::print_stderr, reason = "the loader's words, which the agent puts in its log")]
fn say_what_is_hidden(interface: &str, programs: &[u32]) {
    if !programs.is_empty() {
        eprintln!(
            "without CAP_SYS_ADMIN nobody can say whether the programs {programs:?} on {interface} are meters that an earlier agent \
             has left, and would refuse or count what ours lets pass: look at them (bpftool net), or give weir that capability once"
        );
    }
}

/// Takes the meter of `link` off its interface and removes its pins. What was counted is gone with them.
pub fn detach_and_unpin(pin_root: &Path, link: &str) -> Result<()> {
    remove_pins(&Pins::new(pin_root, link))
}

/// Whatever is pinned there, of whichever layout: first what holds the programs, so that nothing runs any more when the maps go.
pub(super) fn remove_pins(pins: &Pins) -> Result<()> {
    let entries = match fs::read_dir(pins.directory()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("listing the pins {pins}"))?,
    };
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<Vec<_>>>()
        .with_context(|| format!("listing the pins {pins}"))?;
    detach_filters(pins)?;
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

/// Takes off the filters of these pins, wherever they are: the link may bear another name now.
fn detach_filters(pins: &Pins) -> Result<()> {
    let without_link: Vec<Direction> =
        DIRECTIONS.into_iter().filter(|direction| !pins.link(*direction).exists()).collect();
    if without_link.is_empty() {
        return Ok(());
    }
    let mut any = false;
    for interface in &if_nameindex().context("listing the interfaces")? {
        for direction in &without_link {
            for slot in slots(pins, interface.index(), *direction)? {
                clsact::detach(&slot)
                    .with_context(|| format!("taking the meter off {}", interface.name().to_string_lossy()))?;
                any = true;
            }
        }
    }
    if any {
        wait_for_packets();
    }
    Ok(())
}

/// Takes a pinned link off its interface, and then removes the pin.
///
/// Without its pin the link would go as well, but some time later (an inode is freed after a grace period of RCU), and
/// a program attached meanwhile would meet it still counting.
fn detach(path: &Path) -> Result<()> {
    match get_pinned(path) {
        Ok(link) => {
            detach_link(&link).with_context(|| format!("detaching {}", path.display()))?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("opening the pinned link {}", path.display())),
    }
    remove_if_there(path)
}

fn hook(direction: Direction) -> TcAttachType {
    match direction {
        Direction::Uplink => TcAttachType::Egress,
        Direction::Downlink => TcAttachType::Ingress,
    }
}

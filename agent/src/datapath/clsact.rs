//! The way of kernels without TCX: filters of the clsact queueing discipline, which has a list of them at each hook.
//!
//! Other programs have filters there too, and may have made the clsact: it is made where it is missing and never deleted.

use std::os::fd::{AsFd, AsRawFd as _};

use anyhow::{Context as _, Result, bail};
use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        RouteNetlinkMessage,
        tc::{TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
    },
};

use super::{
    direction::Direction,
    tc::{Refusal, Told, list, order},
};

/// The name of the queueing discipline.
const CLSACT: &str = "clsact";
/// `ETH_P_ALL` in network order: a filter for packets of every protocol.
const EVERY_PROTOCOL: u16 = 3_u16.to_be();
/// Handles of ours have this bit and the epoch below it. The kernel chooses none so high, nor do people.
const OURS: u32 = 1 << 31;

/// Where a filter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) ifindex: u32,
    pub(super) direction: Direction,
    /// The lower runs first; of one priority the newest.
    priority: u16,
    handle: u32,
}

/// A BPF filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) slot: Slot,
    /// The name that whoever attached it gave it; ours have that of the program.
    pub(super) name: String,
    /// Its program.
    pub(super) program_id: u32,
}

/// The BPF filters at a hook, in the order in which they run; none where there is no clsact.
pub(super) fn filters_at(ifindex: u32, direction: Direction) -> Result<Vec<Filter>> {
    let of = |told: Told| Filter {
        slot: Slot { ifindex, direction, priority: priority(&told), handle: told.handle },
        name: told.name,
        program_id: told.program_id,
    };
    Ok(all_at(ifindex, direction)?.into_iter().filter(|told| told.program_id != 0).map(of).collect())
}

/// The filters that run before the one with this program, in words.
pub(super) fn ahead_of(program_id: u32, ifindex: u32, direction: Direction) -> Result<Vec<String>> {
    let all = all_at(ifindex, direction)?;
    let own = all.iter().position(|told| told.program_id == program_id).unwrap_or_default();
    // What has no handle stands for a priority as a whole.
    let before = all[..own].iter().filter(|told| told.handle != 0);
    let mut words: Vec<String> =
        before.map(|told| format!("pref {} {} {}", priority(told), told.kind, told.name).trim().to_owned()).collect();
    words.dedup();
    Ok(words)
}

/// Puts a program ahead of all filters of the hook, as far as their owners let it.
pub(super) fn attach(program: &impl AsFd, ifindex: u32, direction: Direction, epoch_id: u32) -> Result<()> {
    require_clsact(ifindex)?;
    let present = all_at(ifindex, direction)?;
    // A place of the same kind and protocol can be shared, and whoever comes last goes first there.
    let is_taken = |wanted: u16| {
        present.iter().any(|told| priority(told) == wanted && (told.kind != "bpf" || protocol(told) != EVERY_PROTOCOL))
    };
    let priority = (1..u16::MAX).find(|wanted| !is_taken(*wanted)).context("every priority is taken")?;
    let slot = Slot { ifindex, direction, priority, handle: OURS | epoch_id };
    put(program, &slot, NLM_F_CREATE | NLM_F_EXCL)
}

/// Exchanges the program of a filter; every packet meets the one or the other.
pub(super) fn replace(program: &impl AsFd, slot: &Slot) -> Result<()> {
    put(program, slot, 0)
}

/// Takes a filter off; one that is gone already is no error. See [`super::sys::wait_for_packets`]: the kernel does not wait
/// by itself, as it does for links.
pub(super) fn detach(slot: &Slot) -> Result<()> {
    let removed = order(RouteNetlinkMessage::DelTrafficFilter(message(slot)), 0);
    let is_there = || filters_at(slot.ifindex, slot.direction).map(|all| all.iter().any(|filter| filter.slot == *slot));
    match removed {
        Err(error) if is_there()? => Err(error).context("taking a filter off"),
        _ => Ok(()),
    }
}

/// Makes the clsact if there is none.
fn require_clsact(ifindex: u32) -> Result<()> {
    let mut wanted = TcMessage::with_index(ifindex.cast_signed());
    wanted.header.parent = TcHandle::CLSACT;
    wanted.header.handle = TcHandle { major: u16::MAX, minor: 0 };
    wanted.attributes.push(TcAttribute::Kind(CLSACT.to_owned()));
    match order(RouteNetlinkMessage::NewQueueDiscipline(wanted), NLM_F_CREATE | NLM_F_EXCL) {
        Ok(()) => return Ok(()),
        Err(error) if Refusal::is(&error, libc::EEXIST) => {}
        Err(error) if Refusal::is(&error, libc::ENOENT) => {
            return Err(error)
                .context("the kernel has no clsact; it is in the module sch_ingress (modprobe sch_ingress)");
        }
        Err(error) => return Err(error).context("making the clsact"),
    }
    // The place is taken, and perhaps by the older `ingress`: it has no egress hook, and takes a filter for one all the same.
    let question = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::with_index(ifindex.cast_signed()));
    let all = list(question).context("asking for queueing disciplines")?;
    let found = all.iter().find(|told| told.ifindex == ifindex && told.parent == u32::from(TcHandle::CLSACT));
    match found {
        Some(told) if told.kind != CLSACT => bail!(
            "in the place of its clsact there is the queueing discipline {}, of somebody else, which has no egress hook; \
             whoever made it would have to make clsact instead (the same filters work there)",
            told.kind
        ),
        _ => Ok(()),
    }
}

fn put(program: &impl AsFd, slot: &Slot, flags: u16) -> Result<()> {
    let mut filter = message(slot);
    let options = [
        TcFilterBpfOption::ProgFd(program.as_fd().as_raw_fd().cast_unsigned()),
        TcFilterBpfOption::ProgName(slot.direction.program_name().to_owned()),
        TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
    ];
    filter.attributes.push(TcAttribute::Kind(TcFilterBpf::KIND.to_owned()));
    filter.attributes.push(TcAttribute::Options(options.map(TcOption::Bpf).to_vec()));
    match order(RouteNetlinkMessage::NewTrafficFilter(filter), flags) {
        Err(error) if flags != 0 && Refusal::is(&error, libc::ENOENT) => {
            Err(error).context("the kernel has no BPF filters; they are in the module cls_bpf (modprobe cls_bpf)")
        }
        done => done.context("putting a filter there"),
    }
}

fn message(slot: &Slot) -> TcMessage {
    let mut message = TcMessage::with_index(slot.ifindex.cast_signed());
    message.header.handle = slot.handle.into();
    message.header.parent = hook(slot.direction);
    message.header.info = u32::from(slot.priority) << 16 | u32::from(EVERY_PROTOCOL);
    message
}

/// All filters at a hook, of every kind.
fn all_at(ifindex: u32, direction: Direction) -> Result<Vec<Told>> {
    let mut question = TcMessage::with_index(ifindex.cast_signed());
    question.header.parent = hook(direction);
    match list(RouteNetlinkMessage::GetTrafficFilter(question)) {
        // A kernel without traffic control, or a link that is gone.
        Err(error) if [libc::EOPNOTSUPP, libc::ENODEV].iter().any(|number| Refusal::is(&error, *number)) => {
            Ok(Vec::new())
        }
        told => Ok(told.context("asking for filters")?.into_iter().filter(|told| told.chain == 0).collect()),
    }
}

const fn hook(direction: Direction) -> TcHandle {
    let minor = match direction {
        Direction::Uplink => TcHandle::MIN_EGRESS,
        Direction::Downlink => TcHandle::MIN_INGRESS,
    };
    TcHandle { major: u16::MAX, minor }
}

const fn priority(told: &Told) -> u16 {
    (told.info >> 16) as u16
}

const fn protocol(told: &Told) -> u16 {
    (told.info & 0xffff) as u16
}

//! Loads the programs of one link, attaches and pins them, or adopts what is pinned already.
//!
//! Runs in a child that ends when it is done: the loader parses all types of the kernel, which costs 40 MiB at the
//! peak, and it is the only part that needs the right to load programs.

use std::{
    fs, io,
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use agent_common::{Counters, Gate, Word};
use anyhow::{Context as _, Result, bail, ensure};
use aya::{
    Ebpf,
    maps::MapInfo,
    programs::{ProgramInfo, SchedClassifier},
};
use nix::{
    fcntl::{Flock, FlockArg},
    sys::{
        prctl::set_pdeathsig,
        signal::Signal,
        statfs::{FsType, fstatfs},
    },
    unistd::{Pid, getppid},
};

use super::{
    attach::{assert_alone, attach, epoch, remove_pins, replace, sits_on},
    direction::{DIRECTIONS, Direction},
    maps::{ALLOW, COUNTERS, GATE, PINNED_MAPS, WORD},
    pins::{Pins, running},
    preemption::Counting,
    probe::require_fetching_atomics,
    retire::{move_pins, pins_of, refuse_newer_layout, retire_meter, retire_pins},
    survey::{Seat, meters_on},
};
use crate::drill::{self, Point};

/// The programs as `cargo xtask build` made them: an ELF object for the BPF machine, aligned for the loader.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir-meter.o"));

/// `BPF_FS_MAGIC`.
const BPF_FS: FsType = FsType(0xcafe_4a11);
/// Room for the rare log lines of the programs, in octets; the library's own choice is 128 KiB for each link.
const LOG_OCTETS: u32 = 4096;

/// Which link to meter, and where its pins go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadSpec {
    /// Name of the interface.
    pub link: String,
    /// Directory on a BPF file system.
    pub pin_root: PathBuf,
    /// Epochs of meters that may be replaced although they are not pinned under `pin_root`: the agent knows them for its own.
    pub retire: Vec<u32>,
}

/// How the meter of a link came to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Made anew, with counters at zero: a new epoch, and a shut gate.
    New,
    /// Was pinned already and goes on counting: the same epoch.
    Adopted,
}

/// What a loader has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Whether the epoch is new.
    pub origin: Origin,
    /// The interface that is metered.
    pub ifindex: u32,
    /// Octets that the interface had counted by itself, both directions, just before a new meter was attached; 0 when the meter was
    /// adopted. Link-layer headers are included.
    pub octets_before: u64,
}

impl Loaded {
    /// One line of figures, from the loader to the agent.
    #[must_use]
    pub fn to_line(&self) -> String {
        let origin = match self.origin {
            Origin::New => "new",
            Origin::Adopted => "adopted",
        };
        format!("{origin} {} {}\n", self.ifindex, self.octets_before)
    }

    /// The same, read.
    #[must_use]
    pub fn from_line(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let origin = match words.next()? {
            "new" => Origin::New,
            "adopted" => Origin::Adopted,
            _ => return None,
        };
        Some(Self { origin, ifindex: words.next()?.parse().ok()?, octets_before: words.next()?.parse().ok()? })
    }
}

/// Runs `<executable> datapath-load --link … --pin-root …` and waits for it; its error text becomes the error, and what else it says is logged.
///
/// Blocks for as long as the kernel checks the programs (well under a second). The child stays in the network
/// namespace of the calling thread, and dies with it. `/proc/self/exe` is the agent itself, even after its file was replaced.
pub fn spawn_loader(executable: &Path, spec: &LoadSpec) -> Result<Loaded> {
    let mut command = Command::new(executable);
    command.arg("datapath-load").arg("--link").arg(&spec.link).arg("--pin-root").arg(&spec.pin_root);
    for epoch in &spec.retire {
        command.arg("--retire").arg(epoch.to_string());
    }
    let agent = Pid::this();
    let die_with_the_agent = move || {
        set_pdeathsig(Signal::SIGKILL)?;
        // The agent may have died before the kernel was told.
        if getppid() == agent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    };
    // SAFETY: two system calls between fork and exec, no allocation and no lock.
    unsafe { command.pre_exec(die_with_the_agent) };
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting the loader {}", executable.display()))?;
    let text = String::from_utf8_lossy(&output.stderr);
    match (output.status.success(), text.trim()) {
        (true, text) => {
            if !text.is_empty() {
                tracing::error!(link = spec.link, "{text}");
            }
            let line = String::from_utf8_lossy(&output.stdout);
            Loaded::from_line(&line).with_context(|| format!("the loader for {} said {line:?}", spec.link))
        }
        (false, "") => bail!("the loader for {} ended with {} and said nothing", spec.link, output.status),
        (false, text) => bail!("{text}"),
    }
}

/// Adopts the pinned meter of the link if it is alive on this interface, else makes a new one. Afterwards exactly one
/// meter sits at each hook of the interface, or the answer is an error and nothing new is left behind.
///
/// A new meter is attached before the old one is taken off, ahead of it and shut: there is no moment at which a packet passes
/// uncounted, or is counted twice. What the old one has counted stays, see [`super::retired`].
pub fn load_and_pin(spec: &LoadSpec) -> Result<Loaded> {
    let ifindex = require_interface(&spec.link)?;
    require_privileges()?;
    require_fetching_atomics().with_context(|| format!("{} cannot be metered", spec.link))?;
    make_pin_root(&spec.pin_root)?;
    let _turn = take_turn(&spec.pin_root)?;
    refuse_newer_layout(&spec.pin_root, &spec.link)?;
    let (pins, staged) = (Pins::new(&spec.pin_root, &spec.link), Pins::staged(&spec.pin_root, &spec.link));
    if !is_alive(&pins, &spec.link, ifindex) && is_alive(&staged, &spec.link, ifindex) {
        // A loader has died before it could take the old meter off.
        supersede(spec, &pins, &staged)?;
        // What the interface had counted before that loader came is not known any more; it did not pass unseen by this one.
        return Ok(Loaded { origin: Origin::New, ifindex, octets_before: 0 });
    }
    remove_pins(&staged)?;
    if is_alive(&pins, &spec.link, ifindex) {
        adopt(&pins, &spec.link).with_context(|| format!("adopting the meter of {} from {pins}", spec.link))?;
        assert_both_alone(&spec.link, &pins)?;
        return Ok(Loaded { origin: Origin::Adopted, ifindex, octets_before: 0 });
    }
    refuse_strangers(spec)?;
    let octets_before = make(&staged, &spec.link).map_err(|error| {
        // What was attached goes with its pin; the first error is the one to tell.
        let _ = remove_pins(&staged);
        error.context(format!("metering {}", spec.link))
    })?;
    supersede(spec, &pins, &staged).with_context(|| format!("metering {}", spec.link))?;
    Ok(Loaded { origin: Origin::New, ifindex, octets_before })
}

/// One loader after the other: one whose agent has died may not be gone yet.
fn take_turn(pin_root: &Path) -> Result<Flock<fs::File>> {
    let directory = pin_root.join("new");
    fs::create_dir_all(&directory).with_context(|| format!("making the directory {}", directory.display()))?;
    let file = fs::File::open(&directory).with_context(|| format!("opening {}", directory.display()))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .with_context(|| format!("waiting for another loader at {}", directory.display()))
}

/// Fails, before anything is touched, when a meter sits on the interface that is neither pinned here nor known to the agent.
fn refuse_strangers(spec: &LoadSpec) -> Result<()> {
    let pinned = pins_of(&spec.pin_root, &spec.link);
    let programs: Vec<u32> =
        pinned.iter().flat_map(|(_, pins)| DIRECTIONS.map(|direction| running(pins, direction))).flatten().collect();
    let epochs: Vec<u32> = pinned.iter().filter_map(|(_, pins)| epoch(pins).ok()).chain(spec.retire.clone()).collect();
    for meter in meters_on(&spec.link)? {
        let is_ours = |(_, seat): &(Direction, Seat)| programs.contains(&seat.program_id);
        let stranger = meter.seats.iter().find(|seat| !is_ours(seat));
        if let Some((direction, seat)) = stranger.filter(|_| !epochs.contains(&meter.epoch_id)) {
            bail!(
                "{} carries another meter at its {direction} hook (program {}, epoch {}), which is neither pinned under \
                 {} nor known to the ledger; a second one would count every packet again. Let the agent that made it settle, \
                 or take it off (bpftool link detach, tc filter del), and start again",
                spec.link,
                seat.program_id,
                meter.epoch_id,
                spec.pin_root.display()
            );
        }
    }
    Ok(())
}

/// Retires every meter on the interface but the staged one, which then takes the place of the pins.
fn supersede(spec: &LoadSpec, pins: &Pins, staged: &Pins) -> Result<()> {
    drill::pass(Point::Staged);
    for (version, old) in pins_of(&spec.pin_root, &spec.link) {
        retire_pins(&spec.pin_root, version, &old)?;
    }
    let new: Vec<u32> = DIRECTIONS.iter().filter_map(|direction| running(staged, *direction).ok()).collect();
    for meter in meters_on(&spec.link)? {
        if !meter.seats.iter().any(|(_, seat)| new.contains(&seat.program_id)) {
            retire_meter(&spec.pin_root, &meter)?;
        }
    }
    drill::pass(Point::Superseded);
    move_pins(staged, pins)?;
    assert_both_alone(&spec.link, pins)
}

/// Tells whether all pins are there, of the layout known here, and the programs still sit on this very interface.
fn is_alive(pins: &Pins, interface: &str, ifindex: u32) -> bool {
    let maps_fit = PINNED_MAPS.iter().all(|name| {
        MapInfo::from_pin(pins.map(name)).is_ok_and(|map| value_size(name).is_none_or(|size| map.value_size() == size))
    });
    maps_fit && sits_on(pins, interface, ifindex)
}

fn value_size(map: &str) -> Option<u32> {
    let size = match map {
        COUNTERS => size_of::<Counters>(),
        WORD => size_of::<Word>(),
        GATE => size_of::<Gate>(),
        ALLOW => size_of::<u8>(),
        _ => return None,
    };
    u32::try_from(size).ok()
}

fn adopt(pins: &Pins, interface: &str) -> Result<()> {
    let mut object = load_object(pins)?;
    for direction in DIRECTIONS {
        let program = load_program(&mut object, direction)?;
        let running = ProgramInfo::from_pin(pins.program(direction)).map(|info| info.tag());
        // A tag is a hash of the instructions: the same tag is the same program.
        if running.is_ok_and(|tag| program.info().is_ok_and(|info| info.tag() == tag)) {
            continue;
        }
        replace(program, interface, direction, pins)?;
        if direction == Direction::Uplink {
            drill::pass(Point::UplinkReplaced);
        }
    }
    Ok(())
}

/// Answers with what the interface had counted before the first program was attached.
fn make(pins: &Pins, interface: &str) -> Result<u64> {
    fs::create_dir_all(pins.directory()).with_context(|| format!("making the directory {pins}"))?;
    let mut object = load_object(pins)?;
    // Both must have been accepted before the first is attached.
    for direction in DIRECTIONS {
        load_program(&mut object, direction)?;
    }
    drill::pass(Point::MapsPinned);
    let octets_before = interface_octets(interface)?;
    for direction in DIRECTIONS {
        attach(program(&mut object, direction)?, interface, direction, pins)?;
        if direction == Direction::Uplink {
            drill::pass(Point::UplinkAttached);
        }
    }
    Ok(octets_before)
}

/// What the interface has counted by itself, received and sent (the figures of `IFLA_STATS64`).
fn interface_octets(interface: &str) -> Result<u64> {
    // Of the namespace of this very thread.
    let text = fs::read_to_string("/proc/thread-self/net/dev").context("reading /proc/thread-self/net/dev")?;
    octets_in(&text, interface).with_context(|| format!("/proc/thread-self/net/dev has no {interface}"))
}

fn octets_in(text: &str, interface: &str) -> Option<u64> {
    let figures = text.lines().find_map(|line| line.trim_start().strip_prefix(interface)?.strip_prefix(':'))?;
    let figures: Vec<u64> = figures.split_whitespace().map_while(|figure| figure.parse().ok()).collect();
    // Octets come first in both halves, of eight figures each.
    Some(figures.first()?.saturating_add(*figures.get(8)?))
}

fn assert_both_alone(interface: &str, pins: &Pins) -> Result<()> {
    DIRECTIONS.iter().try_for_each(|direction| assert_alone(interface, *direction, pins))
}

/// Reads the object and makes its maps, or takes those that are pinned.
fn load_object(pins: &Pins) -> Result<Ebpf> {
    let mut loader = Counting::of_this_kernel().loader();
    loader.map_max_entries("AYA_LOGS", LOG_OCTETS);
    for name in PINNED_MAPS {
        loader.map_pin_path(name, pins.map(name));
    }
    loader.load(OBJECT).with_context(|| format!("making the maps of {pins}"))
}

fn load_program(object: &mut Ebpf, direction: Direction) -> Result<&mut SchedClassifier> {
    let program = program(object, direction)?;
    program.load().with_context(|| format!("loading the {direction} program into the kernel"))?;
    Ok(program)
}

fn program(object: &mut Ebpf, direction: Direction) -> Result<&mut SchedClassifier> {
    let name = direction.program_name();
    let program = object.program_mut(name).with_context(|| format!("the object has no program {name}"))?;
    program.try_into().with_context(|| format!("{name} is no TC program"))
}

fn require_interface(link: &str) -> Result<u32> {
    nix::net::if_::if_nametoindex(link).map_err(|_| {
        let names = nix::net::if_::if_nameindex().map(|interfaces| {
            interfaces.iter().map(|interface| interface.name().to_string_lossy().into_owned()).collect::<Vec<_>>()
        });
        anyhow::anyhow!("there is no interface {link}; there are: {}", names.unwrap_or_default().join(", "))
    })
}

/// Linux capabilities (`capability.h`): each bit and its name.
const CAP_NET_ADMIN: (u32, &str) = (12, "CAP_NET_ADMIN");
const CAP_SYS_ADMIN: (u32, &str) = (21, "CAP_SYS_ADMIN");
const CAP_PERFMON: (u32, &str) = (38, "CAP_PERFMON");
const CAP_BPF: (u32, &str) = (39, "CAP_BPF");

fn require_privileges() -> Result<()> {
    let status = fs::read_to_string("/proc/self/status").context("reading /proc/self/status")?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|value| u64::from_str_radix(value.trim(), 16).ok())
        .context("/proc/self/status has no CapEff")?;
    let missing = missing_capabilities(effective);
    ensure!(
        missing.is_empty(),
        "loading the meter needs {}; run weir as root (sudo), or give it these capabilities",
        missing.join(", ")
    );
    Ok(())
}

fn missing_capabilities(effective: u64) -> Vec<&'static str> {
    let has = |(bit, _): (u32, &str)| effective & (1 << bit) != 0;
    // Before Linux 5.8 CAP_SYS_ADMIN was the right to load programs, and it still includes it. It alone is the right to open programs
    // and maps by number, which is wanted for what is not pinned where we look: others at the hook, pins out of sight, the log.
    let needed: &[_] = if has(CAP_SYS_ADMIN) { &[CAP_NET_ADMIN] } else { &[CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON] };
    needed.iter().filter(|capability| !has(**capability)).map(|(_, name)| *name).collect()
}

/// Fails, saying what to type, when pins could not be made there.
pub fn require_bpffs(pin_root: &Path) -> Result<()> {
    let existing = pin_root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let directory = fs::File::open(existing).with_context(|| format!("opening {}", existing.display()))?;
    let kind = fstatfs(directory.as_fd()).with_context(|| format!("asking about {}", existing.display()))?;
    if kind.filesystem_type() != BPF_FS {
        let standard = Path::new("/sys/fs/bpf");
        let place = if pin_root.starts_with(standard) { standard } else { pin_root };
        bail!(
            "{} is not on a BPF file system, so the meter could not outlive the agent; type: mount -t bpf bpf {}",
            pin_root.display(),
            place.display()
        );
    }
    Ok(())
}

/// Makes the directory of the pins, on a BPF file system only: elsewhere a pin cannot be made.
pub fn make_pin_root(pin_root: &Path) -> Result<()> {
    require_bpffs(pin_root)?;
    match fs::create_dir_all(pin_root) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("making the directory {}", pin_root.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_missing_capabilities_are_named() {
        assert_eq!(missing_capabilities(0), ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"]);
        assert_eq!(missing_capabilities(1 << 21), ["CAP_NET_ADMIN"]);
        assert!(missing_capabilities(1 << 12 | 1 << 38 | 1 << 39).is_empty());
    }

    #[test]
    fn what_the_loader_has_done_is_told_in_a_line() {
        for loaded in [
            Loaded { origin: Origin::New, ifindex: 7, octets_before: u64::MAX },
            Loaded { origin: Origin::Adopted, ifindex: 1, octets_before: 0 },
        ] {
            assert_eq!(Loaded::from_line(&loaded.to_line()), Some(loaded));
        }
        assert_eq!(Loaded::from_line("new 7"), None);
    }

    #[test]
    fn an_interface_is_read_by_its_whole_name() {
        let text = "Inter-|   Receive\n face |bytes\n  wan0:  10 1 0 0 0 0 0 0  5 1 0 0 0 0 0 0\n wan:1 1 0 0 0 0 0 0 2 1 0 0 0 0 0 0\n";
        assert_eq!(octets_in(text, "wan0"), Some(15));
        assert_eq!(octets_in(text, "wan"), Some(3));
        assert_eq!(octets_in(text, "an0"), None);
    }

    #[test]
    fn the_text_of_a_loader_that_fails_is_the_error() {
        let spec = LoadSpec { link: "wwan0".to_owned(), pin_root: PathBuf::from("/sys/fs/bpf/weir"), retire: vec![] };
        // A shell takes the first argument for a script and does not find it.
        let error = spawn_loader(Path::new("/bin/sh"), &spec).unwrap_err().to_string();
        assert!(error.contains("datapath-load"), "{error}");
        let error = spawn_loader(Path::new("/bin/false"), &spec).unwrap_err().to_string();
        assert!(error.starts_with("the loader for wwan0 ended with"), "{error}");
    }

    #[test]
    fn an_unknown_interface_is_answered_with_those_that_exist() {
        let error = require_interface("no-such-link").unwrap_err().to_string();
        assert!(error.starts_with("there is no interface no-such-link; there are: "), "{error}");
    }

    #[test]
    fn another_file_system_is_answered_with_what_to_type() {
        let directory = tempfile::tempdir().unwrap();
        let error = make_pin_root(directory.path()).unwrap_err().to_string();
        assert!(error.ends_with(&format!("type: mount -t bpf bpf {}", directory.path().display())), "{error}");
    }
}

//! One registry of everything made outside this process, emptied on drop, at exit, on Ctrl-C and, for the dead, at the next start.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};

use crate::eventually::eventually;

/// Every name that the harness gives outside its own process starts so; the process id follows.
pub(crate) const PREFIX: &str = "weir-";

/// Where `ip netns` keeps its names.
pub(crate) const NETNS_DIR: &str = "/run/netns";

/// Something that outlives this process unless it is removed. The order is the order of removal at the end.
#[derive(Debug)]
pub(crate) enum Resource {
    /// A child; the pid file descriptor means this very process, even after its number was given to another.
    Process(OwnedFd),
    /// A name under [`NETNS_DIR`].
    Netns(String),
    /// A mount point.
    Mount(PathBuf),
    /// A directory with all it holds.
    Dir(PathBuf),
}

impl Resource {
    const fn rank(&self) -> u8 {
        match self {
            Self::Process(_) => 0,
            Self::Netns(_) => 1,
            Self::Mount(_) => 2,
            Self::Dir(_) => 3,
        }
    }

    /// Removes it; what is gone already is no error.
    fn remove(self) {
        match self {
            Self::Process(pidfd) => kill_by_pidfd(&pidfd),
            Self::Netns(name) => remove_netns(&name),
            Self::Mount(path) => drop(umount2(&path, MntFlags::MNT_DETACH)),
            Self::Dir(path) => drop(fs::remove_dir_all(path)),
        }
    }
}

/// Removes its resource when dropped.
#[derive(Debug)]
pub(crate) struct Registration(u64);

impl Drop for Registration {
    fn drop(&mut self) {
        let resource = registry().resources.remove(&self.0);
        if let Some(resource) = resource {
            resource.remove();
        }
    }
}

struct Registry {
    next: u64,
    resources: BTreeMap<u64, Resource>,
    hooks: Vec<Box<dyn FnOnce() + Send>>,
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry { next: 0, resources: BTreeMap::new(), hooks: Vec::new() });

/// The write end of the pipe by which the signal handler wakes the thread that cleans up.
static SIGNAL_PIPE: AtomicI32 = AtomicI32::new(-1);

/// A name of our own that nobody else has: `weir-<pid>-<n>-<label>`.
pub(crate) fn unique_name(label: &str) -> String {
    let mut registry = registry();
    registry.next += 1;
    format!("{PREFIX}{}-{}-{label}", std::process::id(), registry.next)
}

/// Makes a resource and registers it in one step, so that an interrupt sees it either not at all or registered.
pub(crate) fn register<T>(resource: Resource, create: impl FnOnce() -> Result<T>) -> Result<(T, Registration)> {
    install();
    let mut registry = registry();
    let made = match create() {
        Ok(made) => made,
        Err(error) => {
            resource.remove();
            return Err(error);
        }
    };
    registry.next += 1;
    let id = registry.next;
    registry.resources.insert(id, resource);
    Ok((made, Registration(id)))
}

/// Has `hook` run before everything is removed on Ctrl-C: for a terminal that must be set right first.
pub fn before_interrupt_exit(hook: impl FnOnce() + Send + 'static) {
    install();
    registry().hooks.push(Box::new(hook));
}

/// Removes namespaces, mounts and directories of harness processes that live no more. Called by itself at the first use.
pub fn sweep() {
    for name in names_of_the_dead(Path::new(NETNS_DIR)) {
        remove_netns(&name);
    }
    let temporary = std::env::temp_dir();
    for name in names_of_the_dead(&temporary) {
        let dir = temporary.join(name);
        for point in mounts_under(&dir) {
            Resource::Mount(point).remove();
        }
        Resource::Dir(dir).remove();
    }
}

/// The mount points under a directory, the innermost first (proc(5), mountinfo).
fn mounts_under(dir: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut points: Vec<_> = points.filter(|point| point.starts_with(dir)).collect();
    points.reverse();
    points
}

/// The names under [`NETNS_DIR`] and the temporary directory that process `pid` has left there or still uses.
#[must_use]
pub fn names_of(pid: u32) -> Vec<String> {
    let temporary = std::env::temp_dir();
    [Path::new(NETNS_DIR), &temporary].into_iter().flat_map(entries).filter(|name| owner(name) == Some(pid)).collect()
}

fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Once per process: sweep, and be there for interrupts and for the exit.
fn install() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        sweep();
        // A process that cannot have the handler can still clean up by its drop guards.
        let _ = watch_signals();
        // SAFETY: the function has C linkage, takes nothing and does not unwind.
        unsafe { libc::atexit(at_exit) };
    });
}

extern "C" fn at_exit() {
    // A leak of guards (an exit in the middle of a run) ends here. Somebody who holds the lock is cleaning up already.
    if let Ok(mut registry) = REGISTRY.try_lock() {
        remove_all(&mut registry);
    }
}

fn remove_all(registry: &mut Registry) {
    let mut resources: Vec<_> = std::mem::take(&mut registry.resources).into_values().collect();
    resources.sort_by_key(Resource::rank);
    resources.into_iter().for_each(Resource::remove);
}

fn watch_signals() -> Result<()> {
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).context("pipe for signals")?;
    SIGNAL_PIPE.store(writer.as_raw_fd(), Ordering::SeqCst);
    // The handler uses it as long as the process lives.
    std::mem::forget(writer);
    std::thread::Builder::new().name("cleanup".into()).spawn(move || end_on_signal(reader))?;
    let action = SigAction::new(SigHandler::Handler(on_signal), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only writes one octet to a pipe, which is async-signal-safe.
        unsafe { sigaction(signal, &action) }.with_context(|| format!("handler for {signal}"))?;
    }
    Ok(())
}

extern "C" fn on_signal(signal: libc::c_int) {
    let number = u8::try_from(signal).unwrap_or(0);
    // SAFETY: one octet from a live local variable to a pipe that is never closed.
    unsafe { libc::write(SIGNAL_PIPE.load(Ordering::SeqCst), (&raw const number).cast(), 1) };
}

/// Waits for the first signal, removes everything, and dies of that very signal. The lock is never given back, so nothing new is made.
fn end_on_signal(reader: OwnedFd) {
    let mut number = [0_u8];
    if fs::File::from(reader).read_exact(&mut number).is_err() {
        return;
    }
    let mut registry = registry();
    for hook in std::mem::take(&mut registry.hooks) {
        hook();
    }
    remove_all(&mut registry);
    let signal = Signal::try_from(i32::from(number[0])).unwrap_or(Signal::SIGTERM);
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of ours.
    let _ = unsafe { sigaction(signal, &default) };
    let _ = raise(signal);
    // A blocked signal would leave us here.
    std::process::abort();
}

/// A descriptor that means process `pid` for as long as it is open.
pub(crate) fn pidfd(pid: u32) -> Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and answers with a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(pid), 0) };
    let fd = i32::try_from(fd).unwrap_or(-1);
    ensure!(fd >= 0, "pidfd_open({pid}): {}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just given us this descriptor, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn kill_by_pidfd(pidfd: &OwnedFd) {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open, a null siginfo means an ordinary signal.
    unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), libc::SIGKILL, no_info, 0) };
}

/// Kills what still lives in the namespace, one by one, then takes the name away as `ip netns del` does.
fn remove_netns(name: &str) {
    let path = Path::new(NETNS_DIR).join(name);
    // Without a process left in it the namespace itself goes with its name.
    let _ = eventually("an empty namespace", Duration::from_secs(2), || {
        let inside = processes_inside(&path);
        inside.iter().filter_map(|pid| pidfd(*pid).ok()).for_each(|pidfd| kill_by_pidfd(&pidfd));
        ensure!(inside.is_empty(), "{inside:?} still there");
        Ok(())
    });
    let _ = umount2(&path, MntFlags::MNT_DETACH);
    let _ = fs::remove_file(&path);
}

/// Processes other than ours whose network namespace is the one at `path`.
fn processes_inside(path: &Path) -> Vec<u32> {
    let Ok(wanted) = fs::metadata(path) else { return Vec::new() };
    // Before the bind mount is there it is a plain file, and nobody's namespace.
    entries(Path::new("/proc"))
        .filter_map(|name| name.parse::<u32>().ok())
        .filter(|pid| *pid != std::process::id())
        .filter(|pid| {
            fs::metadata(format!("/proc/{pid}/ns/net"))
                .is_ok_and(|found| (found.dev(), found.ino()) == (wanted.dev(), wanted.ino()))
        })
        .collect()
}

fn names_of_the_dead(dir: &Path) -> Vec<String> {
    entries(dir).filter(|name| owner(name).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())).collect()
}

fn entries(dir: &Path) -> impl Iterator<Item = String> + use<> {
    fs::read_dir(dir).into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok())
}

/// The process id in a name that [`unique_name`] gave.
fn owner(name: &str) -> Option<u32> {
    let mut parts = name.strip_prefix(PREFIX)?.splitn(3, '-');
    let pid = parts.next()?.parse().ok()?;
    parts.next()?.parse::<u64>().ok()?;
    Some(pid)
}

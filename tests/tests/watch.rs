//! `weir watch` on a terminal of its own: what it shows, through a crash of the agent and another size, and that it gives the terminal back.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use e2e::eventually::eventually;
use e2e::process::binary;
use e2e::scenario::{Plot, SOON, World, chunked};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What stands in the heading, and nowhere else. Words are looked for one by one: a blank that is there already is not written.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Has a terminal show another screen until the first one is wanted back (xterm's private mode 1049).
const OTHER_SCREEN: &str = "\u{1b}[?1049h";

/// Both ends of a terminal, and all that was ever written to it.
struct Terminal {
    master: File,
    slave: OwnedFd,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn open(columns: u16, rows: u16) -> Result<Self> {
        let (mut master, mut slave) = (-1, -1);
        let size = size(columns, rows);
        // SAFETY: the kernel fills in two descriptors, and reads the size; the null pointers leave the rest as it is.
        let made = unsafe {
            libc::openpty(&raw mut master, &raw mut slave, std::ptr::null_mut(), std::ptr::null(), &raw const size)
        };
        ensure!(made == 0, "no terminal: {}", std::io::Error::last_os_error());
        // SAFETY: both were opened just now, and are nobody else's.
        let (master, slave) = unsafe { (File::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut reading, ours) = (master.try_clone()?, Arc::clone(&seen));
        // It ends when the terminal does.
        thread::spawn(move || {
            let mut octets = [0; 4096];
            while let Ok(count @ 1..) = reading.read(&mut octets) {
                ours.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&octets[..count]);
            }
        });
        Ok(Self { master, slave, seen })
    }

    /// How often this word was written.
    fn count(&self, words: &str) -> usize {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&seen).matches(words).count()
    }

    fn shows(&self, words: &str, times: usize) -> Result<()> {
        eventually(&format!("the terminal to show {words:?}"), SOON, || {
            ensure!(self.count(words) >= times, "{} times", self.count(words));
            Ok(())
        })
    }

    /// How the terminal treats what is typed.
    fn mode(&self) -> Result<(u32, u32, u32)> {
        // SAFETY: all-zero is a valid value, which the kernel fills in.
        let mut mode: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: the descriptor is open, and `mode` is ours.
        let asked = unsafe { libc::tcgetattr(self.slave.as_raw_fd(), &raw mut mode) };
        ensure!(asked == 0, "{}", std::io::Error::last_os_error());
        Ok((mode.c_iflag, mode.c_oflag, mode.c_lflag))
    }

    fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        let size = size(columns, rows);
        // SAFETY: the kernel reads the size.
        let set = unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        ensure!(set == 0, "{}", std::io::Error::last_os_error());
        Ok(())
    }

    /// Starts `weir watch` on it, as a shell would.
    fn watch(&self, world: &World) -> Result<Child> {
        let mut command = world.topology.gateway.command(binary("weir")?);
        command.arg("watch").arg("--socket").arg(world.workdir.path().join("weir.sock")).env("TERM", "xterm-256color");
        command.stdin(self.slave.try_clone()?).stdout(self.slave.try_clone()?).stderr(Stdio::piped());
        let take_terminal = || {
            nix::unistd::setsid()?;
            // SAFETY: standard input is the terminal, which is nobody's yet.
            match unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: two system calls between fork and exec, no allocation and no lock.
        unsafe { command.pre_exec(take_terminal) };
        command.spawn().context("weir watch")
    }
}

const fn size(columns: u16, rows: u16) -> libc::winsize {
    libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

fn ends_well(mut watch: Child, terminal: &Terminal, before: (u32, u32, u32)) -> Result<()> {
    let ended = eventually("weir watch to end", SOON, || watch.try_wait()?.context("it goes on"));
    if ended.is_err() {
        watch.kill()?;
    }
    let status = ended?;
    let mut said = String::new();
    watch.stderr.take().context("its standard error")?.read_to_string(&mut said)?;
    ensure!(status.success(), "{status}: {said}");
    ensure!(terminal.mode()? == before, "the terminal was not given back: {:?}, before {before:?}", terminal.mode()?);
    Ok(())
}

#[test]
fn watch_lives_through_the_agents_restart_and_gives_the_terminal_back() -> Result<()> {
    let mut world = World::online(&Plot::of(chunked(1 << 30, 2 << 20)))?;
    let terminal = Terminal::open(100, 30)?;
    let before = terminal.mode()?;
    let watch = terminal.watch(&world)?;
    terminal.shows("ACTIVE", 1)?;
    terminal.shows("used,", 1)?;
    ensure!(terminal.mode()? != before, "keys are read one by one");
    world.kill_agent()?;
    terminal.shows("ANSWER", 1)?;
    let headings = terminal.count(VERSION);
    world.start_agent(&[])?;
    terminal.shows(VERSION, headings + 1)?;
    terminal.resize(60, 12)?;
    (&terminal.master).write_all(b"?")?;
    terminal.shows("another", 1)?;
    (&terminal.master).write_all(b"?q")?;
    ends_well(watch, &terminal, before)?;

    // From here on it minds signals.
    let screens = terminal.count(OTHER_SCREEN);
    let watch = terminal.watch(&world)?;
    terminal.shows(OTHER_SCREEN, screens + 1)?;
    kill(Pid::from_raw(i32::try_from(watch.id())?), Signal::SIGTERM)?;
    ends_well(watch, &terminal, before)?;
    world.stop_agent()
}

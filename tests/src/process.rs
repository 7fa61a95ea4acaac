//! The real binaries as actors of a scenario: started in a namespace, listened to, signalled, and never left behind.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bpffs::Workdir;
use crate::cleanup::{self, Registration, Resource};
use crate::eventually::eventually;
use crate::netns::Namespace;

/// How long a binary may take to say that it is ready.
const READY: Duration = Duration::from_secs(15);

/// How much of a log is shown when an actor goes, in octets.
const TAIL: usize = 6000;

/// Whether logs are shown when an actor goes; libtest keeps them back unless the test fails.
static LOGS_ON_DROP: AtomicBool = AtomicBool::new(true);

/// Has actors go without showing their logs: for a program whose terminal is its own.
pub fn keep_logs_silent() {
    LOGS_ON_DROP.store(false, Ordering::SeqCst);
}

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Actor {
    name: String,
    child: Child,
    stdout: Log,
    stderr: Log,
    ended: Option<ExitStatus>,
    registration: Option<Registration>,
}

/// A file that a program writes to, from where this run of it began.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    from: u64,
}

impl Actor {
    /// Starts `command` (see [`Namespace::command`]) with its words going to `NAME.out` and `NAME.err` in `workdir`.
    pub fn start(name: &str, mut command: Command, workdir: &Workdir) -> Result<Self> {
        let open = |kind: &str| -> Result<(Log, File)> {
            let path = workdir.path().join(format!("{name}.{kind}"));
            let file = OpenOptions::new().create(true).append(true).open(&path);
            let file = file.with_context(|| format!("open {}", path.display()))?;
            Ok((Log { from: file.metadata()?.len(), path }, file))
        };
        let ((stdout, out), (stderr, err)) = (open("out")?, open("err")?);
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let child = spawn(command).with_context(|| format!("start {name}"))?;
        let pidfd = cleanup::pidfd(child.id())?;
        let ((), registration) = cleanup::register(Resource::Process(pidfd), || Ok(()))?;
        Ok(Self { name: name.into(), child, stdout, stderr, ended: None, registration: Some(registration) })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed since its start.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.read()
    }

    /// What it has logged since its start.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.read()
    }

    /// Waits until it has printed or logged a line with `text` in it, and answers the line.
    pub fn wait_for_line(&mut self, text: &str, limit: Duration) -> Result<String> {
        let what = format!("{} to say {text:?}", self.name);
        let found = eventually(&what, limit, || {
            let ended = self.exited()?;
            let said = self.stdout() + &self.stderr();
            match said.lines().find(|line| line.contains(text)) {
                Some(line) => Ok(Some(line.to_owned())),
                // No use in waiting longer.
                None if ended.is_some() => Ok(None),
                None => bail!("it has not said so"),
            }
        })?;
        found.with_context(|| format!("{what}: it has ended, {:?}: {}", self.ended, self.stderr()))
    }

    /// Sends it a signal.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        ensure!(self.exited()?.is_none(), "{} has ended already, {:?}", self.name, self.ended);
        kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)
            .with_context(|| format!("{signal} to {}", self.name))
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        eventually(&format!("{} to end", self.name), limit, || self.exited()?.context("it still runs"))
    }

    /// Kills it at once, as a crash would, and waits until it is gone.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGKILL)?;
        self.wait(READY)
    }

    /// Asks it to end and waits until it has.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(limit)
    }

    /// How it has ended, if it has.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().with_context(|| format!("wait for {}", self.name))?;
        }
        Ok(self.ended)
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // Kills by its pid file descriptor.
        drop(self.registration.take());
        let _ = self.child.wait();
        if LOGS_ON_DROP.load(Ordering::SeqCst) {
            #[expect(clippy::print_stderr, reason = "libtest shows it with the test that failed")]
            for (kind, text) in [("out", self.stdout()), ("err", self.stderr())] {
                let tail = text.get(text.len().saturating_sub(TAIL)..).unwrap_or(&text);
                eprintln!("--- {}.{kind}\n{tail}", self.name);
            }
        }
    }
}

impl Log {
    /// Only this run's part: a program that was started a hundred times has written a long file.
    fn read(&self) -> String {
        let mut octets = Vec::new();
        if let Ok(mut file) = File::open(&self.path)
            && file.seek(SeekFrom::Start(self.from)).is_ok()
        {
            // What cannot be read was not said.
            let _ = file.read_to_end(&mut octets);
        }
        String::from_utf8_lossy(&octets).into_owned()
    }
}

/// The charging server.
#[derive(Debug)]
pub struct WeirServer {
    /// Its process.
    pub actor: Actor,
    /// `http://ADDRESS` or `https://ADDRESS`, as it announced itself.
    pub url: String,
    /// The address in it.
    pub address: SocketAddr,
}

impl WeirServer {
    /// Starts `weir-server ARGS` in `namespace` and waits until it listens.
    pub fn start(namespace: &Namespace, workdir: &Workdir, args: &[&str]) -> Result<Self> {
        let mut command = namespace.command(binary("weir-server")?);
        command.args(args).current_dir(workdir.path());
        let mut actor = Actor::start("weir-server", command, workdir)?;
        let line = actor.wait_for_line("listening on http", READY)?;
        let url = line.split_once("listening on ").map_or("", |(_, url)| url).trim().trim_end_matches('/').to_owned();
        let address = url.split_once("://").map_or("", |(_, address)| address);
        let address = address.parse().with_context(|| format!("an address in {line:?}"))?;
        Ok(Self { actor, url, address })
    }
}

/// The agent.
#[derive(Debug)]
pub struct Weir {
    /// Its process.
    pub actor: Actor,
}

impl Weir {
    /// Starts `weir run --config CONFIG ARGS` in `namespace`; what it is to be waited for, the scenario knows.
    pub fn start(namespace: &Namespace, workdir: &Workdir, config: &Path, args: &[&str]) -> Result<Self> {
        Self::begin(Self::command(namespace, workdir, config, args)?, workdir)
    }

    /// What starts it.
    pub fn command(namespace: &Namespace, workdir: &Workdir, config: &Path, args: &[&str]) -> Result<Command> {
        let mut command = namespace.command(binary("weir")?);
        command.args(["run", "--config"]).arg(config).args(args).current_dir(workdir.path());
        Ok(command)
    }

    /// Starts what [`Self::command`] has made.
    pub fn begin(command: Command, workdir: &Workdir) -> Result<Self> {
        Ok(Self { actor: Actor::start("weir", command, workdir)? })
    }
}

/// The path of one of the project's binaries: beside the running program or one folder up, where cargo puts them.
pub fn binary(name: &str) -> Result<PathBuf> {
    let here = std::env::current_exe().context("where this program is")?;
    let candidates = here.ancestors().skip(1).take(2).map(|dir| dir.join(name));
    candidates
        .clone()
        .find(|path| path.is_file())
        .with_context(|| format!("no `{name}` near {}: build it first, or run `cargo xtask test`", here.display()))
}

/// What the spawning thread is asked for, and where it answers.
type Order = (Command, Sender<std::io::Result<Child>>);

/// Spawns from a thread that lives as long as this process: the child's death signal is tied to the *thread* that made it (prctl(2)).
fn spawn(command: Command) -> Result<Child> {
    static SPAWNER: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in inbox {
                // Whoever asked is waiting.
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    let (answer, child) = channel();
    let orders = spawner.lock().unwrap_or_else(PoisonError::into_inner);
    orders.send((command, answer)).context("the spawning thread is gone")?;
    drop(orders);
    Ok(child.recv().context("the spawning thread is gone")??)
}

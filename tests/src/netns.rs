//! A network namespace with a name a person can look at, quiet by its settings, entered thread by thread or by a new process.

use std::fs::{self, File};
use std::future::Future;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::panic::resume_unwind;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, geteuid, getpid, getppid};
use socket2::{Domain, Socket, Type};

use crate::cleanup::{self, NETNS_DIR, Registration, Resource};

/// Settings under which a namespace sends nothing of its own accord: exact counts bear no stray packet.
/// (Listener reports for multicast groups cannot be switched off; they are made few and quick.)
const QUIET: [(&str, &str); 13] = [
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/ip_local_port_range", "32768 60999"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/dad_transmits", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/addr_gen_mode", "1"),
    ("ipv6/conf/default/router_solicitations", "0"),
    ("ipv6/conf/default/keep_addr_on_down", "1"),
    ("ipv6/conf/all/keep_addr_on_down", "1"),
    ("ipv6/conf/default/mldv1_unsolicited_report_interval", "1"),
    ("ipv6/conf/default/mldv2_unsolicited_report_interval", "1"),
];

/// TCP looks every second whether a gate has opened again, instead of every two minutes, and does not give up for two.
/// (The first of these exists since Linux 6.15; without it a scenario is slower, and no less right.)
const PATIENT: [(&str, &str); 3] =
    [("ipv4/tcp_rto_max_ms", "1000"), ("ipv4/tcp_retries2", "120"), ("ipv4/tcp_syn_retries", "60")];

/// What a program in a namespace cannot reach, and would try to.
const PROXIES: [&str; 6] = ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];

/// A network namespace of our own. It is removed, with the processes in it, when the last clone of this handle is dropped.
#[derive(Debug, Clone)]
pub struct Namespace(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    file: Arc<File>,
    _registration: Registration,
}

impl Namespace {
    /// Makes `weir-<pid>-<n>-<label>` with `lo` up. Needs root.
    pub fn new(label: &str) -> Result<Self> {
        require_root()?;
        let name = cleanup::unique_name(label);
        let ((), registration) =
            cleanup::register(Resource::Netns(name.clone()), || run("ip", &["netns", "add", &name], "").map(drop))?;
        let path = format!("{NETNS_DIR}/{name}");
        let file = Arc::new(File::open(&path).with_context(|| format!("open {path}"))?);
        let namespace = Self(Arc::new(Inner { name, file, _registration: registration }));
        for (key, value) in QUIET {
            namespace.sysctl(key, value)?;
        }
        for (key, value) in PATIENT {
            if namespace.run_in(|| fs::exists(format!("/proc/sys/net/{key}")))?? {
                namespace.sysctl(key, value)?;
            }
        }
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// The name under /run/netns, for `ip netns exec` and `ip -n`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Runs `work` on a thread of its own inside the namespace (only the network is another there) and waits for it.
    pub fn run_in<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let file = &self.0.file;
        let enter = move || -> Result<T> {
            setns(file.as_fd(), CloneFlags::CLONE_NEWNET).context("setns")?;
            Ok(work())
        };
        std::thread::scope(|scope| scope.spawn(enter).join())
            .unwrap_or_else(|panic| resume_unwind(panic))
            .with_context(|| format!("enter namespace {}", self.0.name))
    }

    /// Runs a future to its end inside the namespace, on a runtime of its own.
    pub fn block_on<T: Send>(&self, future: impl Future<Output = T> + Send) -> Result<T> {
        self.run_in(|| -> Result<T> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
            Ok(runtime.block_on(future))
        })?
    }

    /// A command that will run inside the namespace and that dies with the thread that spawns it, so nothing survives a test.
    /// (`process::Actor` spawns from a thread that lives as long as this process.)
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let file = Arc::clone(&self.0.file);
        let parent = getpid();
        let mut command = Command::new(program);
        for proxy in PROXIES {
            command.env_remove(proxy);
        }
        // SAFETY: between fork and exec only system calls are made, no allocation and no lock.
        unsafe { command.pre_exec(move || enter_child(&file, parent)) };
        command
    }

    /// Runs `ip -n NAME ARGS`, ARGS split at blanks, and answers what it printed.
    pub fn ip(&self, args: &str) -> Result<String> {
        self.tool("ip", args)
    }

    /// Runs `tc -n NAME ARGS`, ARGS split at blanks, and answers what it printed.
    pub fn tc(&self, args: &str) -> Result<String> {
        self.tool("tc", args)
    }

    fn tool(&self, program: &str, args: &str) -> Result<String> {
        let mut all = vec!["-n", &self.0.name];
        all.extend(args.split_whitespace());
        run(program, &all, "")
    }

    /// Runs many `ip` commands at once, one a line.
    pub fn ip_batch(&self, script: &str) -> Result<()> {
        run("ip", &["-n", &self.0.name, "-batch", "-"], script).map(drop)
    }

    /// Writes a value to `/proc/sys/net/KEY` of this namespace.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/net/{key}");
        self.run_in(|| fs::write(&path, value))?.with_context(|| format!("write {value} to {path}"))
    }

    /// A socket that belongs to this namespace wherever it is used afterwards.
    pub fn socket(&self, domain: Domain, kind: Type) -> Result<Socket> {
        self.run_in(|| Socket::new(domain, kind, None))?.with_context(|| format!("socket in {}", self.0.name))
    }

    /// The kernel's index of the interface called `interface`.
    pub fn ifindex(&self, interface: &str) -> Result<u32> {
        self.run_in(|| nix::net::if_::if_nametoindex(interface))?
            .with_context(|| format!("interface {interface} in {}", self.0.name))
    }
}

/// Says clearly what is missing where a namespace cannot be made.
pub fn require_root() -> Result<()> {
    ensure!(geteuid().is_root(), "network namespaces need root: run `cargo xtask test`, or this as root");
    Ok(())
}

/// In the child, before exec: the namespace, and death with the parent.
fn enter_child(file: &File, parent: Pid) -> std::io::Result<()> {
    setns(file.as_fd(), CloneFlags::CLONE_NEWNET)?;
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    // The parent may have died before the line above took hold.
    if getppid() != parent {
        return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
    }
    Ok(())
}

/// Runs `ip` or `tc` with a script on its standard input; an error holds what it complained of.
pub(crate) fn run(program: &str, args: &[&str], script: &str) -> Result<String> {
    let what = || format!("{program} {} {script}", args.join(" "));
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{program}` (package iproute2)"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // Where it gives up early its own words say more than a broken pipe.
        let _ = stdin.write_all(script.as_bytes());
    }
    let Output { status, stdout, stderr } = child.wait_with_output().with_context(what)?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    Err(anyhow!("{}", String::from_utf8_lossy(&stderr).trim())).with_context(what)
}

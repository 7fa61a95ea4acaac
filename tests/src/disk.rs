//! A disk whose power can be cut: an ext4 file system in a file, which then holds what was synced and nothing else for sure.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MntFlags, umount2};

use crate::bpffs::Workdir;
use crate::cleanup::{self, Registration, Resource};
use crate::eventually::eventually;

/// The mount point's name within the directory.
const MOUNT_NAME: &str = "disk";

/// Octets of the image: room for a ledger, its log, and ext4's own.
const SIZE: u64 = 32 << 20;

/// `EXT4_IOC_SHUTDOWN` (fs/ext4/ext4.h): the file system ends at once, as if the machine had.
const SHUTDOWN: libc::Ioctl = 0x8004_587d;

/// `EXT4_GOING_FLAGS_NOLOGFLUSH`: not even the journal is written out.
const NO_LOG_FLUSH: u32 = 2;

/// A disk of a test's own, mounted at `disk` in its directory.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    point: PathBuf,
    mount: Option<Registration>,
}

impl Disk {
    /// Makes and mounts it. Needs root.
    pub fn new(workdir: &Workdir) -> Result<Self> {
        crate::netns::require_root()?;
        let (image, point) = (workdir.path().join("disk.img"), workdir.path().join(MOUNT_NAME));
        File::create(&image).and_then(|file| file.set_len(SIZE)).context("make the image of a disk")?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        fs::create_dir(&point).with_context(|| format!("make {}", point.display()))?;
        let mut disk = Self { image, point, mount: None };
        disk.mount()?;
        Ok(disk)
    }

    /// Where its files are.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.point
    }

    /// Cuts the power: what was written and not synced never reaches the image, and every write from now on fails.
    pub fn cut(&self) -> Result<()> {
        let root = File::open(&self.point).context("open the disk")?;
        let flags = NO_LOG_FLUSH;
        // SAFETY: the command reads one u32, which lives over the call.
        let answer = unsafe { libc::ioctl(root.as_raw_fd(), SHUTDOWN, &raw const flags) };
        ensure!(answer == 0, "cut the power of {}: {}", self.point.display(), std::io::Error::last_os_error());
        Ok(())
    }

    /// Has the kernel find an error in it: it turns read-only, as a worn flash does, until it is mounted again.
    pub fn fail(&self) -> Result<()> {
        let mounts = fs::read_to_string("/proc/self/mounts").context("read the mounts")?;
        let here = |line: &&str| line.split(' ').nth(1).map(Path::new) == Some(&self.point);
        let device = mounts.lines().find(here).and_then(|line| line.split(' ').next()).context("a mounted device")?;
        let name = device.rsplit('/').next().unwrap_or_default();
        fs::write(format!("/sys/fs/ext4/{name}/trigger_fs_error"), "a drill").context("trigger an error")
    }

    /// Power again: mounts what the image holds. Nobody may have a file open any more.
    pub fn power_up(&mut self) -> Result<()> {
        self.unmount()?;
        self.mount()
    }

    /// Takes it away, to be mended: a bare mount point is left. Nobody may have a file open any more.
    pub fn unmount(&mut self) -> Result<()> {
        eventually("the disk to be free", Duration::from_secs(5), || Ok(umount2(&self.point, MntFlags::empty())?))?;
        self.mount = None;
        Ok(())
    }

    /// Mounts what the image holds.
    pub fn mount(&mut self) -> Result<()> {
        let ((), registration) = cleanup::register(Resource::Mount(self.point.clone()), || {
            run(Command::new("mount").args(["-o", "loop,errors=remount-ro"]).arg(&self.image).arg(&self.point))
        })?;
        self.mount = Some(registration);
        Ok(())
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("run {}", command.get_program().display()))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

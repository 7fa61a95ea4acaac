//! A directory of a test's own, with a BPF file system in it, gone when the test is.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};

use crate::cleanup::{self, Registration, Resource};

/// The mount point's name within the directory.
pub(crate) const MOUNT_NAME: &str = "bpf";

/// `$TMPDIR/weir-<pid>-<n>-<label>`: for configs, ledgers, logs and, once mounted, pins.
#[derive(Debug)]
pub struct Workdir {
    path: PathBuf,
    // Dropped in this order: first the mount, then the directory.
    mount: Option<Registration>,
    // More of them, the last one on top.
    mounts: Vec<Registration>,
    _dir: Registration,
}

impl Workdir {
    /// Makes the directory, open to its owner only.
    pub fn new(label: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(cleanup::unique_name(label));
        let ((), dir) = cleanup::register(Resource::Dir(path.clone()), || {
            use std::os::unix::fs::DirBuilderExt as _;
            fs::DirBuilder::new().mode(0o700).create(&path).with_context(|| format!("make {}", path.display()))
        })?;
        Ok(Self { path, mount: None, mounts: Vec::new(), _dir: dir })
    }

    /// Makes the directory and mounts a BPF file system at its `bpf`. Needs root.
    pub fn with_bpffs(label: &str) -> Result<Self> {
        crate::netns::require_root()?;
        let mut workdir = Self::new(label)?;
        let point = workdir.bpf();
        fs::create_dir(&point).with_context(|| format!("make {}", point.display()))?;
        workdir.mount = Some(mount_bpffs(&point)?);
        Ok(workdir)
    }

    /// Mounts a file system in memory that holds so many octets at the directory `name`. Needs root.
    pub fn mount_memory(&mut self, name: &str, octets: u64) -> Result<PathBuf> {
        let point = self.path.join(name);
        fs::create_dir_all(&point).with_context(|| format!("make {}", point.display()))?;
        let ((), registration) = cleanup::register(Resource::Mount(point.clone()), || {
            let options = format!("size={octets},mode=700");
            mount(Some("tmpfs"), &point, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
                .with_context(|| format!("mount a file system in memory at {}", point.display()))
        })?;
        self.mounts.push(registration);
        Ok(point)
    }

    /// Unmounts it, pins and all.
    pub fn unmount_bpffs(&mut self) {
        self.mount = None;
    }

    /// Mounts an empty one where it was unmounted.
    pub fn mount_bpffs_again(&mut self) -> Result<()> {
        self.mount = Some(mount_bpffs(&self.bpf())?);
        Ok(())
    }

    /// Mounts another, empty one over it: what was pinned is out of sight.
    pub fn cover_bpffs(&mut self) -> Result<()> {
        let cover = mount_bpffs(&self.bpf())?;
        self.mounts.push(cover);
        Ok(())
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the BPF file system is, if there is one.
    #[must_use]
    pub fn bpf(&self) -> PathBuf {
        self.path.join(MOUNT_NAME)
    }

    /// Writes `text` to the file `name` in the directory and answers its path.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }
}

/// Copies a directory with all it holds, but for the BPF file system in it.
pub(crate) fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("make {}", to.display()))?;
    for file in plain_files(from)? {
        copy_file(&file, to)?;
    }
    for entry in fs::read_dir(from).with_context(|| format!("list {}", from.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && entry.file_name() != MOUNT_NAME {
            copy_tree(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Copies one file into a directory, which is made when it is missing.
pub(crate) fn copy_file(file: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("make {}", to.display()))?;
    let name = file.file_name().with_context(|| format!("{} has no name", file.display()))?;
    fs::copy(file, to.join(name)).with_context(|| format!("copy {} to {}", file.display(), to.display())).map(drop)
}

/// The regular files right in a directory.
pub(crate) fn plain_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            files.push(entry.path());
        }
    }
    Ok(files)
}

fn mount_bpffs(point: &Path) -> Result<Registration> {
    let ((), registration) = cleanup::register(Resource::Mount(point.to_owned()), || {
        mount(Some("bpf"), point, Some("bpf"), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mount a BPF file system at {}", point.display()))
    })?;
    Ok(registration)
}

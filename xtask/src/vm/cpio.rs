//! The archive that a kernel takes for its first root (`newc`, Documentation/driver-api/early-userspace/buffer-format.rst).

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use anyhow::{Context as _, bail};

const DIRECTORY: u32 = 0o040_755;
const REGULAR: u32 = 0o100_000;
const LINK: u32 = 0o120_777;
const TERMINAL: u32 = 0o020_600;

/// An archive in the making. Parents are made by themselves; whatever it holds belongs to root.
pub(crate) struct Archive<W: io::Write> {
    out: W,
    entries: u32,
    directories: BTreeSet<String>,
}

impl Archive<BufWriter<File>> {
    /// An empty archive in this file.
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self::new(BufWriter::new(file)))
    }
}

impl<W: io::Write> Archive<W> {
    fn new(out: W) -> Self {
        Self { out, entries: 0, directories: BTreeSet::new() }
    }

    /// A directory; one that is there already is no error.
    pub(crate) fn directory(&mut self, name: &str) -> anyhow::Result<()> {
        if name.is_empty() || self.directories.contains(name) {
            return Ok(());
        }
        self.parents(name)?;
        self.directories.insert(name.to_owned());
        self.entry(name, DIRECTORY, (0, 0), b"")
    }

    /// A file with this content, and these of the bits of its mode that say who may do what.
    pub(crate) fn file(&mut self, name: &str, permissions: u32, content: &[u8]) -> anyhow::Result<()> {
        self.parents(name)?;
        self.entry(name, REGULAR | (permissions & 0o7777), (0, 0), content)
    }

    /// A symbolic link.
    pub(crate) fn link(&mut self, name: &str, target: &str) -> anyhow::Result<()> {
        self.parents(name)?;
        self.entry(name, LINK, (0, 0), target.as_bytes())
    }

    /// A character device by its numbers: without a console the kernel starts its first program deaf and mute.
    pub(crate) fn terminal(&mut self, name: &str, major: u32, minor: u32) -> anyhow::Result<()> {
        self.parents(name)?;
        self.entry(name, TERMINAL, (major, minor), b"")
    }

    /// Everything below a directory of this machine that is wanted, by its path there.
    pub(crate) fn tree(&mut self, root: &Path, below: &str, wanted: fn(&str) -> bool) -> anyhow::Result<()> {
        let directory = root.join(below);
        let entries = fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))?;
        let mut names = entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
        names.sort_unstable();
        for name in names {
            let name =
                name.to_str().with_context(|| format!("{} holds a name that is no text", directory.display()))?;
            let name = if below.is_empty() { name.to_owned() } else { format!("{below}/{name}") };
            if !wanted(&name) {
                continue;
            }
            let path = root.join(&name);
            let found = fs::symlink_metadata(&path).with_context(|| format!("look at {}", path.display()))?;
            if found.is_dir() {
                self.directory(&name)?;
                self.tree(root, &name, wanted)?;
            } else if found.is_symlink() {
                let target = fs::read_link(&path).with_context(|| format!("follow {}", path.display()))?;
                self.link(&name, &target.to_string_lossy())?;
            } else {
                let content = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
                self.file(&name, found.permissions().mode(), &content)?;
            }
        }
        Ok(())
    }

    /// The entry that ends every archive.
    pub(crate) fn finish(mut self) -> anyhow::Result<W> {
        self.entry("TRAILER!!!", 0, (0, 0), b"")?;
        self.out.flush().context("write the archive")?;
        Ok(self.out)
    }

    fn parents(&mut self, name: &str) -> anyhow::Result<()> {
        match name.rsplit_once('/') {
            Some((parent, _)) => self.directory(parent),
            None => Ok(()),
        }
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) -> anyhow::Result<()> {
        self.entries += 1;
        let Ok(size) = u32::try_from(content.len()) else { bail!("{name} is longer than 4 GiB") };
        let name_size = u32::try_from(name.len() + 1)?;
        // inode, mode, owner, group, links, time, size, device of the file, device that it is, length of the name, checksum
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0];
        let mut header = b"070701".to_vec();
        for field in fields {
            write!(header, "{field:08X}")?;
        }
        header.extend_from_slice(name.as_bytes());
        header.push(0);
        pad(&mut header);
        self.out.write_all(&header).context("write the archive")?;
        self.out.write_all(content).context("write the archive")?;
        self.out.write_all(&[0; 3][..content.len().wrapping_neg() % 4]).context("write the archive")
    }
}

fn pad(octets: &mut Vec<u8>) {
    octets.resize(octets.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every entry as (name, mode, content), read as the kernel's init/initramfs.c reads it.
    fn read(archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let (mut entries, mut at) = (Vec::new(), 0);
        loop {
            assert_eq!((&archive[at..at + 6], at % 4), (&b"070701"[..], 0));
            let field = |index: usize| {
                let from = at + 6 + 8 * index;
                u32::from_str_radix(std::str::from_utf8(&archive[from..from + 8]).unwrap(), 16).unwrap()
            };
            let (mode, size, length) = (field(1), field(6) as usize, field(11) as usize);
            let name = &archive[at + 110..at + 110 + length];
            assert_eq!(name.last(), Some(&0));
            let name = String::from_utf8(name[..length - 1].to_vec()).unwrap();
            let content = (at + 110 + length).next_multiple_of(4);
            at = (content + size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                assert_eq!(at, archive.len());
                return entries;
            }
            entries.push((name, mode, archive[content..content + size].to_vec()));
        }
    }

    #[test]
    fn an_archive_is_read_back_with_its_parents_before_their_children() {
        let mut archive = Archive::new(Vec::new());
        archive.terminal("dev/console", 5, 1).unwrap();
        archive.file("a/b/file", 0o755, b"12345").unwrap();
        archive.link("a/b/link", "file").unwrap();
        archive.directory("a").unwrap();
        let entries = read(&archive.finish().unwrap());
        let seen: Vec<_> = entries.iter().map(|(name, mode, content)| (name.as_str(), *mode, content.len())).collect();
        let expected = [
            ("dev", 0o040_755, 0),
            ("dev/console", 0o020_600, 0),
            ("a", 0o040_755, 0),
            ("a/b", 0o040_755, 0),
            ("a/b/file", 0o100_755, 5),
            ("a/b/link", 0o120_777, 4),
        ];
        assert_eq!(seen, expected);
        assert_eq!(entries[4].2, b"12345");
    }
}

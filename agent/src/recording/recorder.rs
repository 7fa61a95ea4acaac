//! The file that is recorded into: appended line by line, bounded, and given up rather than let it stop the agent.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::{Life, Line, SCHEMA};
use crate::units::{BootId, BootInstant};

/// A recording is not let grow past this: more than a day of a link that is read every second, some hours of one that renews its units
/// every other second.
pub const BOUND: u64 = 64 << 20;

/// How the first line begins.
const LIFE: &[u8] = b"{\"life\":";

/// Owner reads and writes, nobody else: a recording holds who pays and what was used.
const MODE: u32 = 0o600;

/// Whoever is recorded holds one; they all write to the same file.
#[derive(Clone, Debug)]
pub struct Recorder {
    shared: Rc<RefCell<Shared>>,
}

#[derive(Debug)]
struct Shared {
    /// `None` when nothing is to be recorded, or nothing any more.
    tape: Option<Tape>,
    cores: u32,
}

#[derive(Debug)]
struct Tape {
    /// Locked, so that no other agent writes in between.
    file: Flock<File>,
    path: PathBuf,
    /// In octets.
    length: u64,
    bound: u64,
}

impl Recorder {
    /// One that records nothing.
    #[must_use]
    pub fn idle() -> Self {
        Self { shared: Rc::new(RefCell::new(Shared { tape: None, cores: 0 })) }
    }

    /// Goes on with the recording at `path`, made (mode 0600) when it is missing, and records that a life begins. Past `bound`
    /// octets nothing more is recorded.
    ///
    /// Refused: a file that is no recording or has another schema, and one that another agent records into.
    pub fn open(path: &Path, boot: BootId, at: BootInstant, bound: u64) -> Result<Self> {
        let tape = Tape::open(path, bound).with_context(|| format!("recording into {}", path.display()))?;
        let recorder = Self { shared: Rc::new(RefCell::new(Shared { tape: Some(tape), cores: 0 })) };
        let version = env!("CARGO_PKG_VERSION").to_owned();
        recorder.write(|| Line::Life(Life { schema: SCHEMA, version, boot, at }));
        Ok(recorder)
    }

    /// The number of the next core.
    pub(super) fn next_core(&self) -> u32 {
        let mut shared = self.shared.borrow_mut();
        let number = shared.cores;
        shared.cores += 1;
        number
    }

    /// Records a line, which is made only when it is wanted. After the first one that finds no room nothing more is recorded: a
    /// recording has no gaps.
    pub(super) fn write(&self, line: impl FnOnce() -> Line) {
        let mut shared = self.shared.borrow_mut();
        let Some(tape) = &mut shared.tape else { return };
        if let Err(error) = tape.write(&line()) {
            tracing::warn!("nothing more is recorded into {}: {error:#}", tape.path.display());
            shared.tape = None;
        }
    }
}

impl Tape {
    fn open(path: &Path, bound: u64) -> Result<Self> {
        let file = OpenOptions::new().read(true).append(true).create(true).mode(MODE).open(path)?;
        let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((_, Errno::EWOULDBLOCK)) => bail!("another agent records into it: stop that one, or name another file"),
            Err((_, errno)) => return Err(anyhow!(errno).context("locking it")),
        };
        check_beginning(&mut file)?;
        let length = whole_lines(&mut file)?;
        // What a power cut has left of the last line would spoil the next one.
        file.set_len(length)?;
        Ok(Self { file, path: path.to_owned(), length, bound })
    }

    fn write(&mut self, line: &Line) -> Result<()> {
        let mut text = serde_json::to_vec(line).context("writing JSON")?;
        text.push(b'\n');
        let length = self.length.saturating_add(u64::try_from(text.len())?);
        ensure!(
            length <= self.bound,
            "it has reached its bound of {} octets; move it away and start the agent again to record more",
            self.bound
        );
        self.file.write_all(&text)?;
        self.length = length;
        Ok(())
    }
}

/// The length of the file up to the end of its last whole line.
fn whole_lines(file: &mut File) -> Result<u64> {
    let mut end = file.metadata()?.len();
    let mut chunk = vec![0; 64 << 10];
    while end > 0 {
        let start = end.saturating_sub(u64::try_from(chunk.len())?);
        let part = &mut chunk[..usize::try_from(end - start)?];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        if let Some(at) = part.iter().rposition(|octet| *octet == b'\n') {
            return Ok(start + u64::try_from(at)? + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Fails unless the file is empty, begins as a recording of this schema does, or was cut before its first line was whole.
fn check_beginning(file: &mut File) -> Result<()> {
    file.rewind()?;
    let mut first = Vec::new();
    BufReader::new(file).take(64 << 10).read_until(b'\n', &mut first)?;
    let is_cut = first.last() != Some(&b'\n')
        && (first.starts_with(LIFE) || LIFE.starts_with(&first) || first.iter().all(|octet| *octet == 0));
    if is_cut {
        return Ok(());
    }
    match serde_json::from_slice(&first) {
        Ok(Line::Life(Life { schema: SCHEMA, .. })) => Ok(()),
        Ok(Line::Life(Life { schema, .. })) => {
            bail!("it was begun with schema {schema} and this agent writes schema {SCHEMA}: name another file")
        }
        Ok(_) | Err(_) => bail!("it is no recording of an agent: name another file"),
    }
}

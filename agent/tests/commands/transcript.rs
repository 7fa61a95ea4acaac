//! A command line with all that comes of it, as somebody would see it: `> ` before what goes to standard error.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// What a root that may open everything has more than its owner's rights, by number: `CAP_DAC_OVERRIDE`, `CAP_DAC_READ_SEARCH`.
const PASSES_EVERYTHING: [libc::c_ulong; 2] = [1, 2];

const NOTHING: libc::c_ulong = 0;

/// A directory in which commands are run, and what came of them so far.
pub(crate) struct Transcript {
    directory: tempfile::TempDir,
    text: String,
}

impl Transcript {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory"), text: String::new() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("written");
    }

    /// `weir` and these words, here: nothing of this machine's environment has a say.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.args(line.split_whitespace()).current_dir(self.directory.path());
        for variable in ["NO_COLOR", "COLUMNS", "RUST_LOG", "RUST_BACKTRACE", "TERM", "CLICOLOR_FORCE"] {
            command.env_remove(variable);
        }
        command
    }

    /// Runs `weir LINE`, and writes down what came of it.
    pub(crate) fn weir(&mut self, line: &str) -> Output {
        self.take(line, |_| {})
    }

    /// The same where standard output takes nothing.
    pub(crate) fn weir_to_a_full_disk(&mut self, line: &str) -> Output {
        let full = File::options().write(true).open("/dev/full").expect("/dev/full");
        self.take(&format!("{line} >/dev/full"), |command| {
            command.stdout(full);
        })
    }

    /// The same as somebody whom the modes of files concern, root or not.
    pub(crate) fn weir_without_rights(&mut self, line: &str) -> Output {
        self.take(line, |command| {
            let give_up = || {
                for capability in PASSES_EVERYTHING {
                    // SAFETY: a system call that takes numbers. Whoever may not do this has nothing to give up.
                    unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, NOTHING, NOTHING, NOTHING) };
                }
                Ok(())
            };
            // SAFETY: two system calls between fork and exec, no allocation and no lock.
            unsafe { command.pre_exec(give_up) };
        })
    }

    fn take(&mut self, line: &str, prepare: impl FnOnce(&mut Command)) -> Output {
        let mut command = self.command(line.split(" >").next().unwrap_or(line));
        prepare(&mut command);
        let output = command.stdin(Stdio::null()).output().expect("it runs");
        self.add(line, &output);
        output
    }

    fn add(&mut self, line: &str, output: &Output) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "$ weir {line}");
        for said in String::from_utf8_lossy(&output.stdout).lines() {
            let _ = writeln!(self.text, "{said}");
        }
        for said in String::from_utf8_lossy(&output.stderr).lines() {
            let _ = writeln!(self.text, "{}", format!("> {said}").trim_end());
        }
        let _ = writeln!(
            self.text,
            "exit {}\n",
            output.status.code().map_or("by a signal".to_owned(), |code| code.to_string())
        );
    }

    /// A word about what comes next.
    pub(crate) fn say(&mut self, words: &str) {
        let _ = writeln!(self.text, "# {words}");
    }

    /// Holds all of it against the file of that name. `WEIR_BLESS=1` writes the file; then look at what has changed.
    pub(crate) fn is_golden(&self, name: &str) {
        let here = self.directory.path().to_string_lossy();
        let text = self.text.replace(&*here, "/tmp/here").replace(env!("CARGO_PKG_VERSION"), "VERSION");
        let path = goldens().join(name);
        if std::env::var_os("WEIR_BLESS").is_some() {
            std::fs::write(&path, &text).expect("written");
        }
        assert_eq!(text, std::fs::read_to_string(&path).expect("the golden file"), "{}", path.display());
    }
}

pub(crate) fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/commands/golden")
}

/// Names of the transcripts that are kept.
pub(crate) fn kept() -> Vec<String> {
    let listed = std::fs::read_dir(goldens()).expect("the directory");
    let files = listed.map(|entry| entry.expect("a file").path());
    files.filter_map(|file| file.file_stem().and_then(OsStr::to_str).map(str::to_owned)).collect()
}

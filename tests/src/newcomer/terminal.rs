//! A terminal in the machine: what its screen shows, and keys.

use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::eventually::eventually;

/// Rows and columns.
const SIZE: (u16, u16) = (40, 110);

/// A program on a terminal of its own. Dropping it ends it.
pub(super) struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    /// Has `script(1)`, as the last arguments of `command`, run a shell's line on it; the line ends well only if the terminal is then
    /// as it was.
    pub(super) fn open(mut command: Command, line: &str) -> Result<Self> {
        let (rows, columns) = SIZE;
        let line = format!(
            "stty rows {rows} columns {columns} && before=$(stty -g) && {line} && test \"$(stty -g)\" = \"$before\""
        );
        command.args(["script", "--quiet", "--return", "--command", &line, "/dev/null"]).env("TERM", "xterm-256color");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("run script(1)")?;
        let keys = child.stdin.take().context("no standard input")?;
        let mut written = child.stdout.take().context("no standard output")?;
        let screen = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 0)));
        let ours = Arc::clone(&screen);
        // It ends when the program does.
        thread::spawn(move || {
            let mut octets = [0; 4096];
            while let Ok(count @ 1..) = written.read(&mut octets) {
                ours.lock().unwrap_or_else(PoisonError::into_inner).process(&octets[..count]);
            }
        });
        Ok(Self { child, keys, screen })
    }

    /// What a person sees of it now.
    pub(super) fn text(&self) -> String {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).screen().contents()
    }

    /// Presses keys.
    pub(super) fn press(&mut self, keys: &str) -> Result<()> {
        self.keys.write_all(keys.as_bytes()).context("pressing a key")
    }

    /// Waits until the program has ended, well, and has given the terminal back.
    pub(super) fn ends(mut self, limit: Duration) -> Result<()> {
        let status = eventually("the program to end", limit, || self.child.try_wait()?.context("it goes on"))?;
        ensure!(status.success(), "{status}: {}", self.text());
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended already; what it has started ends with the machine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! Running other programs: output, progress of the long ones, and signals passed on.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::signals;

/// How often a running child and the arrived signals are looked at.
const POLL: Duration = Duration::from_millis(50);
/// How often a long step shows a sign of life where there is no terminal.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// One line for the reader, at once.
pub(crate) fn say(line: &str) {
    // A closed pipe (`| head`) is the reader's choice and no error of ours.
    let _ = writeln!(io::stdout(), "{line}");
    let _ = io::stdout().flush();
}

/// One line on standard error.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Runs the command to its end with the caller's terminal; an error unless it succeeds.
pub(crate) fn run(mut command: Command) -> anyhow::Result<()> {
    let status = status(&mut command)?;
    if !status.success() {
        bail!("{} ended with {status}", shown(&command));
    }
    Ok(())
}

/// Runs the command to its end with the caller's terminal.
pub(crate) fn status(command: &mut Command) -> anyhow::Result<ExitStatus> {
    watched(command, |_| ())
}

/// Runs the command to its end and calls `tick` all the while, with how long it has taken so far.
pub(crate) fn watched(command: &mut Command, tick: impl FnMut(Duration)) -> anyhow::Result<ExitStatus> {
    let mut child = command.spawn().with_context(|| format!("start {}", shown(command)))?;
    wait(&mut child, tick)
}

/// Runs a long command with its output kept in `log`, shows how long it takes, and prints the log's end on failure.
pub(crate) fn run_logged(what: &str, command: &mut Command, log: &Path) -> anyhow::Result<()> {
    let file = File::create(log).with_context(|| format!("create {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let mut child = command.spawn().with_context(|| format!("start {}", shown(command)))?;
    let terminal = io::stdout().is_terminal();
    let mut last_line = Duration::ZERO;
    let status = wait(&mut child, |elapsed| {
        if terminal {
            let _ = write!(io::stdout(), "\r    {what}: {} s ", elapsed.as_secs());
            let _ = io::stdout().flush();
        } else if elapsed >= last_line + SIGN_OF_LIFE {
            last_line = elapsed;
            say(&format!("    {what}: {} s", elapsed.as_secs()));
        }
    })?;
    if terminal {
        say("");
    }
    if !status.success() {
        let text = String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        let end = lines[lines.len().saturating_sub(30)..].join("\n");
        bail!("{what} failed: {} ended with {status}; the end of {}:\n{end}", shown(command), log.display());
    }
    Ok(())
}

/// What the command prints on standard output, or nothing when it cannot be started or fails.
pub(crate) fn answer_of(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[expect(clippy::disallowed_methods, reason = "the seconds shown to the reader; nothing is decided by them")]
fn wait(child: &mut Child, mut tick: impl FnMut(Duration)) -> anyhow::Result<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().context("wait for a child")? {
            return Ok(status);
        }
        if let Some(signal) = signals::take_to_forward() {
            forward(signal, child)?;
        }
        tick(start.elapsed());
        thread::sleep(POLL);
    }
}

fn forward(signal: Signal, child: &Child) -> anyhow::Result<()> {
    // cargo dies of a signal without a word to the program it runs, so that program is told as well, and first.
    for pid in grandchildren(child).chain([child.id()]) {
        send(signal, Pid::from_raw(pid.try_into().context("a pid above 2^31")?))?;
    }
    Ok(())
}

/// What a cargo runs at the moment; nothing below any other child, whose business its children are.
fn grandchildren(child: &Child) -> impl Iterator<Item = u32> {
    let pid = child.id();
    let is_cargo = read(format!("/proc/{pid}/comm")).trim() == "cargo";
    let children = if is_cargo { read(format!("/proc/{pid}/task/{pid}/children")) } else { String::new() };
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>().into_iter()
}

/// A file of /proc, or nothing once its process is gone.
fn read(path: String) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn send(signal: Signal, pid: Pid) -> anyhow::Result<()> {
    use std::os::unix::process::CommandExt as _;
    match kill(pid, signal) {
        // A child that sudo has made root: sudo relays a signal only when it comes from outside its own group.
        Err(Errno::EPERM) => {
            let mut command = Command::new("sudo");
            command.args(["-n", "kill", "-s", &signal.as_str()[3..], &pid.to_string()]).process_group(0);
            command.status().with_context(|| format!("pass {signal} on through sudo"))?;
        }
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => return Err(error).with_context(|| format!("pass {signal} on to process {pid}")),
    }
    Ok(())
}

fn shown(command: &Command) -> String {
    let arguments = command.get_args().map(|argument| argument.to_string_lossy().into_owned());
    std::iter::once(command.get_program().to_string_lossy().into_owned()).chain(arguments).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_is_an_error_that_names_it() {
        let mut command = Command::new("sh");
        command.args(["-c", "exit 3"]);
        let error = run(command).unwrap_err().to_string();
        assert!(error.contains("sh -c exit 3") && error.contains('3'), "{error}");
    }
}

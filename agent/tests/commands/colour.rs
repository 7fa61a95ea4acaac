//! Colour is for terminals, and for whoever asks for it: `NO_COLOR`, `TERM=dumb` and a pipe turn it off.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::process::{Command, Stdio};

use crate::agents::Agent;
use crate::transcript::Transcript;

/// What the command writes to a terminal of so many columns.
fn on_a_terminal(mut command: Command, columns: u16) -> String {
    let (mut master, mut slave) = (-1, -1);
    let size = libc::winsize { ws_row: 30, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel fills in two descriptors, and reads the size; the null pointers leave the rest as it is.
    let made = unsafe {
        libc::openpty(&raw mut master, &raw mut slave, std::ptr::null_mut(), std::ptr::null(), &raw const size)
    };
    assert_eq!(made, 0, "no terminal: {}", std::io::Error::last_os_error());
    // SAFETY: both were opened just now, and are nobody else's.
    let (mut master, slave) = unsafe { (File::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
    let mut child = command.stdin(Stdio::null()).stdout(slave).spawn().expect("it runs");
    // The terminal ends with the last who holds its other end.
    drop(command);
    let mut seen = Vec::new();
    let mut part = [0; 4096];
    // An end is told as an error of the device.
    while let Ok(count @ 1..) = master.read(&mut part) {
        seen.extend_from_slice(&part[..count]);
    }
    assert!(child.wait().expect("it ends").success());
    String::from_utf8(seen).expect("text")
}

#[test]
fn colour_obeys_the_terminal_and_the_environment_and_whoever_asks() {
    let transcript = Transcript::new();
    let _agent = Agent::at(&transcript.path("weir.sock"));
    for (variables, flag, is_coloured) in [
        (&[][..], "", true),
        (&[("NO_COLOR", "1")][..], "", false),
        (&[("NO_COLOR", "")][..], "", true),
        (&[("TERM", "dumb")][..], "", false),
        (&[("TERM", "xterm-256color")][..], "--color never", false),
        (&[("NO_COLOR", "1")][..], "--color always", true),
    ] {
        let mut command = transcript.command(&format!("status --socket weir.sock {flag}"));
        command.envs(variables.iter().copied());
        let text = on_a_terminal(command, 80);
        assert!(text.contains("wwan1") && text.contains("EXHAUSTED"), "{text}");
        assert_eq!(text.contains('\u{1b}'), is_coloured, "{variables:?} {flag}: {text:?}");
    }
}

#[test]
fn a_pipe_has_no_colour_unless_it_is_asked_for_and_lines_that_nobody_breaks() {
    let mut transcript = Transcript::new();
    let _agent = Agent::at(&transcript.path("weir.sock"));
    let plain = String::from_utf8(transcript.weir("status --socket weir.sock").stdout).expect("text");
    assert!(!plain.contains('\u{1b}'), "{plain:?}");
    let coloured = String::from_utf8(transcript.weir("status --socket weir.sock --color always").stdout).expect("text");
    assert!(coloured.contains("\u{1b}[31mEXHAUSTED"), "{coloured:?}");
    let columns = |text: &str| text.lines().map(|line| line.chars().count()).max().unwrap_or(0);
    assert!(columns(&plain) > 60, "{plain}");
    for (width, most) in [("60", 60), ("10", 40), ("wide", usize::MAX)] {
        let mut command = transcript.command("status --socket weir.sock");
        let output = command.env("COLUMNS", width).output().expect("it runs");
        assert!(columns(&String::from_utf8_lossy(&output.stdout)) <= most, "COLUMNS={width}");
    }
}

#[test]
fn a_terminal_is_as_wide_as_it_is() {
    let transcript = Transcript::new();
    let _agent = Agent::at(&transcript.path("weir.sock"));
    let command = || transcript.command("status --socket weir.sock --color never");
    for columns in [44, 90] {
        let text = on_a_terminal(command(), columns);
        let longest = text.lines().map(|line| line.trim_end().chars().count()).max().unwrap_or(0);
        assert!(
            longest <= usize::from(columns) && longest > usize::from(columns) - 20,
            "{longest} of {columns}: {text}"
        );
    }
}

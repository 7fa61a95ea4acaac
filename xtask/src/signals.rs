//! Interrupts: remembered here, forwarded to the running child once, and answered with the usual exit code.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use anyhow::Context as _;
use nix::{
    libc,
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
};

static RECEIVED: AtomicI32 = AtomicI32::new(0);
static TO_FORWARD: AtomicBool = AtomicBool::new(false);

/// From now on SIGINT and SIGTERM no longer end this process: the verbs wait for their child and clean up.
pub(crate) fn install() -> anyhow::Result<()> {
    let action = SigAction::new(SigHandler::SigAction(remember), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the handler touches two atomics and one field of the given siginfo, nothing else.
        unsafe { sigaction(signal, &action) }.with_context(|| format!("install the handler of {signal}"))?;
    }
    Ok(())
}

/// The signal that came in, if any.
pub(crate) fn received() -> Option<Signal> {
    Signal::try_from(RECEIVED.load(Ordering::SeqCst)).ok()
}

/// The signal to pass on to the child; answers once for each signal.
///
/// A Ctrl-C on the terminal reaches the whole foreground group, children included: only what another process sent
/// to this one alone has to be passed on, or the child would see it twice.
pub(crate) fn take_to_forward() -> Option<Signal> {
    if TO_FORWARD.swap(false, Ordering::SeqCst) { received() } else { None }
}

/// 128 + the signal's number, as a shell reports it; 0 without a signal.
pub(crate) fn exit_code() -> u8 {
    received().and_then(|signal| u8::try_from(128 + signal as i32).ok()).unwrap_or(0)
}

extern "C" fn remember(signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    RECEIVED.store(signal, Ordering::SeqCst);
    // SAFETY: the kernel hands a valid siginfo to a handler that was installed with SA_SIGINFO, as nix does here.
    let sent_by_process = unsafe { (*info).si_code } <= 0;
    if sent_by_process {
        TO_FORWARD.store(true, Ordering::SeqCst);
    }
}

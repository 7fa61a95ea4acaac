//! Listens to what the programs of one meter say: hints, log lines, and whose packets they have refused.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsRawFd;

use anyhow::Result;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Agent, Message};
use crate::datapath::{Datapath, Refusals};
use crate::prohibited::{Voices, prohibited};

impl Agent {
    /// Listens to a meter until what is answered here is dropped.
    pub(super) fn listen(&self, station: usize, datapath: &Datapath) -> JoinSet<()> {
        let mut ears = JoinSet::new();
        if let Err(error) = self.watch_hints(&mut ears, station, datapath) {
            tracing::warn!("no hints from the kernel, the timer alone must do: {error:#}");
        }
        if let Err(error) = self.tell_senders(&mut ears, datapath) {
            tracing::warn!("whoever sends into a used-up link waits in vain, nobody tells them: {error:#}");
        }
        if let Err(error) = watch_kernel_log(&mut ears, datapath) {
            tracing::debug!("no log lines from the kernel: {error:#}");
        }
        ears
    }

    /// Forwards the kernel's hints to the inbox.
    fn watch_hints(&self, ears: &mut JoinSet<()>, station: usize, datapath: &Datapath) -> Result<()> {
        let inbox = self.inbox.clone();
        let mut hints = readable(datapath.hints()?)?;
        ears.spawn(async move {
            while let Ok(mut ready) = hints.readable_mut().await {
                let mut any = false;
                while ready.get_inner_mut().take().is_some() {
                    any = true;
                }
                ready.clear_ready();
                if any && inbox.send(Message::Hint { station }).is_err() {
                    return;
                }
            }
        });
        Ok(())
    }

    /// Answers the senders of refused packets.
    fn tell_senders(&self, ears: &mut JoinSet<()>, datapath: &Datapath) -> Result<()> {
        let (mut refusals, voices) = (readable(datapath.refusals()?)?, Voices::open()?);
        let metered = self.metered.subscribe();
        ears.spawn(async move {
            while let Ok(mut ready) = refusals.readable_mut().await {
                tell(ready.get_inner_mut(), &voices, &metered);
                ready.clear_ready();
            }
        });
        Ok(())
    }

    /// Says on which interfaces meters sit now.
    pub(super) fn note_metered(&self) {
        let now: BTreeSet<u32> = self.stations.iter().filter_map(|station| station.on).collect();
        self.metered.send_if_modified(|before| {
            let changed = *before != now;
            *before = now;
            changed
        });
    }
}

fn tell(refusals: &mut Refusals, voices: &Voices, metered: &watch::Receiver<BTreeSet<u32>>) {
    while let Some(refusal) = refusals.take() {
        // Whoever is beyond a metered link is not told: that would be paid for.
        if metered.borrow().contains(&refusal.came_in_by) {
            continue;
        }
        if let Some(answer) = prohibited(refusal.head())
            && let Err(error) = voices.tell(&answer, refusal.came_in_by)
        {
            tracing::debug!(to = %answer.to, "a refusal could not be told: {error}");
        }
    }
}

/// Writes the programs' rare log lines.
fn watch_kernel_log(ears: &mut JoinSet<()>, datapath: &Datapath) -> Result<()> {
    let mut log = readable(datapath.kernel_log()?)?;
    ears.spawn(async move {
        while let Ok(mut ready) = log.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    });
    Ok(())
}

fn readable<T: AsRawFd>(ring: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: the ring buffer owns its descriptor and gives the same one for as long as it lives.
    Ok(unsafe { AsyncFd::register(ring) }?)
}

//! `cargo xtask sim --mutants`: bugs planted one at a time into copies of the core, each of which the simulator has to catch.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

use crate::{
    children::{answer_of, say},
    simulator::{Build, Simulator},
    workspace::Workspace,
};

/// Each is caught within so many schedules.
const SCHEDULES: u32 = 1_000;

/// One bug: the same text as in the core, and what stands there instead.
struct Mutant {
    /// What the core does wrong.
    what: &'static str,
    /// The file, below `agent/src/quota`.
    file: &'static str,
    is: &'static str,
    becomes: &'static str,
}

const MUTANTS: [Mutant; 22] = [
    Mutant {
        what: "an answer that comes twice adds up",
        file: "session.rs",
        is: "outbox.message.number == key.number) else {\n            return Fate::Lives;",
        becomes: "outbox.message.number == key.number) else {
            if let (Outcome::Answered(Answer { granted: Some(granted), .. }), Some(grant)) = (&outcome, &mut self.grant) {
                grant.ceiling = grant.ceiling.saturating_add(granted.octets);
            }
            return Fate::Lives;",
    },
    Mutant {
        what: "an answer to another number is taken",
        file: "session.rs",
        is: "self.outbox.as_mut().filter(|outbox| outbox.message.number == key.number) else {",
        becomes: "self.outbox.as_mut() else {",
    },
    Mutant {
        what: "a grant is counted on top of the one before",
        file: "session.rs",
        is: "ceiling: reported.saturating_add(granted.octets),",
        becomes: "ceiling: self.granted_ceiling().unwrap_or(reported).max(reported).saturating_add(granted.octets),",
    },
    Mutant {
        what: "the ceiling is counted from what is used now, not from what was reported",
        file: "session.rs",
        is: "ceiling: reported.saturating_add(granted.octets),",
        becomes: "ceiling: self.used().total().saturating_add(granted.octets),",
    },
    Mutant {
        what: "a container never gets into a message",
        file: "session/seal.rs",
        is: "self.pending.push_back(container.quota_octets());",
        becomes: "if trigger != Trigger::TimeLimit { self.pending.push_back(container.quota_octets()); }",
    },
    Mutant {
        what: "the number of a message stands still",
        file: "session/seal.rs",
        is: "self.next_message = number.next().unwrap_or(number);",
        becomes: "",
    },
    Mutant {
        what: "the number of a container stands still",
        file: "session/seal.rs",
        is: "self.next_container = self.next_container.next().unwrap_or(self.next_container);",
        becomes: "",
    },
    Mutant {
        what: "a message that timed out counts as acknowledged",
        file: "session.rs",
        is: "Repetition::Recognised => {
                    if attempt == outbox.attempt() {
                        outbox.back_off(retry_after, now, jitter);
                    }
                    Fate::Lives
                }",
        becomes: "Repetition::Recognised => {
                    let answer = Answer { session_ref: None, granted: None, failure_handling: None };
                    self.acknowledged(key, answer, now, out)
                }",
    },
    Mutant {
        what: "a session is closed as soon as its release is sent",
        file: "session/drive.rs",
        is: "self.seal(operation, None, Some(trigger), now, out);\n        Fate::Lives",
        becomes: "self.seal(operation, None, Some(trigger), now, out);
        if operation == Operation::Release {
            out.push(Command::Record(Record::SessionClosed { session: self.id() }));
            return Fate::Ended;
        }
        Fate::Lives",
    },
    Mutant {
        what: "the gate is set before the grant is recorded",
        file: "mod.rs",
        is: "self.queue.push_back(Command::SetGate(setting));",
        becomes: "self.queue.push_front(Command::SetGate(setting));",
    },
    Mutant {
        what: "a session that is frozen forgets its last reading",
        file: "session.rs",
        is: "self.close_interval(Trigger::AbnormalRelease, now, out);\n            self.end_readings(out);",
        becomes: "self.passed = self.opening.base.saturating_add(self.closed);\n            self.end_readings(out);",
    },
    Mutant {
        what: "an orphan keeps the containers of its void message out",
        file: "session.rs",
        is: "for _ in void {\n            self.pending.push_front(Octets::ZERO);\n        }",
        becomes: "drop(void);",
    },
    Mutant {
        what: "a restored session ignores its checkpoint",
        file: "session.rs",
        is: "stored.checkpoint.unwrap_or((base, session.opening.base_throttled));",
        becomes: "(base, session.opening.base_throttled);",
    },
    Mutant {
        what: "the last interval of a session is left open",
        file: "session/drive.rs",
        is: "if self.has_open_usage() {\n            self.close_interval(trigger, now, out);\n        }",
        becomes: "",
    },
    Mutant {
        what: "throttled octets are left out",
        file: "session/seal.rs",
        is: "self.close_containers(throttled, QuotaManagement::Offline, trigger, now, out);",
        becomes: "",
    },
    Mutant {
        what: "the release goes before the packets in flight were read",
        file: "session/drive.rs",
        is: "if self.last_reading < settles_at {",
        becomes: "if now < settles_at {",
    },
    Mutant {
        what: "the gate stays open while a session closes",
        file: "session/drive.rs",
        is: "if self.closing.is_some() || !self.live {\n            return None;",
        becomes: "if !self.live {\n            return None;",
    },
    Mutant {
        what: "a meter that was taken over is not in hand before its loader is done",
        file: "mod.rs",
        is: "quota.meter = Some(epoch.clone());",
        becomes: "",
    },
    Mutant {
        what: "a restart forgets the orders to abort",
        file: "mod.rs",
        is: "self.aborted.extend(aborted);",
        becomes: "drop(aborted.into_iter());",
    },
    Mutant {
        what: "a slice is counted from what is used, not from what is committed",
        file: "session/slice.rs",
        is: "let end = self.committed().saturating_add(slice);",
        becomes: "let end = self.used().total().saturating_add(slice);",
    },
    Mutant {
        what: "a fast link asks for more than the largest chunk",
        file: "session/foresight.rs",
        is: "self.rate().over(lasts).min(most).max(self.terms.chunk)",
        becomes: "self.rate().over(lasts).max(most.min(self.terms.chunk))",
    },
    Mutant {
        what: "what may have been taken is sent again to a server that charges again",
        file: "session.rs",
        is: "(Repetition::Charged, false) => Outbox::doubtful(message, now),",
        becomes: "(Repetition::Charged, false) => Outbox::restored(message, now),",
    },
];

/// Plants each bug and has it caught. Returns the exit code.
pub(crate) fn mutants(workspace: &Workspace) -> anyhow::Result<u8> {
    let directory = workspace.target.join("sim/mutants");
    let mut escaped = 0_u8;
    for mutant in &MUTANTS {
        let core = copy_core(workspace, &directory)?;
        mutant.plant(&core.join("quota"))?;
        let simulator = Simulator::of_copy(workspace, core, directory.clone());
        simulator.compile(Build::Quick)?;
        let mut command = Command::new(simulator.binary());
        match answer_of(command.arg("caught").arg(SCHEDULES.to_string())) {
            Some(how) => say(&format!("mutant: {}: caught: {how}", mutant.what)),
            None => {
                escaped += 1;
                say(&format!("mutant: {}: NOT CAUGHT in {SCHEDULES} schedules", mutant.what));
            }
        }
    }
    say(&format!("mutants: {} planted, {escaped} not caught", MUTANTS.len()));
    Ok(u8::from(escaped > 0))
}

impl Mutant {
    /// Puts the bug into a copy. Text that is not there exactly once is an error: the core has changed, and this bug would be none.
    fn plant(&self, quota: &Path) -> anyhow::Result<()> {
        let file = quota.join(self.file);
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let planted = self.planted(&text)?;
        fs::write(&file, planted).with_context(|| format!("write {}", file.display()))
    }

    fn planted(&self, text: &str) -> anyhow::Result<String> {
        let found = text.matches(self.is).count();
        ensure!(
            found == 1,
            "mutant \"{}\": quota/{} has this {found} times, not once: adapt it in xtask/src/mutants.rs\n{}",
            self.what,
            self.file,
            self.is
        );
        Ok(text.replace(self.is, self.becomes))
    }
}

/// A fresh copy of the core's sources, in place of the one before.
fn copy_core(workspace: &Workspace, directory: &Path) -> anyhow::Result<PathBuf> {
    let from = workspace.root.join("agent/src");
    let to = directory.join("core");
    if to.exists() {
        fs::remove_dir_all(&to).with_context(|| format!("remove {}", to.display()))?;
    }
    copy_tree(&from.join("quota"), &to.join("quota"))?;
    fs::copy(from.join("units.rs"), to.join("units.rs")).with_context(|| format!("copy to {}", to.display()))?;
    Ok(to)
}

fn copy_tree(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to).with_context(|| format!("create {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("list {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).with_context(|| format!("copy to {}", target.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutant_still_has_its_place_in_the_core() {
        let quota = Workspace::find().unwrap().root.join("agent/src/quota");
        for mutant in &MUTANTS {
            let text = fs::read_to_string(quota.join(mutant.file)).unwrap();
            assert_ne!(mutant.planted(&text).unwrap(), text, "{}: nothing is changed", mutant.what);
        }
    }

    #[test]
    fn a_mutant_whose_text_is_gone_or_there_twice_is_an_error() {
        let mutant = Mutant { what: "x", file: "y", is: "one", becomes: "two" };
        assert_eq!(mutant.planted("a one").unwrap(), "a two");
        for text in ["none here", "one and one"].map(|text| text.replace("none", "nothing")) {
            assert!(mutant.planted(&text).unwrap_err().to_string().contains("adapt it"), "{text}");
        }
    }
}

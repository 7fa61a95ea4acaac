//! What a guest has said: which tests it ran, how they ended, and whether it came to an end of its own.

use std::collections::BTreeMap;

/// A line of the guest's own begins so; the rest is its tests'.
const MARK: &str = "weir-vm: ";

/// What was to be run: a test by its file and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Planned(pub(crate) &'static str, pub(crate) &'static str);

/// Everything heard from one guest.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// The release of its kernel and its machine, once it is up.
    pub(crate) up: Option<String>,
    file: String,
    tests: BTreeMap<(String, String), bool>,
    words: Vec<String>,
    verdict: Option<String>,
}

impl Heard {
    /// Takes in one line; true when it is one for the reader.
    pub(crate) fn line(&mut self, line: &str) -> bool {
        if let Some(word) = line.strip_prefix(MARK) {
            match word.split_once(' ') {
                Some(("up", what)) => self.up = Some(what.to_owned()),
                Some(("file", name)) => name.clone_into(&mut self.file),
                Some(("verdict", verdict)) => self.verdict = Some(verdict.to_owned()),
                _ => self.words.push(word.to_owned()),
            }
            return true;
        }
        let Some((name, outcome)) = line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... ")) else {
            return false;
        };
        self.tests.insert((self.file.clone(), name.to_owned()), outcome == "ok");
        true
    }

    /// How many tests have passed.
    pub(crate) fn passed(&self) -> usize {
        self.tests.values().filter(|passed| **passed).count()
    }

    /// Why the run has failed; nothing when all that was planned has run and passed, and the guest has said so.
    pub(crate) fn complaints(&self, planned: &[Planned]) -> Vec<String> {
        let mut complaints = self.words.clone();
        for ((file, name), passed) in &self.tests {
            if !passed {
                complaints.push(format!("{file}: {name} failed"));
            }
        }
        complaints.extend(planned.iter().filter_map(|part| self.missing(part)));
        match self.verdict.as_deref() {
            Some("0") if self.tests.is_empty() => complaints.push("not one test has run".to_owned()),
            Some("0") => {}
            Some(other) => complaints.push(format!("the guest's verdict is {other}")),
            None => complaints.push("the guest ended without a verdict".to_owned()),
        }
        complaints
    }

    fn missing(&self, Planned(file, name): &Planned) -> Option<String> {
        let has_run = self.tests.contains_key(&((*file).to_owned(), (*name).to_owned()));
        (!has_run).then(|| format!("{file}: {name} was planned and has not run to its end"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(lines: &[&str]) -> Heard {
        let mut heard = Heard::default();
        for line in lines {
            heard.line(line);
        }
        heard
    }

    const X: Planned = Planned("a", "x");

    #[test]
    fn a_guest_that_ran_what_was_planned_has_passed() {
        let heard = heard(&["weir-vm: up 6.1 x86_64", "weir-vm: file a", "test x ... ok", "weir-vm: verdict 0"]);
        assert_eq!(heard.complaints(&[X]), Vec::<String>::new());
        assert_eq!((heard.passed(), heard.up.as_deref()), (1, Some("6.1 x86_64")));
    }

    #[test]
    fn a_missing_line_is_a_failure() {
        let planned = [X];
        let silent = ["weir-vm: up 6.1 x86_64", "weir-vm: file a", "test x ... ok"];
        assert_eq!(heard(&silent).complaints(&planned).len(), 1, "no verdict");
        assert_eq!(heard(&["weir-vm: file a", "weir-vm: verdict 0"]).complaints(&planned).len(), 2, "no test");
        let elsewhere = ["weir-vm: file b", "test x ... ok", "weir-vm: verdict 0"];
        assert_eq!(heard(&elsewhere).complaints(&planned).len(), 1, "another file's");
        assert_eq!(heard(&[]).complaints(&[]).len(), 1, "nothing at all");
    }

    #[test]
    fn a_failed_test_and_a_complaining_kernel_are_named() {
        let lines = ["weir-vm: file a", "test x ... FAILED", "weir-vm: the kernel complains", "weir-vm: verdict 1"];
        let complaints = heard(&lines).complaints(&[X]);
        assert_eq!(complaints, ["the kernel complains", "a: x failed", "the guest's verdict is 1"]);
    }
}

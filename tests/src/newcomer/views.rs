//! What a newcomer sees of the traffic with two more lines in the configuration: on a terminal, on the page, and in `/metrics`.

use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

use super::steps::{PATIENCE, RATE, Walk, say};
use crate::browser::Browser;
use crate::clock::now;
use crate::eventually::eventually;
use crate::page::{self, PAGE, in_the_books};
use crate::scenario::{Books, SOON};

impl Walk<'_> {
    /// All of it within two minutes of `started`, the first start of the service. The page stays open.
    pub(super) fn sees_everything(&self, started: Instant) -> Result<Browser> {
        self.adds_two_lines()?;
        self.scrapes()?;
        let flow = self.world.stream(RATE)?;
        self.watches()?;
        let browser = self.looks_at_the_page()?;
        flow.stop()?;
        let took = now() - started;
        ensure!(took < PATIENCE, "it took {took:?} to see everything");
        say(&format!("everything is seen {} s after `systemctl start weir`", took.as_secs()));
        Ok(browser)
    }

    fn adds_two_lines(&self) -> Result<()> {
        self.machine.run(&format!("printf '[api]\\n%s\\n' '{}' >> /etc/weir/weir.toml", page::LISTEN))?;
        self.machine.run("weir config check && systemctl restart weir")?;
        self.is_active()
    }

    /// `/metrics` tells of as much more as the capture at the far end has seen meanwhile.
    fn scrapes(&self) -> Result<()> {
        let (before, books) = eventually("a quiet moment", SOON, || {
            let before = self.scraped()?;
            let books = Books::open(self.world, 0)?;
            ensure!(self.scraped()? == before, "something is under way");
            Ok((before, books))
        })?;
        let flow = self.world.stream(RATE)?;
        flow.carries(2 * RATE, SOON)?;
        flow.stop()?;
        let more = eventually("/metrics to say what the capture saw", SOON, || {
            let crossed = books.agree(self.world)?;
            let (uplink, downlink) = self.scraped()?;
            let more = (uplink - before.0, downlink - before.1);
            ensure!(more == (crossed.uplink, crossed.downlink), "{more:?} more, the capture saw {crossed:?}");
            Ok(more)
        })?;
        books.close(self.world)?;
        ensure!(more.0 >= 2 * RATE, "only {more:?} more");
        say(&format!("in /metrics: {} octets up and {} down more, as the capture saw", more.0, more.1));
        Ok(())
    }

    /// Octets that have passed, uplink and downlink, as a scrape tells.
    fn scraped(&self) -> Result<(u64, u64)> {
        let text = self.machine.run(&format!("curl --silent --show-error --fail {PAGE}metrics"))?;
        let of = |direction: &str| -> Result<u64> {
            let labels = ["link=\"wan0\"".to_owned(), format!("direction=\"{direction}\"")];
            let mut samples = text.lines().filter(|line| line.starts_with("weir_passed_octets_total{"));
            let sample = samples.find(|line| labels.iter().all(|label| line.contains(label.as_str())));
            let figure =
                sample.and_then(|line| line.rsplit(' ').next()).with_context(|| format!("no {labels:?}: {text}"))?;
            figure.parse().with_context(|| format!("octets in {figure}"))
        };
        Ok((of("uplink")?, of("downlink")?))
    }

    fn watches(&self) -> Result<()> {
        let mut terminal = self.machine.terminal("weir watch")?;
        eventually("weir watch to show the link", SOON, || {
            let text = terminal.text();
            ensure!(text.contains(" wan0 ") && text.contains("ACTIVE"), "{text}");
            Ok(())
        })?;
        // From KiB over kB to all digits.
        terminal.press("uu")?;
        let first = eventually("weir watch to tell octets", SOON, || used(&terminal.text()))?;
        let later = eventually("weir watch to tell of more", SOON, || {
            let used = used(&terminal.text())?;
            ensure!(used > first + RATE, "{used} after {first}");
            Ok(used)
        })?;
        terminal.press("q")?;
        terminal.ends(SOON)?;
        say(&format!(
            "in `weir watch`: wan0 active, {first} octets, then {later}; q ends it and gives the terminal back"
        ));
        Ok(())
    }

    fn looks_at_the_page(&self) -> Result<Browser> {
        let browser = Browser::start(&self.world.topology.gateway, &self.world.workdir)?;
        browser.open(PAGE)?;
        browser.shows("#live-words", "live", page::PATIENCE)?;
        browser.shows("[data-link=wan0] .state", "active", page::PATIENCE)?;
        let passed = || in_the_books(&browser, "wan0: passed");
        let first = eventually("the page to show octets", SOON, passed)?;
        let later = eventually("the page to show more", SOON, || {
            let shown = passed()?;
            ensure!(shown > first + RATE, "{shown} after {first}");
            Ok(shown)
        })?;
        let console = browser.console()?;
        ensure!(console.is_empty(), "the console says {console:#?}");
        say(&format!("on the page: wan0 active, {first} octets, then {later}"));
        Ok(browser)
    }
}

/// The octets of the grant that are used, as `weir watch` says in all digits.
fn used(text: &str) -> Result<u64> {
    let Some((before, _)) = text.split_once(" octets of it used") else { bail!("no grant in\n{text}") };
    let (_, figure) = before.rsplit_once("octets, ").with_context(|| format!("no octets in\n{text}"))?;
    figure.replace(',', "").parse().with_context(|| format!("octets in {figure}"))
}

//! The page in a real browser, under real traffic, and the metrics as their reference parser reads them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use e2e::browser::{Browser, Screen};
use e2e::eventually::eventually;
use e2e::page::{LISTEN, PAGE, PATIENCE, in_the_books};
use e2e::scenario::{Books, Plot, SOON, World, chunked};
use e2e::topology::{Layout, Medium};

const PLENTY: u64 = 1 << 30;

/// The key, as `WebDriver` spells it.
const ENTER: char = '\u{E007}';

/// The red of the style sheet, light.
const RED: &str = "rgb(179, 38, 30)";

const DESK: Screen = Screen { width: 1100, height: 900, scheme: "light" };
const NIGHT: Screen = Screen { scheme: "dark", ..DESK };
const PHONE: Screen = Screen { width: 360, height: 780, scheme: "light" };

/// A running world with its page open.
fn opened(plot: &Plot) -> Result<(World, Browser)> {
    let world = World::online(plot)?;
    let browser = Browser::start(&world.topology.gateway, &world.workdir)?;
    browser.show_on(DESK)?;
    browser.open(PAGE)?;
    browser.shows("#live-words", "live", PATIENCE)?;
    Ok((world, browser))
}

/// Where pictures go: beside the binaries, to be looked at.
fn pictures() -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let target = here.ancestors().nth(3).context("the target directory")?.join("page");
    std::fs::create_dir_all(&target)?;
    Ok(target)
}

fn is_quiet(browser: &Browser) -> Result<()> {
    let console = browser.console()?;
    ensure!(console.is_empty(), "the console says {console:#?}");
    Ok(())
}

/// No problem is told. (Warnings are this machine's affair: its clock, and what it sends before the meter is there.)
fn is_well(browser: &Browser) -> Result<()> {
    let problems = browser.run("return document.querySelectorAll('#troubles [data-level=problem]').length")?;
    ensure!(problems == 0, "something is wrong: {}", browser.text("#troubles")?);
    Ok(())
}

fn fits(browser: &Browser, screen: Screen) -> Result<()> {
    browser.show_on(screen)?;
    let width = browser.run("return document.documentElement.scrollWidth")?;
    ensure!(width.as_u64().is_some_and(|width| width <= u64::from(screen.width)), "{width} wide on {screen:?}");
    Ok(())
}

#[test]
fn the_page_shows_live_traffic_to_the_octet_and_survives_a_restart_of_the_agent() -> Result<()> {
    let (mut world, browser) = opened(&Plot::of(chunked(PLENTY, 4 << 20)).api(LISTEN))?;
    browser.shows("#links .state", "active", PATIENCE)?;
    is_well(&browser)?;
    let (books, flow) = world.under_traffic(400_000, 400_000)?;
    eventually("the page to show the rate", PATIENCE, || {
        let rate = browser.text("#links .rate b")?;
        ensure!(rate.contains("KiB/s"), "{rate}");
        Ok(())
    })?;
    browser.shows("#timeline", "units granted", PATIENCE)?;
    flow.stop()?;
    // The capture says the same as the kernel; the page has to say what both say.
    books.agree(&world)?;
    let passed = eventually("the page to show what has passed", PATIENCE, || {
        let (shown, passed) = (in_the_books(&browser, "wan0: passed")?, world.passed(0)?);
        ensure!(shown == passed, "it shows {shown} of {passed}");
        Ok(passed)
    })?;
    browser.shows("#verdict", "drift 0 octets", PATIENCE)?;
    is_quiet(&browser)?;
    world.kill_agent()?;
    browser.shows("#live-words", "does not answer", PATIENCE)?;
    world.start_agent(&[])?;
    browser.shows("#live-words", "live", PATIENCE)?;
    let flow = world.stream(400_000)?;
    eventually("the page to go on", PATIENCE, || {
        let shown = in_the_books(&browser, "wan0: passed")?;
        ensure!(shown > passed + 400_000, "it shows {shown} after {passed}");
        Ok(())
    })?;
    flow.stop()?;
    let console = browser.console()?;
    // While nobody listened the browser said that nobody did.
    ensure!(console.iter().all(|line| line.contains("net::ERR_")), "the console says {console:#?}");
    Ok(())
}

#[test]
fn an_exhausted_link_is_red_and_says_why_and_what_to_do_until_a_top_up() -> Result<()> {
    let total = 2_000_000;
    let layout = Layout::with_uplinks(&[Medium::Veth, Medium::Veth]);
    let plot = Plot::of(chunked(total, 1_000_000)).and(chunked(PLENTY, 4 << 20)).over(layout).api(LISTEN);
    let (world, browser) = opened(&plot)?;
    let flow = world.stream(400_000)?;
    browser.shows("[data-link=wan0] .state", "exhausted", PATIENCE)?;
    browser.shows("[data-link=wan0] .why", "the package is used up; traffic is blocked until a top-up", PATIENCE)?;
    for part in [".state", ".why"] {
        ensure!(browser.style(&format!("[data-link=wan0] {part}"), "color")? == RED, "{part} is not red");
    }
    browser.shows("[data-link=wan0]", "MiB of the package's 1.9", PATIENCE)?;
    browser.shows("#troubles [data-level=problem]", "Buy a top-up", PATIENCE)?;
    browser.shows("#timeline", "used up", PATIENCE)?;
    let directory = pictures()?;
    for (screen, name) in [(DESK, "light"), (NIGHT, "dark"), (PHONE, "phone")] {
        fits(&browser, screen)?;
        browser.picture(&directory.join(format!("{name}.png")))?;
    }
    browser.show_on(DESK)?;
    world.top_up(0, PLENTY)?;
    browser.shows("[data-link=wan0] .state", "active", PATIENCE)?;
    eventually("nothing to be wrong", PATIENCE, || is_well(&browser))?;
    flow.stop()?;
    is_quiet(&browser)
}

#[test]
fn the_page_asks_for_the_token_and_runs_nothing_that_is_not_its_own() -> Result<()> {
    let token = "0123456789abcdef-secret";
    let plot = Plot::of(chunked(PLENTY, 4 << 20)).api(&format!("{LISTEN}\ntoken_file = \"token\""));
    let mut world = World::build(&plot)?;
    let file = world.workdir.write("token", token)?;
    restrict(&file)?;
    world.start_agent(&[])?;
    world.reaches(0, &["active"])?;
    let browser = Browser::start(&world.topology.gateway, &world.workdir)?;
    browser.open(PAGE)?;
    browser.shows("#login", "A token, please", PATIENCE)?;
    ensure!(browser.text("#content")?.is_empty(), "it shows something to strangers");
    for (said, then) in [("a-wrong-token-of-many", "#login-error"), (token, "#live-words")] {
        eventually("the field to have the focus", SOON, || {
            ensure!(browser.run("return document.activeElement.id")? == "token", "it has not");
            Ok(())
        })?;
        browser.press(&said.chars().collect::<Vec<_>>())?;
        browser.press(&[ENTER])?;
        browser.shows(then, if then == "#live-words" { "live" } else { "does not take" }, PATIENCE)?;
    }
    browser.shows("[data-link=wan0] .state", "active", PATIENCE)?;
    let injected = "const script = document.createElement('script'); script.textContent = 'window.injected = true'; \
                    document.body.append(script); return window.injected === true";
    ensure!(browser.run(injected)? == false, "a script of somebody else ran");
    let told = browser.console()?;
    ensure!(told.iter().any(|line| line.contains("Content Security Policy")), "the policy said nothing: {told:#?}");
    Ok(())
}

fn restrict(file: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).context("restricting the token")
}

/// Reads what is served as the reference implementation does, which is strict, and prints samples as `name{labels} value`.
const READER: &str = "
import sys, urllib.request
from prometheus_client.openmetrics.parser import text_string_to_metric_families as families
answer = urllib.request.urlopen('http://127.0.0.1:9433/metrics', timeout=20)
assert answer.headers['Content-Type'].startswith('application/openmetrics-text'), answer.headers
for family in families(answer.read().decode()):
    for sample in family.samples:
        labels = ','.join(f'{name}={value}' for name, value in sorted(sample.labels.items()))
        print(f'{sample.name}{{{labels}}} {sample.value:.0f}')
";

/// One scrape, one line a sample.
fn scraped(world: &World) -> Result<String> {
    let mut command = world.topology.gateway.command("/usr/bin/python3");
    let output = command.args(["-c", READER]).output().context("/usr/bin/python3 with python3-prometheus-client")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).context("samples")
}

/// Every metric that the alert rules or the dashboard ask for.
fn asked_for() -> Vec<&'static str> {
    let texts = [include_str!("../../docs/prometheus/weir.rules.yml"), include_str!("../../docs/grafana/weir.json")];
    let names =
        texts.iter().flat_map(|text| text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_')));
    names.filter(|word| word.starts_with("weir_")).collect()
}

#[test]
fn the_metrics_are_open_metrics_and_say_what_the_kernel_has_counted() -> Result<()> {
    let world = World::online(&Plot::of(chunked(PLENTY, 1 << 20)).api(LISTEN))?;
    let books = Books::open(&world, 0)?;
    let flow = world.stream(1_000_000)?;
    flow.carries(3_000_000, SOON)?;
    flow.stop()?;
    books.agree(&world)?;
    let text = eventually("the metrics to say what the kernel says", PATIENCE, || {
        let (text, kernel) = (scraped(&world)?, world.kernel(0)?);
        for line in [
            format!("weir_passed_octets_total{{direction=uplink,link=wan0}} {}", kernel.uplink.passed.octets),
            format!("weir_passed_octets_total{{direction=downlink,link=wan0}} {}", kernel.downlink.passed.octets),
            "weir_link_state{link=wan0,state=active} 1".to_owned(),
            "weir_ledger_drift_octets{} 0".to_owned(),
        ] {
            ensure!(text.lines().any(|said| said == line), "no {line} in\n{text}");
        }
        // All that was ever metered here has been in this billing period.
        let used: u64 = text
            .lines()
            .filter_map(|line| line.strip_prefix("weir_period_used_octets{")?.rsplit_once(' ')?.1.parse::<u64>().ok())
            .sum();
        let passed = kernel.uplink.passed.octets + kernel.downlink.passed.octets;
        ensure!(used == passed, "{used} octets in the period, {passed} passed");
        Ok(text)
    })?;
    let grants = text.lines().find_map(|line| line.strip_prefix("weir_grants_total{link=wan0} "));
    let grants: u64 = grants.with_context(|| format!("grants in {text}"))?.parse()?;
    ensure!(grants > 1, "{grants} grants");
    let asked = asked_for();
    ensure!(asked.len() > 20, "only {asked:?} are asked for");
    for name in asked {
        // A series with labels of a kind of happening is there from its first one on.
        let is_there = text.lines().any(|line| line.starts_with(&format!("{name}{{")));
        ensure!(is_there || SELDOM.contains(&name), "there is no {name}");
    }
    Ok(())
}

/// What is counted from its first time on, and has not happened in this test.
const SELDOM: [&str; 5] = [
    "weir_acknowledgements_total",
    "weir_problems_total",
    "weir_warnings_total",
    "weir_refusals_total",
    // Nothing is guessed from a few seconds.
    "weir_period_estimate_octets",
];

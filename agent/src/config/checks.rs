//! What each key may say, and which keys go together.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeValue;
use url::{ParseError, Url};
use uuid::Uuid;

use crate::quota::{FailureHandling, MOST_FILTERS, OfflineGrace, Repetition, WhenUsedUp, rules};
use crate::units::{OctetRate, Octets, RatingGroup, SubscriberIdentifier};
use crate::usage::BillingDay;

use super::reader::{Section, kind};
use super::values::{self, within};
use super::{Agent, Api, Config, DEFAULT_LARGEST_CHUNK, Device, Link, OnboardingMode, Server, Usage, fits};

pub(crate) const CHUNK: RangeInclusive<Octets> = Octets::new(64 << 10)..=Octets::new(1 << 40);
const SLICE: RangeInclusive<Octets> = Octets::new(64 << 10)..=Octets::new(1 << 40);
pub(crate) const GRACE_OCTETS: RangeInclusive<Octets> = Octets::ZERO..=Octets::new(1 << 40);
const RESERVE: RangeInclusive<Octets> = Octets::new(64 << 10)..=Octets::new(1 << 30);
pub(crate) const REPORT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24);
const CHECKPOINT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(1);
const WAIT: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_mins(10);
const CONNECT: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_mins(1);
const ANSWER: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_mins(10);
pub(crate) const GRACE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(31 * 24);
pub(crate) const RATE: RangeInclusive<OctetRate> = OctetRate::per_second(1000)..=OctetRate::per_second(1_250_000_000);

/// Filters, by name, at most.
const MOST_NAMES: usize = 16;

/// A checked file: problems are with the source.
pub(super) enum Checked {
    /// Every required key was there and right.
    Right(Box<Config>),
    /// At least one was not.
    Wrong,
}

/// Checks the whole file.
pub(super) fn config(root: &Section<'_>, base: &Path) -> Checked {
    let device = device(&root.section("device"), base);
    let server = server(&root.section("server"), base);
    let mode = server.as_ref().map(|server| server.onboarding);
    let ledger = root.section("ledger");
    let path = ledger.optional("path", |value| path(value, base)).unwrap_or_else(|| "/var/lib/weir/ledger.db".into());
    ledger.finish();
    let datapath = root.section("datapath");
    let pins = datapath.optional("pin_root", absolute).unwrap_or_else(|| "/sys/fs/bpf/weir".into());
    datapath.finish();
    let agent = agent(&root.section("agent"), base);
    let usage = usage(&root.section("usage"));
    let api = api(&root.section("api"), base);
    let captive_portal = captive_portal(&root.section("captive_portal"));
    let filters = filters(root);
    let links = links(root, mode, &filters);
    root.finish();
    match (device, server, links) {
        (Some(device), Some(server), Some(links)) => Checked::Right(Box::new(Config {
            device,
            server,
            ledger: path,
            pin_root: pins,
            agent,
            usage,
            api,
            captive_portal,
            filters,
            links,
        })),
        _ => Checked::Wrong,
    }
}

fn device(section: &Section<'_>, base: &Path) -> Option<Device> {
    let id = section.required("id", |value| {
        let id = text(value, 1..=64)?;
        let fine = id.bytes().all(|c| c.is_ascii_alphanumeric() || b"._-".contains(&c));
        if fine {
            Ok(id)
        } else {
            Err(format!("{id:?} has a character that is not a letter, a digit, `.`, `_` or `-`"))
        }
    });
    let serial = section.optional("serial", |value| text(value, 1..=128));
    let model = section.optional("model", |value| text(value, 1..=128));
    let key_file = section.optional("key_file", |value| path(value, base));
    let claim_code_file = section.optional("claim_code_file", |value| path(value, base));
    let nf_instance_id = section.optional("nf_instance_id", |value| {
        let written = text(value, 1..=64)?;
        Uuid::parse_str(&written).map_err(|_| format!("{written:?} is not a UUID"))
    });
    section.finish();
    let id = id?;
    Some(Device {
        serial: serial.unwrap_or_else(|| id.clone()),
        model: model.unwrap_or_else(|| "generic".to_owned()),
        key_file: key_file.unwrap_or_else(|| "/var/lib/weir/device.pem".into()),
        claim_code_file,
        nf_instance_id: nf_instance_id
            .unwrap_or_else(|| Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("urn:weir:device:{id}").as_bytes())),
        id,
    })
}

fn server(section: &Section<'_>, base: &Path) -> Option<Server> {
    let plaintext = section.optional("allow_plaintext", boolean).unwrap_or(false);
    let url = section.required("url", |value| url(value, plaintext));
    let onboarding = section.optional("onboarding", |value| {
        word(value, &[("server", OnboardingMode::Server), ("static", OnboardingMode::Static)])
    });
    let tls_ca = section.optional("tls_ca", |value| path(value, base));
    let connect = section.optional("connect_timeout", |value| duration(value, &CONNECT));
    let answer = section.optional("answer_timeout", |value| duration(value, &ANSWER));
    let ways = section.optional("ways", ways);
    let deduplicates = section.optional("deduplicates", boolean).unwrap_or(true);
    section.finish();
    Some(Server {
        url: url?,
        onboarding: onboarding.unwrap_or(OnboardingMode::Server),
        tls_ca,
        connect_timeout: connect.unwrap_or(Duration::from_secs(5)),
        answer_timeout: answer.unwrap_or(Duration::from_mins(2)),
        ways: ways.unwrap_or_default(),
        repetition: if deduplicates { Repetition::Recognised } else { Repetition::Charged },
    })
}

fn agent(section: &Section<'_>, base: &Path) -> Agent {
    let agent = Agent {
        socket: section.optional("socket", |value| path(value, base)).unwrap_or_else(|| "/run/weir/weir.sock".into()),
        report_interval: section.optional("report_interval", |value| duration(value, &REPORT)),
        checkpoint_interval: section
            .optional("checkpoint_interval", |value| duration(value, &CHECKPOINT))
            .unwrap_or(Duration::from_secs(5)),
        max_unrecorded: section.optional("max_unrecorded", |value| octets(value, &SLICE)),
        shutdown_wait: section
            .optional("shutdown_wait", |value| duration(value, &WAIT))
            .unwrap_or(Duration::from_secs(10)),
        follow_default_route: section.optional("follow_default_route", boolean).unwrap_or(false),
        resolvers: section.optional("resolvers", addresses),
        control_reserve: section
            .optional("control_reserve", |value| octets(value, &RESERVE))
            .unwrap_or(Octets::new(1 << 20)),
    };
    section.finish();
    agent
}

fn usage(section: &Section<'_>) -> Usage {
    let usage = Usage {
        time_zone: section.optional("time_zone", time_zone),
        billing_day: section.optional("billing_day", billing_day).unwrap_or(BillingDay::FIRST),
    };
    section.finish();
    usage
}

fn api(section: &Section<'_>, base: &Path) -> Option<Api> {
    let listen = section.optional("listen", socket_address);
    let token_file = section.optional("token_file", |value| path(value, base));
    let hosts = section.optional("hosts", hosts);
    section.finish();
    if !section.has("listen") {
        for key in ["token_file", "hosts"] {
            if section.has(key) {
                section.problem(key, "has no effect without listen");
            }
        }
    }
    let listen = listen?;
    if !listen.ip().is_loopback() && !section.has("token_file") {
        section.problem("listen", "is not a loopback address: set token_file as well, so that not everybody may look");
    } else if section.has("hosts") && !section.has("token_file") {
        let why = "are names for a proxy, and whoever comes through a proxy is on this machine: set token_file as well, so that not everybody may look";
        section.problem("hosts", why);
    }
    Some(Api { listen, token_file, hosts: hosts.unwrap_or_default() })
}

fn captive_portal(section: &Section<'_>) -> Option<SocketAddr> {
    let listen = section.optional("listen", |value| {
        let address = socket_address(value)?;
        if address.ip().is_unspecified() {
            Err(format!(
                "{address} is every address, those of the uplinks too: name one that hosts behind the gateway reach"
            ))
        } else {
            Ok(address)
        }
    });
    section.finish();
    listen
}

/// The filters, whose rules are read as they would be when a link is used up.
fn filters(root: &Section<'_>) -> BTreeMap<String, Vec<String>> {
    let sections = root.sections("filter");
    if sections.len() > MOST_NAMES {
        root.problem("filter", &format!("has {} filters, 0 .. {MOST_NAMES} are allowed", sections.len()));
    }
    let mut filters = BTreeMap::new();
    for section in sections {
        let name = section.required("name", |value| text(value, 1..=64));
        let rules = section.required("rules", filter_rules);
        if name.as_ref().is_some_and(|name| filters.contains_key(name)) {
            section.problem("name", "is already that of another [[filter]]");
        }
        section.finish();
        filters.extend(name.zip(rules));
    }
    filters
}

fn filter_rules(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let DeValue::Array(list) = value else { return Err(format!("is {}, not a list of filter rules", kind(value))) };
    if !(1..=MOST_FILTERS).contains(&list.len()) {
        return Err(format!("has {} rules, 1 .. {MOST_FILTERS} are allowed", list.len()));
    }
    let texts = list.iter().map(|item| text(item.get_ref(), 1..=500)).collect::<Result<Vec<_>, _>>()?;
    rules(texts.iter().map(String::as_str)).map_err(|error| error.to_string())?;
    Ok(texts)
}

fn links(
    root: &Section<'_>,
    mode: Option<OnboardingMode>,
    filters: &BTreeMap<String, Vec<String>>,
) -> Option<Vec<Link>> {
    let sections = root.sections("link");
    if sections.is_empty() && !root.has("link") {
        root.problem("link", "is missing: at least one [[link]] is required");
    }
    let links: Vec<Option<Link>> = sections.iter().map(|section| link(section, mode, filters)).collect();
    for (index, (section, later)) in sections.iter().zip(&links).enumerate() {
        for (other, earlier) in links.iter().take(index).enumerate() {
            if let (Some(later), Some(earlier)) = (later, earlier) {
                apart(section, later, (other, earlier));
            }
        }
    }
    links.into_iter().collect()
}

/// Two links may not stand for the same interface, slot or SIM.
fn apart(section: &Section<'_>, later: &Link, (index, earlier): (usize, &Link)) {
    let same = |key, value: &str| section.problem(key, &format!("{value:?} is already that of link[{index}]"));
    if later.name == earlier.name {
        same("name", &later.name);
    } else if fits(&earlier.name, &later.name) || fits(&later.name, &earlier.name) {
        section.problem(
            "name",
            &format!("{:?} and {:?} of link[{index}] fit the same interface", later.name, earlier.name),
        );
    }
    if later.slot == earlier.slot {
        same(if section.has("slot") { "slot" } else { "name" }, &later.slot);
    }
    if let (Some(iccid), true) = (&later.iccid, later.iccid == earlier.iccid) {
        same("iccid", iccid);
    }
    if let (Some(subscriber), true) = (&later.subscriber, later.subscriber == earlier.subscriber) {
        same("subscriber", subscriber.as_str());
    }
}

fn link(section: &Section<'_>, mode: Option<OnboardingMode>, filters: &BTreeMap<String, Vec<String>>) -> Option<Link> {
    let name = section.required("name", interface);
    let pattern = name.as_ref().is_some_and(|name| name.contains('*'));
    let slot = section.optional("slot", |value| text(value, 1..=64));
    if pattern && !section.has("slot") {
        section.problem("slot", "is missing, and is required where the name is a pattern");
    }
    let rating_group = section.optional("rating_group", rating_group);
    let subscriber = section.optional("subscriber", subscriber);
    match mode {
        Some(OnboardingMode::Static) => {
            for key in ["subscriber", "rating_group"] {
                if !section.has(key) {
                    section.problem(key, "is missing, and is required with onboarding = \"static\"");
                }
            }
        }
        Some(OnboardingMode::Server) if section.has("subscriber") => {
            section.problem("subscriber", "is for onboarding = \"static\" only: the server says who pays");
        }
        Some(OnboardingMode::Server) | None => {}
    }
    let chunk = section.optional("chunk", |value| octets(value, &CHUNK));
    let largest_chunk = section.optional("largest_chunk", |value| octets(value, &CHUNK));
    if let (Some(chunk), Some(largest)) = (chunk, largest_chunk)
        && largest < chunk
    {
        section.problem(
            "largest_chunk",
            &format!("is {largest}, which is below the chunk of {chunk}: raise it, or leave it out"),
        );
    }
    let link = Link {
        slot: slot.or_else(|| name.clone()).unwrap_or_default(),
        name: name.unwrap_or_default(),
        imei: section.optional("imei", |value| digits(value, 14..=16)),
        iccid: section.optional("iccid", |value| digits(value, 18..=22)),
        rating_group,
        chunk,
        largest_chunk: largest_chunk.unwrap_or_else(|| DEFAULT_LARGEST_CHUNK.max(chunk.unwrap_or(Octets::ZERO))),
        subscriber,
        apn: section.optional("apn", |value| text(value, 1..=100)),
        when_used_up: when_used_up(section),
        restrict_to: section.optional("restrict_to", |value| {
            let name = text(value, 1..=64)?;
            if filters.contains_key(&name) {
                Ok(name)
            } else {
                Err(format!("there is no [[filter]] {name:?} that is right"))
            }
        }),
        failure_handling: section.optional("failure_handling", failure_handling),
        offline_grace: offline_grace(section),
    };
    section.finish();
    (!link.name.is_empty()).then_some(link)
}

fn when_used_up(section: &Section<'_>) -> Option<WhenUsedUp> {
    let plain = [("block", Some(WhenUsedUp::Block)), ("restrict", Some(WhenUsedUp::Restrict)), ("throttle", None)];
    let chosen = section.optional("when_used_up", |value| word(value, &plain));
    let rate = section.optional("throttle_rate", rate);
    match chosen {
        Some(None) if !section.has("throttle_rate") => {
            section.problem("throttle_rate", "is missing, and is required with when_used_up = \"throttle\"");
            None
        }
        Some(None) => rate.map(WhenUsedUp::Throttle),
        Some(Some(_)) | None => {
            if section.has("throttle_rate") && (chosen.is_some() || !section.has("when_used_up")) {
                section.problem("throttle_rate", "has no effect without when_used_up = \"throttle\"");
            }
            chosen.flatten()
        }
    }
}

fn offline_grace(section: &Section<'_>) -> Option<OfflineGrace> {
    if !section.has("offline_grace") {
        // Asked for all the same, so that the key is known.
        return section.optional("offline_grace", |_| Err(String::new()));
    }
    let grace = section.section("offline_grace");
    let octets = grace.required("octets", |value| octets(value, &GRACE_OCTETS));
    let duration = grace.required("duration", |value| duration(value, &GRACE));
    grace.finish();
    Some(OfflineGrace { octets: octets?, duration: duration? })
}

fn failure_handling(value: &DeValue<'_>) -> Result<FailureHandling, String> {
    let words = [
        ("terminate", FailureHandling::Terminate),
        ("continue", FailureHandling::Continue),
        ("retry_and_terminate", FailureHandling::RetryAndTerminate),
    ];
    word(value, &words)
}

/// A text of so many characters, none of them a control character.
fn text(value: &DeValue<'_>, length: RangeInclusive<usize>) -> Result<String, String> {
    let DeValue::String(text) = value else { return Err(format!("is {}, not a text", kind(value))) };
    let characters = text.chars().count();
    if !length.contains(&characters) {
        return Err(format!("has {characters} characters, {} .. {} are allowed", length.start(), length.end()));
    }
    if text.chars().any(char::is_control) {
        return Err(format!("{text:?} holds a control character"));
    }
    Ok(text.to_string())
}

/// One of a few words.
fn word<T: Copy>(value: &DeValue<'_>, words: &[(&str, T)]) -> Result<T, String> {
    let written = text(value, 0..=64)?;
    let found = words.iter().find(|(word, _)| *word == written);
    found.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let allowed: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        format!("{written:?} is not one of {}", allowed.join(", "))
    })
}

fn boolean(value: &DeValue<'_>) -> Result<bool, String> {
    match value {
        DeValue::Boolean(value) => Ok(*value),
        other => Err(format!("is {}, not true or false", kind(other))),
    }
}

/// A number as it was written, or a text: both are read by the rules of [`values`].
fn quantity(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .map(|number| number.to_string())
            .map_err(|_| format!("{number} is too large")),
        other => Err(format!("is {}, not a number with a unit", kind(other))),
    }
}

fn octets(value: &DeValue<'_>, range: &RangeInclusive<Octets>) -> Result<Octets, String> {
    within(values::octets(&quantity(value)?)?, range)
}

fn duration(value: &DeValue<'_>, range: &RangeInclusive<Duration>) -> Result<Duration, String> {
    within(values::duration(&quantity(value)?)?, range)
}

fn rate(value: &DeValue<'_>) -> Result<OctetRate, String> {
    within(values::rate(&quantity(value)?)?, &RATE)
}

fn rating_group(value: &DeValue<'_>) -> Result<RatingGroup, String> {
    let DeValue::Integer(number) = value else { return Err(format!("is {}, not a whole number", kind(value))) };
    let group = u32::from_str_radix(number.as_str(), number.radix());
    group.map(RatingGroup::new).map_err(|_| format!("{number} is out of the range 0 .. {}", u32::MAX))
}

fn digits(value: &DeValue<'_>, length: RangeInclusive<usize>) -> Result<String, String> {
    let DeValue::String(text) = value else {
        return Err(format!("is {}, not a text of digits in quotes", kind(value)));
    };
    if length.contains(&text.len()) && text.bytes().all(|c| c.is_ascii_digit()) {
        return Ok(text.to_string());
    }
    Err(format!("{text:?} is not {} .. {} digits", length.start(), length.end()))
}

/// The name or rule of a time zone. Whether the system knows it is looked at when it is used.
fn time_zone(value: &DeValue<'_>) -> Result<String, String> {
    let zone = text(value, 1..=64)?;
    let fine = zone.bytes().all(|c| c.is_ascii_alphanumeric() || b"/_+-<>,.:".contains(&c));
    if fine && !zone.starts_with('/') && !zone.contains("..") {
        Ok(zone)
    } else {
        Err(format!(
            "{zone:?} is neither the name of a time zone (Europe/Berlin) nor a rule (CET-1CEST,M3.5.0,M10.5.0/3)"
        ))
    }
}

fn billing_day(value: &DeValue<'_>) -> Result<BillingDay, String> {
    let DeValue::Integer(number) = value else { return Err(format!("is {}, not a whole number", kind(value))) };
    let day = i8::from_str_radix(number.as_str(), number.radix()).ok().and_then(BillingDay::new);
    day.ok_or_else(|| format!("{number} is out of the range 1 .. 31"))
}

/// TS 29.571 `Supi`, IMSI form.
fn subscriber(value: &DeValue<'_>) -> Result<SubscriberIdentifier, String> {
    let written = text(value, 1..=32)?;
    let subscriber = SubscriberIdentifier::new(written.as_str());
    if subscriber.is_imsi() {
        return Ok(subscriber);
    }
    Err(format!("{written:?} is not \"imsi-\" and 5 .. 15 digits"))
}

/// An interface name as the kernel takes it (`dev_valid_name`), with `*` allowed.
fn interface(value: &DeValue<'_>) -> Result<String, String> {
    let name = text(value, 1..=15)?;
    if name.len() > 15
        || name == "."
        || name == ".."
        || name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace())
    {
        return Err(format!("{name:?} is not an interface name (1 .. 15 octets without blanks, `/` and `:`)"));
    }
    if name == "lo" {
        return Err("the loopback is not a paid uplink".to_owned());
    }
    Ok(name)
}

fn path(value: &DeValue<'_>, base: &Path) -> Result<PathBuf, String> {
    text(value, 1..=4095).map(|path| base.join(path))
}

fn absolute(value: &DeValue<'_>) -> Result<PathBuf, String> {
    let path = PathBuf::from(text(value, 1..=4095)?);
    if path.is_absolute() { Ok(path) } else { Err(format!("{} is not an absolute path", path.display())) }
}

/// Links, metered or not, in the order in which to try them.
fn ways(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let DeValue::Array(list) = value else { return Err(format!("is {}, not a list of interface names", kind(value))) };
    if list.len() > 16 {
        return Err(format!("has {} names, 0 .. 16 are allowed", list.len()));
    }
    list.iter().map(|item| interface(item.get_ref())).collect()
}

/// Where to listen.
fn socket_address(value: &DeValue<'_>) -> Result<SocketAddr, String> {
    let written = text(value, 1..=64)?;
    written.parse().map_err(|_| format!("{written:?} is not an address with a port, like \"127.0.0.1:9433\""))
}

/// Names by which the page may be asked for.
fn hosts(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let DeValue::Array(list) = value else { return Err(format!("is {}, not a list of host names", kind(value))) };
    if list.len() > 16 {
        return Err(format!("has {} names, 0 .. 16 are allowed", list.len()));
    }
    let host = |item: &DeValue<'_>| {
        let written = text(item, 1..=253)?;
        let fine = written.bytes().all(|c| c.is_ascii_alphanumeric() || b".-".contains(&c));
        if fine {
            Ok(written)
        } else {
            Err(format!("{written:?} is not a host name: letters, digits, `.` and `-`, no port"))
        }
    };
    list.iter().map(|item| host(item.get_ref())).collect()
}

fn addresses(value: &DeValue<'_>) -> Result<Vec<IpAddr>, String> {
    let DeValue::Array(list) = value else { return Err(format!("is {}, not a list of IP addresses", kind(value))) };
    if list.len() > 16 {
        return Err(format!("has {} addresses, 0 .. 16 are allowed", list.len()));
    }
    let address = |item: &DeValue<'_>| {
        let written = text(item, 1..=64)?;
        written.parse().map_err(|_| format!("{written:?} is not an IP address"))
    };
    list.iter().map(|item| address(item.get_ref())).collect()
}

/// Where the server is. Plain HTTP gives tokens and bills to whoever listens: to loopback only, unless asked for.
fn url(value: &DeValue<'_>, plaintext: bool) -> Result<Url, String> {
    let written = text(value, 1..=2048)?;
    let url = Url::parse(&written).map_err(|error| {
        // Such names are looked up by their form in ASCII; the tables that find it are left out (0017).
        let help =
            if error == ParseError::IdnaError { "; write the host as DNS has it, in ASCII (xn--…)" } else { "" };
        format!("{written:?} is not a URL: {error}{help}")
    })?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    if !["http", "https"].contains(&url.scheme()) || host.is_empty() {
        return Err(format!("{written:?} is not https://host or http://host"));
    }
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Err(format!("{written:?} may hold a host, a port and a path, nothing else"));
    }
    let loopback = host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    if url.scheme() == "http" && !loopback && !plaintext {
        return Err(format!(
            "{written:?} is plain HTTP to another machine: use https, or set allow_plaintext = true in a test network"
        ));
    }
    Ok(url)
}

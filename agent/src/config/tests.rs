//! Every key of the sample loads; every way to get one wrong is told by file, line, key and range.

use super::*;
use crate::units::OctetRate;

const SAMPLE: &str = include_str!("../../../docs/weir.sample.toml");
const SMALL: &str = "[device]\nid = \"gw\"\n[server]\nurl = \"https://c.example\"\n[[link]]\nname = \"wwan0\"\n";

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("/etc/weir/weir.toml")).map_err(|error| error.to_string())
}

/// The sample with every commented-out key switched on.
fn every_key() -> String {
    let key = |line: &str| {
        let rest = line.strip_prefix("# ")?;
        let name = rest.split(" = ").next().filter(|name| name.bytes().all(|c| c.is_ascii_lowercase() || c == b'_'))?;
        (rest.len() > name.len()).then(|| rest.to_owned())
    };
    SAMPLE.lines().map(|line| key(line).unwrap_or_else(|| line.to_owned()) + "\n").collect()
}

#[test]
fn the_sample_loads_as_it_is() {
    let config = parse(SAMPLE).unwrap();
    assert_eq!(config.links.len(), 2);
    assert_eq!((config.links[0].chunk, config.links[0].largest_chunk), (None, DEFAULT_LARGEST_CHUNK));
    assert!(config.links[1].matches("usb0") && config.links[1].is_pattern() && !config.links[1].matches("wwan0"));
}

#[test]
fn the_sample_loads_with_every_key_switched_on() {
    let text = every_key().replace("onboarding = \"server\"", "onboarding = \"static\"");
    let (first, _) = text.rsplit_once("[[link]]").unwrap();
    let config = parse(first).unwrap();
    let link = &config.links[0];
    assert_eq!(config.server.onboarding, OnboardingMode::Static);
    assert_eq!(config.agent.report_interval, Some(Duration::from_mins(1)));
    assert_eq!(config.agent.max_unrecorded, Some(Octets::new(1 << 20)));
    assert_eq!(config.agent.resolvers.as_ref().map(Vec::len), Some(2));
    assert_eq!(link.subscriber, Some(SubscriberIdentifier::new("imsi-001010000000001")));
    assert_eq!(link.when_used_up, Some(WhenUsedUp::Throttle(OctetRate::per_second(16_000))));
    assert_eq!(link.restrict_to.as_deref(), Some("shop"));
    assert_eq!(config.filters["shop"].len(), 2);
    assert_eq!(link.failure_handling, Some(FailureHandling::Continue));
    let grace = OfflineGrace { octets: Octets::new(5 << 20), duration: Duration::from_hours(1) };
    assert_eq!(link.offline_grace, Some(grace));
    assert_eq!(config.usage.time_zone.as_deref(), Some("Europe/Berlin"));
}

#[test]
fn the_sample_shows_the_true_defaults() {
    let sample = every_key();
    let plain = parse(SMALL).unwrap();
    for (key, shown) in [
        ("key_file", plain.device.key_file.display().to_string()),
        ("path", plain.ledger.display().to_string()),
        ("pin_root", plain.pin_root.display().to_string()),
        ("socket", plain.agent.socket.display().to_string()),
    ] {
        assert!(sample.contains(&format!("\n{key} = \"{shown}\"\n")), "{key} = {shown}");
    }
    let text = sample.replace("onboarding = \"server\"", "onboarding = \"static\"");
    let shown = parse(text.rsplit_once("[[link]]").unwrap().0).unwrap();
    assert_eq!(shown.server.connect_timeout, plain.server.connect_timeout);
    assert_eq!(shown.server.answer_timeout, plain.server.answer_timeout);
    assert_eq!(shown.agent.checkpoint_interval, plain.agent.checkpoint_interval);
    assert_eq!(shown.agent.shutdown_wait, plain.agent.shutdown_wait);
    assert_eq!(shown.agent.control_reserve, plain.agent.control_reserve);
    assert_eq!(shown.usage.billing_day, plain.usage.billing_day);
    assert_eq!(shown.agent.report_interval, Some(DEFAULT_REPORT_INTERVAL));
    assert_eq!(shown.links[0].chunk, Some(DEFAULT_CHUNK));
    assert_eq!(shown.links[0].largest_chunk, DEFAULT_LARGEST_CHUNK);
}

#[test]
fn every_key_the_code_knows_is_in_the_sample() {
    let sample = every_key();
    let mut keys = 0;
    for call in include_str!("checks.rs").split([' ', '.']) {
        let Some(rest) = call.strip_prefix("optional(\"").or_else(|| call.strip_prefix("required(\"")) else {
            continue;
        };
        let key = rest.split('"').next().unwrap();
        assert!(
            sample.contains(&format!("\n{key} = "))
                || sample.contains(&format!("{{ {key} = "))
                || sample.contains(&format!(", {key} = ")),
            "{key}"
        );
        keys += 1;
    }
    assert!(keys > 30, "only {keys} keys were found in the source");
}

#[test]
fn a_small_file_gets_defaults() {
    let config = parse(SMALL).unwrap();
    assert_eq!(config.device.serial, "gw");
    assert_eq!(config.device.nf_instance_id.get_version_num(), 5);
    assert_eq!(config.server.connect_timeout, Duration::from_secs(5));
    assert_eq!(config.links[0].slot, "wwan0");
    assert_eq!(config.agent.resolvers, None);
    assert_eq!(config.agent.max_unrecorded, None);
}

#[test]
fn relative_paths_start_from_the_directory_of_the_file() {
    let config = parse(&SMALL.replace("[server]", "key_file = \"keys/device.pem\"\n[server]")).unwrap();
    assert_eq!(config.device.key_file, Path::new("/etc/weir/keys/device.pem"));
}

#[test]
fn the_api_is_served_over_tcp_only_where_the_file_says_so_and_openly_on_loopback_alone() {
    assert_eq!(parse(SMALL).unwrap().api, None);
    let with =
        |lines: &str| parse(&SMALL.replace("[[link]]", &format!("[api]\n{lines}\n[[link]]"))).unwrap().api.unwrap();
    assert_eq!(with("listen = \"127.0.0.1:9433\"").token_file, None);
    let guarded = with("listen = \"192.0.2.1:80\"\ntoken_file = \"token\"\nhosts = [\"gw.example\"]");
    assert_eq!(guarded.token_file.as_deref(), Some(Path::new("/etc/weir/token")));
    assert_eq!((guarded.listen.port(), guarded.hosts), (80, vec!["gw.example".to_owned()]));
    let proxied = with("listen = \"127.0.0.1:9433\"\ntoken_file = \"token\"\nhosts = [\"gw.example\"]");
    assert_eq!(proxied.hosts, ["gw.example"]);
}

#[test]
fn captives_are_told_only_where_the_file_says_so_and_by_any_one_address() {
    assert_eq!(parse(SMALL).unwrap().captive_portal, None);
    for listen in ["192.168.1.1:8908", "127.0.0.1:8908", "[fd00::1]:80"] {
        let section = format!("[captive_portal]\nlisten = \"{listen}\"\n[[link]]");
        let config = parse(&SMALL.replace("[[link]]", &section)).unwrap();
        assert_eq!(config.captive_portal.map(|address| address.to_string()).as_deref(), Some(listen));
    }
}

#[test]
fn plain_http_is_for_loopback_unless_asked_for() {
    let with = |url: &str| parse(&SMALL.replace("https://c.example", url));
    for url in ["http://127.0.0.1:8080", "http://[::1]:8080/base/", "http://localhost"] {
        assert!(with(url).is_ok(), "{url}");
    }
    assert!(with("http://10.0.0.1").unwrap_err().contains("plain HTTP to another machine"));
    assert!(with("http://10.0.0.1\"\nallow_plaintext = true\n#").is_ok());
}

#[test]
fn a_server_recognises_what_comes_again_unless_the_file_says_otherwise() {
    let with = |line: &str| parse(&SMALL.replace("[[link]]", &format!("{line}\n[[link]]"))).unwrap().server.repetition;
    assert_eq!(with(""), Repetition::Recognised);
    assert_eq!(with("deduplicates = true"), Repetition::Recognised);
    assert_eq!(with("deduplicates = false"), Repetition::Charged);
}

#[test]
fn a_server_with_a_name_in_other_letters_is_written_as_dns_has_it() {
    let config = parse(&SMALL.replace("c.example", "xn--bcher-kva.example/Gebühren")).unwrap();
    assert_eq!(config.server.url.as_str(), "https://xn--bcher-kva.example/Geb%C3%BChren");
}

#[test]
fn usage_is_told_in_the_zone_and_from_the_day_that_the_file_says() {
    let with = |lines: &str| parse(&SMALL.replace("[[link]]", &format!("[usage]\n{lines}\n[[link]]")));
    let plain = with("").unwrap().usage;
    assert_eq!((plain.time_zone, plain.billing_day), (None, BillingDay::FIRST));
    for zone in ["Europe/Berlin", "UTC", "CET-1CEST,M3.5.0,M10.5.0/3", "<+0545>-5:45"] {
        assert_eq!(with(&format!("time_zone = \"{zone}\"")).unwrap().usage.time_zone.as_deref(), Some(zone));
    }
    assert_eq!(with("billing_day = 31").unwrap().usage.billing_day.get(), 31);
    for (wrong, words) in [
        ("billing_day = 0", "usage.billing_day: 0 is out of the range 1 .. 31"),
        ("billing_day = 32", "32 is out of the range 1 .. 31"),
        ("billing_day = 1000", "1000 is out of the range 1 .. 31"),
        ("billing_day = \"15\"", "is a text, not a whole number"),
        ("time_zone = \"\"", "usage.time_zone: has 0 characters"),
        ("time_zone = \"/etc/localtime\"", "neither the name of a time zone (Europe/Berlin) nor a rule"),
        ("time_zone = \"../etc/shadow\"", "neither the name"),
        ("timezone = \"UTC\"", "usage.timezone: is not a known key; did you mean `time_zone`?"),
    ] {
        let error = with(wrong).unwrap_err();
        assert!(error.contains(words), "{wrong}: {error}");
    }
}

#[test]
fn a_pattern_fits_what_its_star_may_stand_for() {
    for (pattern, text, expected) in [
        ("wwan*", "wwan0", true),
        ("wwan*", "wwan", true),
        ("*", "x", true),
        ("w*n*0", "wwan10", true),
        ("w*n*0", "wwan1", false),
        ("usb0", "usb00", false),
    ] {
        assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
    }
}

/// Broken files: what is put in place of what, and what must be said.
const BROKEN: [(&str, &str, &str); 64] = [
    ("id = \"gw\"", "", "weir.toml:1: device.id: is missing, and is required"),
    ("[device]\nid = \"gw\"", "", "weir.toml:1: device.id: is missing"),
    ("id = \"gw\"", "id = 7", "weir.toml:2: device.id: is a whole number, not a text"),
    ("id = \"gw\"", "id = \"a b\"", "weir.toml:2: device.id: \"a b\" has a character"),
    ("id = \"gw\"", "id = \"\"", "weir.toml:2: device.id: has 0 characters, 1 .. 64 are allowed"),
    ("id = \"gw\"", "id = \"gw\"\nid = \"gw\"", "weir.toml:3: duplicate key"),
    ("id = \"gw\"", "id = \"gw\"\nnf_instance_id = \"1\"", "weir.toml:3: device.nf_instance_id: \"1\" is not a UUID"),
    ("id = \"gw\"", "id = \"gw", "weir.toml:2: "),
    (
        "id = \"gw\"",
        "id = \"gw\"\nseriall = \"1\"",
        "weir.toml:3: device.seriall: is not a known key; did you mean `serial`?",
    ),
    ("[device]", "[devise]", "weir.toml:1: devise: is not a known key; did you mean `device`?"),
    ("[device]\nid", "device", "weir.toml:1: device: is a text, not a table: write [device]"),
    ("url", "uri", "weir.toml:4: server.uri: is not a known key; did you mean `url`?"),
    ("https:", "ftp:", "weir.toml:4: server.url: \"ftp://c.example\" is not https://host"),
    ("https:", "http:", "weir.toml:4: server.url: \"http://c.example\" is plain HTTP"),
    ("c.example", "c.example/?a=b", "weir.toml:4: server.url: "),
    ("https://c.example", "charging", "weir.toml:4: server.url: \"charging\" is not a URL"),
    ("c.example", "bücher.example", "write the host as DNS has it, in ASCII (xn--…)"),
    (
        "[[link]]",
        "onboarding = \"none\"\n[[link]]",
        "weir.toml:5: server.onboarding: \"none\" is not one of \"server\", \"static\"",
    ),
    ("[[link]]", "onboarding = \"static\"\n[[link]]", "weir.toml:6: link[0].subscriber: is missing"),
    ("[[link]]", "onboarding = \"static\"\n[[link]]", "weir.toml:6: link[0].rating_group: is missing"),
    (
        "[[link]]",
        "connect_timeout = 5\n[[link]]",
        "weir.toml:5: server.connect_timeout: \"5\" is not a duration with its unit",
    ),
    ("[[link]]", "connect_timeout = \"2min\"\n[[link]]", "2min is above the range 100ms .. 1min"),
    ("[[link]]", "ways = \"eth0\"\n[[link]]", "weir.toml:5: server.ways: is a text, not a list of interface names"),
    ("[[link]]", "ways = [\"eth/0\"]\n[[link]]", "server.ways: \"eth/0\" is not an interface name"),
    ("[[link]]", "ways = [\"lo\"]\n[[link]]", "server.ways: the loopback is not a paid uplink"),
    ("[[link]]", "deduplicates = \"no\"\n[[link]]", "weir.toml:5: server.deduplicates: is a text, not true or false"),
    (
        "[[link]]",
        "[agent]\nreport_interval = \"0s\"\n[[link]]",
        "weir.toml:6: agent.report_interval: 0s is below the range 1s .. 1d",
    ),
    (
        "[[link]]",
        "[agent]\nmax_unrecorded = \"32 KiB\"\n[[link]]",
        "weir.toml:6: agent.max_unrecorded: 32 KiB is below the range 64 KiB .. 1 TiB",
    ),
    ("[[link]]", "[agent]\nmax_unrecorded = \"1s\"\n[[link]]", "agent.max_unrecorded: \"1s\" is not octets"),
    (
        "[[link]]",
        "[agent]\nfollow_default_route = \"yes\"\n[[link]]",
        "agent.follow_default_route: is a text, not true or false",
    ),
    ("[[link]]", "[agent]\nresolvers = [\"dns\"]\n[[link]]", "agent.resolvers: \"dns\" is not an IP address"),
    (
        "[[link]]",
        "[agent]\ncontrol_reserve = 1\n[[link]]",
        "agent.control_reserve: 1 is below the range 64 KiB .. 1 GiB",
    ),
    (
        "[[link]]",
        "[datapath]\npin_root = \"weir\"\n[[link]]",
        "weir.toml:6: datapath.pin_root: weir is not an absolute path",
    ),
    (
        "[[link]]",
        "[api]\nlisten = \"9433\"\n[[link]]",
        "weir.toml:6: api.listen: \"9433\" is not an address with a port, like \"127.0.0.1:9433\"",
    ),
    ("[[link]]", "[api]\nlisten = \"0.0.0.0:9433\"\n[[link]]", "weir.toml:6: api.listen: is not a loopback address"),
    ("[[link]]", "[api]\ntoken_file = \"t\"\n[[link]]", "weir.toml:6: api.token_file: has no effect without listen"),
    (
        "[[link]]",
        "[api]\nlisten = \"127.0.0.1:9433\"\nhosts = [\"gw.example\"]\n[[link]]",
        "weir.toml:7: api.hosts: are names for a proxy, and whoever comes through a proxy is on this machine: set token_file as well",
    ),
    ("[[link]]", "[api]\nhosts = []\n[[link]]", "weir.toml:6: api.hosts: has no effect without listen"),
    (
        "[[link]]",
        "[api]\nlisten = \"[::1]:9433\"\ntoken_file = \"t\"\nhosts = \"gw\"\n[[link]]",
        "weir.toml:8: api.hosts: is a text, not a list of host names",
    ),
    (
        "[[link]]",
        "[api]\nlisten = \"[::1]:9433\"\ntoken_file = \"t\"\nhosts = [\"gw:80\"]\n[[link]]",
        "weir.toml:8: api.hosts: \"gw:80\" is not a host name: letters, digits, `.` and `-`, no port",
    ),
    (
        "[[link]]",
        "[captive_portal]\nlisten = \"8908\"\n[[link]]",
        "weir.toml:6: captive_portal.listen: \"8908\" is not an address with a port",
    ),
    (
        "[[link]]",
        "[captive_portal]\nlisten = \"[::]:8908\"\n[[link]]",
        "weir.toml:6: captive_portal.listen: [::]:8908 is every address, those of the uplinks too",
    ),
    ("[[link]]", "[captive_portal]\nport = 8908\n[[link]]", "weir.toml:6: captive_portal.port: is not a known key"),
    ("[[link]]\nname = \"wwan0\"", "", "link: is missing: at least one [[link]] is required"),
    ("[[link]]", "[link]", "weir.toml:5: link: is a table, not a list of tables: write [[link]]"),
    ("name = \"wwan0\"", "", "weir.toml:5: link[0].name: is missing"),
    ("wwan0", "a/b", "weir.toml:6: link[0].name: \"a/b\" is not an interface name"),
    ("wwan0", "wwan0123456789ab", "weir.toml:6: link[0].name: has 16 characters, 1 .. 15 are allowed"),
    ("wwan0", "wwan*", "weir.toml:5: link[0].slot: is missing, and is required where the name is a pattern"),
    ("\"wwan0\"", "\"wwan0\"\nchunk = 10", "weir.toml:7: link[0].chunk: 10 is below the range 64 KiB .. 1 TiB"),
    (
        "\"wwan0\"",
        "\"wwan0\"\nchunk = \"8 MiB\"\nlargest_chunk = \"4 MiB\"",
        "weir.toml:8: link[0].largest_chunk: is 4194304, which is below the chunk of 8388608: raise it, or leave it out",
    ),
    (
        "\"wwan0\"",
        "\"wwan0\"\nlargest_chunk = 10",
        "weir.toml:7: link[0].largest_chunk: 10 is below the range 64 KiB .. 1 TiB",
    ),
    ("\"wwan0\"", "\"wwan0\"\nchunk = \"8M\"", "weir.toml:7: link[0].chunk: \"8M\" is not octets, like 1048576"),
    (
        "\"wwan0\"",
        "\"wwan0\"\nsubscriber = \"imsi-001010000000001\"",
        "weir.toml:7: link[0].subscriber: is for onboarding = \"static\" only",
    ),
    ("\"wwan0\"", "\"wwan0\"\nwhen_used_up = \"throttle\"", "link[0].throttle_rate: is missing"),
    ("\"wwan0\"", "\"wwan0\"\nthrottle_rate = 64000", "link[0].throttle_rate: has no effect without"),
    ("\"wwan0\"", "\"wwan0\"\nwhen_used_up = \"redirect\"", "is not one of \"block\", \"restrict\", \"throttle\""),
    ("\"wwan0\"", "\"wwan0\"\nrestrict_to = \"shop\"", "link[0].restrict_to: there is no [[filter]] \"shop\""),
    ("[[link]]", "[[filter]]\nname = \"shop\"\n[[link]]", "weir.toml:5: filter[0].rules: is missing"),
    (
        "[[link]]",
        "[[filter]]\nname = \"shop\"\nrules = [\"permit in tcp from any to any\"]\n[[link]]",
        "weir.toml:7: filter[0].rules: filter rule \"permit in tcp from any to any\": the protocol is neither",
    ),
    ("[[link]]", "[[filter]]\nname = \"shop\"\nrules = []\n[[link]]", "filter[0].rules: has 0 rules, 1 .. 30"),
    ("[[link]]", "[[filter]]\nname = \"shop\"\nrules = \"any\"\n[[link]]", "is a text, not a list of filter rules"),
    (
        "[[link]]",
        "[[filter]]\nname=\"a\"\nrules=[\"deny in ip from any to any\"]\n\
         [[filter]]\nname=\"a\"\nrules=[\"deny in ip from any to any\"]\n[[link]]",
        "weir.toml:9: filter[1].name: is already that of another [[filter]]",
    ),
    (
        "\"wwan0\"",
        "\"wwan0\"\noffline_grace = { octets = 1 }",
        "weir.toml:7: link[0].offline_grace.duration: is missing",
    ),
];

#[test]
fn what_is_wrong_is_told_by_file_line_key_and_range() {
    for (from, to, expected) in BROKEN {
        let text = SMALL.replacen(from, to, 1);
        assert_ne!(text, SMALL, "{from:?} is not in the small file");
        let told = parse(&text).expect_err(&text);
        assert!(told.lines().all(|line| line.starts_with("/etc/weir/weir.toml:")), "{told}");
        assert!(told.contains(expected), "expected {expected:?}, told {told:?} for\n{text}");
    }
}

#[test]
fn two_links_may_not_stand_for_the_same() {
    for (second, expected) in [
        ("name = \"wwan0\"\nslot = \"b\"", "weir.toml:8: link[1].name: \"wwan0\" is already that of link[0]"),
        (
            "name = \"ww*\"\nslot = \"b\"",
            "weir.toml:8: link[1].name: \"ww*\" and \"wwan0\" of link[0] fit the same interface",
        ),
        ("name = \"usb0\"\nslot = \"wwan0\"", "weir.toml:9: link[1].slot: \"wwan0\" is already that of link[0]"),
    ] {
        let told = parse(&format!("{SMALL}[[link]]\n{second}\n")).unwrap_err();
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn everything_wrong_is_told_at_once_in_the_order_of_the_file() {
    let told = parse("[device]\nid = 7\n[server]\nurl = 8\n[[link]]\nname = 9\n").unwrap_err();
    let lines: Vec<_> = told.lines().map(|line| line.split(':').nth(1).unwrap().to_owned()).collect();
    assert_eq!(lines, ["2", "4", "6"]);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let told = Config::load(Path::new("/nonexistent/weir.toml")).unwrap_err().to_string();
    assert!(told.starts_with("/nonexistent/weir.toml: cannot be read: "), "{told}");
}

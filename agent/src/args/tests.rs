//! What command lines are read as.

use clap::{ColorChoice, CommandFactory};

use super::Units;
use super::*;

fn given(line: &str) -> Result<Command, u8> {
    parse(line.split_whitespace().map(OsString::from)).map(|cli| cli.command).map_err(|ended| ended.status)
}

#[test]
fn the_command_line_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn run_takes_its_flags() {
    let expected = Run { config: "w.toml".into(), log_json: true, keep: true, record: Some("r.jsonl".into()) };
    let line = "weir run --config w.toml --log-json --keep --record r.jsonl";
    assert_eq!(given(line), Ok(Command::Run(expected)));
    let plain = Run { config: DEFAULT_CONFIG.into(), log_json: false, keep: false, record: None };
    assert_eq!(given("weir run"), Ok(Command::Run(plain)));
}

#[test]
fn the_other_commands_are_known() {
    let whom = Whom { socket: Some("/s".into()), config: DEFAULT_CONFIG.into() };
    let look = Look { json: true, units: Units::Decimal, color: ColorChoice::Never };
    let line = "weir status --json --socket /s --units decimal --color never";
    assert_eq!(given(line), Ok(Command::Status(Status { whom, look })));
    for line in ["weir renew wan0 --wait 3", "weir top-up wan0 --wait 3"] {
        let Ok(Command::Renew(renew)) = given(line) else { panic!("{line}") };
        assert_eq!((renew.link.as_deref(), renew.wait), (Some("wan0"), 3));
    }
    let detach = Detach { config: "w.toml".into(), force: true, json: false };
    assert_eq!(given("weir detach --config w.toml --force"), Ok(Command::Detach(detach)));
    assert_eq!(given("weir attach"), Ok(Command::Attach(Attach { config: DEFAULT_CONFIG.into(), json: false })));
    assert_eq!(given("weir version --json"), Ok(Command::Version(Version { json: true })));
    let doctor = Doctor { config: "w.toml".into(), offline: true, json: true, color: ColorChoice::Auto };
    assert_eq!(given("weir doctor --offline --json --config w.toml"), Ok(Command::Doctor(doctor)));
    let replay = Replay { json: true, file: "r.jsonl".into() };
    assert_eq!(given("weir replay --json r.jsonl"), Ok(Command::Replay(replay)));
    let check = ConfigCheck { config: "w.toml".into(), json: true };
    assert_eq!(given("weir config check --config w.toml --json"), Ok(Command::Config(ConfigCommand::Check(check))));
    let load = DatapathLoad { link: "wwan0".into(), pin_root: "/p".into(), retire: vec![7, 9] };
    let line = "weir datapath-load --link wwan0 --pin-root /p --retire 7 --retire 9";
    assert_eq!(given(line), Ok(Command::DatapathLoad(load)));
}

#[test]
fn help_and_version_end_well_and_bad_usage_with_64() {
    for line in ["weir --help", "weir --version", "weir run --help", "weir status --version"] {
        assert_eq!(given(line), Err(0), "{line}");
    }
    for line in [
        "weir",
        "weir fly",
        "weir run --fast",
        "weir run --config",
        "weir run --record",
        "weir replay",
        "weir replay a b",
        "weir renew a b",
        "weir renew --wait 601",
        "weir detach wan0",
        "weir watch --json",
        "weir status --socket a --config b",
        "weir status --units pints",
        "weir status --color loud",
        "weir doctor wan0",
        "weir config",
    ] {
        assert_eq!(given(line), Err(64), "{line}");
    }
    for line in ["weir check --warn 0", "weir check --link", "weir check wan0", "weir check --hook true"] {
        assert_eq!(given(line), Err(3), "monitoring knows no 64: {line}");
    }
    assert_eq!(given("weir check --help"), Err(0));
}

#[test]
fn a_wrong_command_line_is_told_to_programs_in_one_line() {
    let failure = |line: &str| parse(line.split_whitespace().map(OsString::from)).expect_err(line).failure();
    let told = failure("weir status --units pints --json").expect("a failure");
    assert_eq!(told.error, "invalid value 'pints' for '--units <UNITS>' [possible values: binary, decimal, octets]");
    assert_eq!(told.exit_status, 64);
    assert_eq!(failure("weir status --help"), None);
}

#[test]
fn usage_is_asked_by_one_kind_of_span() {
    let Ok(Command::Usage(asked)) = given("weir usage --hours --link wwan0 --begin 2026-11-28 --json") else {
        panic!("usage is known")
    };
    let wish = asked.wish();
    assert_eq!((wish.by.as_deref(), wish.link.as_deref(), wish.sim), (Some("hour"), Some("wwan0"), None));
    assert!(asked.look.json && wish.begin.is_some());
    for (flag, word) in [
        ("", "day"),
        ("--5min", "5min"),
        ("--days", "day"),
        ("--months", "month"),
        ("--period", "period"),
        ("--top", "top"),
    ] {
        let Ok(Command::Usage(asked)) = given(&format!("weir usage {flag}")) else { panic!("{flag} is known") };
        assert_eq!(asked.wish().by.as_deref(), Some(word), "{flag}");
    }
    for line in ["weir usage --days --hours", "weir usage --svg a --json", "weir usage --begin", "weir usage days"] {
        assert_eq!(given(line), Err(64), "{line}");
    }
}

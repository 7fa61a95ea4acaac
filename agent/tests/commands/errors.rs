//! What goes wrong, command by command: what is said, where, and the exit status; and that no command is without.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::process::Output;

use agent::args::Cli;
use clap::{Command, CommandFactory as _};
use serde_json::Value;

use crate::agents::Agent;
use crate::transcript::{Transcript, goldens, kept};

/// What the agent starts itself, and nobody types.
const NOT_TYPED: [&str; 1] = ["datapath-load"];

/// A configuration whose files are all in the directory of the test; the pins are nowhere.
const CONFIG: &str = "[device]\nid = \"van-17\"\n[server]\nurl = \"https://charging.example\"\n[ledger]\npath = \"ledger.db\"\n\
    [datapath]\npin_root = \"/nowhere/weir\"\n[agent]\nsocket = \"weir.sock\"\n[[link]]\nname = \"weir-none0\"\n";

const WRONG: &str = "[device]\nid = \"van-17\"\n[server]\nurl = \"https://charging.example\"\n[agent]\nreport_intervall = \"60 s\"\n\
    checkpoint_interval = \"2 h\"\n[[link]]\nname = \"wwan0\"\nchunk = \"lots\"\n";

fn with_config() -> Transcript {
    let transcript = Transcript::new();
    transcript.write("weir.toml", CONFIG);
    transcript.write("wrong.toml", WRONG);
    transcript
}

fn document(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("a document of JSON")
}

#[test]
fn nobody_there_and_nobody_let_in_and_nobody_who_understands_is_told_apart_by_status() {
    let mut transcript = with_config();
    transcript.say("no agent has ever run here");
    transcript.weir("status --config weir.toml");
    transcript.say("it has crashed");
    drop(UnixListener::bind(transcript.path("weir.sock")).expect("bound"));
    transcript.weir("status --config weir.toml");
    std::fs::remove_file(transcript.path("weir.sock")).expect("removed");
    let agent = Agent::at(&transcript.path("weir.sock"));
    transcript.say("it runs, and belongs to somebody else");
    std::fs::set_permissions(transcript.path("weir.sock"), Permissions::from_mode(0o000)).expect("set");
    transcript.weir_without_rights("status --config weir.toml");
    drop(agent);
    transcript.say("it is of another version");
    let _agent = Agent::of_another_version_at(&transcript.path("weir.sock"));
    transcript.weir("status --config weir.toml");
    transcript.say("asked for wrongly");
    transcript.weir("status --config nowhere.toml");
    transcript.weir("status --config wrong.toml");
    transcript.weir("status --units pints");
    transcript.weir("status --color loud");
    transcript.weir("status wan0");
    transcript.weir("status --socket a --config b");
    transcript.is_golden("status.txt");
}

#[test]
fn the_ledger_is_read_without_an_agent_and_not_behind_the_back_of_one_that_lets_nobody_in() {
    let mut transcript = with_config();
    transcript.weir("ledger --config weir.toml");
    let agent = Agent::at(&transcript.path("weir.sock"));
    transcript.say("it runs, and cannot read its ledger now");
    transcript.weir("ledger --config weir.toml");
    transcript.say("it belongs to somebody else");
    std::fs::set_permissions(transcript.path("weir.sock"), Permissions::from_mode(0o000)).expect("set");
    transcript.weir_without_rights("ledger --config weir.toml");
    drop(agent);
    transcript.say("it is older than this question");
    let _agent = Agent::of_another_version_at(&transcript.path("weir.sock"));
    transcript.weir("ledger --config weir.toml");
    transcript.is_golden("ledger.txt");
}

#[test]
fn usage_names_what_is_wrong_with_a_question_and_the_file_that_cannot_be_written() {
    let mut transcript = with_config();
    transcript.weir("usage --config weir.toml");
    transcript.weir("usage --days --hours");
    transcript.weir("usage --svg chart.svg --json");
    transcript.weir("usage --days 7");
    let agent = Agent::at(&transcript.path("weir.sock"));
    transcript.say("an agent runs");
    transcript.weir("usage --config weir.toml --link wan7");
    transcript.weir("usage --config weir.toml --svg nowhere/chart.svg");
    assert!(transcript.weir("usage --config weir.toml --svg chart.svg").status.success());
    assert!(std::fs::read_to_string(transcript.path("chart.svg")).expect("a chart").starts_with("<svg"));
    drop(agent);
    transcript.say("an older one");
    let _agent = Agent::of_another_version_at(&transcript.path("weir.sock"));
    transcript.weir("usage --config weir.toml");
    transcript.is_golden("usage.txt");
}

#[test]
fn renew_says_which_links_there_are_and_how_long_one_may_wait() {
    let mut transcript = with_config();
    transcript.weir("renew --config weir.toml");
    transcript.weir("renew --wait 601");
    transcript.weir("renew --wait 5min");
    transcript.weir("renew wan0 wwan1");
    let agent = Agent::at(&transcript.path("weir.sock"));
    transcript.say("an agent runs, and was asked a moment ago");
    assert_eq!(transcript.weir("top-up wan0 --config weir.toml").status.code(), Some(1));
    assert_eq!(transcript.weir("renew --config weir.toml wan7").status.code(), Some(1));
    transcript.weir("renew --config weir.toml --wait 0");
    drop(agent);
    transcript.say("an older one");
    let _agent = Agent::of_another_version_at(&transcript.path("weir.sock"));
    transcript.weir("renew --config weir.toml");
    transcript.is_golden("renew.txt");
}

#[test]
fn a_check_ends_with_what_monitoring_knows_whatever_goes_wrong() {
    let mut transcript = with_config();
    for line in [
        "check --config weir.toml",
        "check --config nowhere.toml",
        "check --config wrong.toml",
        "check --warn 90% --crit 80%",
        "check --warn 0",
        "check --crit 101%",
        "check --crit many",
        "check --hook true",
        "check wan0",
    ] {
        let output = transcript.weir(line);
        assert_eq!(output.status.code(), Some(3), "{line}");
        assert!(output.stdout.starts_with(b"WEIR UNKNOWN - "), "{line}: monitoring reads standard output");
    }
    let _agent = Agent::at(&transcript.path("weir.sock"));
    transcript.say("an agent runs");
    assert_eq!(transcript.weir("check --config weir.toml --link wan7").status.code(), Some(3));
    assert_eq!(transcript.weir("check --config weir.toml --link wan0").status.code(), Some(0));
    assert_eq!(transcript.weir("check --config weir.toml --link wan0 --warn 50%").status.code(), Some(1));
    assert_eq!(transcript.weir("check --config weir.toml").status.code(), Some(2));
    transcript.say("the outcome cannot be kept; what is critical stays so");
    let kept = "--hook true --state nowhere/check.state";
    assert_eq!(transcript.weir(&format!("check --config weir.toml --link wan0 {kept}")).status.code(), Some(3));
    assert_eq!(transcript.weir(&format!("check --config weir.toml {kept}")).status.code(), Some(2));
    transcript.say("the hook fails: the next check runs it again");
    transcript.weir("check --config weir.toml --hook false --state fresh.state");
    assert!(!transcript.path("fresh.state").exists());
    transcript.write("check.state", "FINE\n");
    transcript.weir("check --config weir.toml --link wan0 --hook true --state check.state");
    transcript.is_golden("check.txt");
}

#[test]
fn watch_attach_and_detach_touch_nothing_where_they_cannot_do_what_is_asked() {
    let mut transcript = with_config();
    transcript.weir("watch");
    transcript.weir("watch --units pints");
    transcript.weir("watch --json");
    transcript.is_golden("watch.txt");
    let mut transcript = with_config();
    transcript.weir("attach --config weir.toml");
    transcript.weir("attach --config nowhere.toml");
    transcript.weir("attach --config wrong.toml --json");
    transcript.weir("attach wan0");
    transcript.is_golden("attach.txt");
    let mut transcript = with_config();
    transcript.weir("detach --config nowhere.toml --force");
    transcript.weir("detach wan0");
    transcript.weir("detach --force=yes");
    transcript.is_golden("detach.txt");
}

#[test]
fn what_is_wrong_with_the_configuration_is_told_line_by_line_to_people_and_to_programs() {
    let mut transcript = with_config();
    assert_eq!(transcript.weir("config check --config weir.toml").status.code(), Some(0));
    assert_eq!(transcript.weir("config check --config wrong.toml").status.code(), Some(64));
    let wrong = transcript.weir("config check --config wrong.toml --json");
    assert_eq!((wrong.status.code(), document(&wrong)["faults"].as_array().map(Vec::len)), (Some(64), Some(3)));
    transcript.weir("config check --config nowhere.toml");
    transcript.weir("config");
    transcript.weir("config show");
    transcript.is_golden("config-check.txt");
    let mut transcript = with_config();
    transcript.weir("run --config nowhere.toml");
    transcript.weir("run --config wrong.toml");
    transcript.weir("run --config");
    transcript.weir("run --fast");
    transcript.is_golden("run.txt");
}

#[test]
fn what_is_no_recording_and_no_place_to_write_to_is_named() {
    let mut transcript = with_config();
    transcript.write("empty.jsonl", "");
    transcript.write("other.jsonl", "{\"level\":\"info\"}\n");
    transcript.weir("replay nowhere.jsonl");
    transcript.weir("replay empty.jsonl");
    transcript.weir("replay other.jsonl --json");
    transcript.weir("replay");
    transcript.is_golden("replay.txt");
    let mut transcript = with_config();
    assert_eq!(transcript.weir_to_a_full_disk("version").status.code(), Some(1));
    transcript.weir("version --short");
    transcript.is_golden("version.txt");
    let mut transcript = with_config();
    transcript.weir("doctor wan0");
    transcript.weir("doctor --config");
    transcript.is_golden("doctor.txt");
    let mut transcript = with_config();
    transcript.weir("fly");
    transcript.weir("statsu");
    transcript.is_golden("weir.txt");
}

#[test]
fn whoever_asks_for_json_gets_a_document_of_what_went_wrong_beside_the_words() {
    let mut transcript = with_config();
    for (line, status) in [
        ("status --config weir.toml --json", 1),
        ("ledger --config weir.toml --json", 1),
        ("usage --config weir.toml --json", 1),
        ("renew --config weir.toml --json", 1),
        ("attach --config weir.toml --json", 1),
        ("detach --config nowhere.toml --json", 64),
        ("replay --json nowhere.jsonl", 64),
        ("version --json --short", 64),
        ("status --units pints --json", 64),
        ("fly --json", 64),
    ] {
        let output = transcript.weir(line);
        let document = document(&output);
        assert_eq!((output.status.code(), &document["schema"]), (Some(status), &1.into()), "{line}: {document}");
        assert_eq!(document["exit_status"], status, "{line}: {document}");
        let (error, words) = (document["error"].as_str().expect("words"), String::from_utf8_lossy(&output.stderr));
        assert!(!error.is_empty() && !error.contains('\n') && !words.is_empty(), "{line}: {document} {words}");
    }
    transcript.is_golden("as-json.txt");
    // A check has a document of its own.
    for line in ["check --config weir.toml --json", "check --warn many --json"] {
        let unknown = document(&transcript.weir(line));
        assert_eq!((&unknown["schema"], &unknown["level"]), (&1.into(), &"UNKNOWN".into()), "{line}: {unknown}");
    }
}

/// Every command that somebody types, by what is typed.
fn typed(command: &Command) -> Vec<String> {
    let subs = command.get_subcommands().filter(|sub| sub.get_name() != "help");
    let named = subs.flat_map(|sub| {
        if sub.has_subcommands() {
            typed(sub).into_iter().map(|below| format!("{} {below}", sub.get_name())).collect()
        } else {
            vec![sub.get_name().to_owned()]
        }
    });
    named.filter(|name| !NOT_TYPED.contains(&name.as_str())).collect()
}

#[test]
fn there_is_a_transcript_of_what_goes_wrong_with_every_command() {
    let kept = kept();
    let typed = typed(&Cli::command());
    assert!(typed.len() >= 13 && typed.contains(&"config check".to_owned()), "{typed:?}");
    for name in typed {
        let stem = name.replace(' ', "-");
        assert!(kept.contains(&stem), "nothing holds how `weir {name}` fails: no {stem}.txt");
        let text = std::fs::read_to_string(goldens().join(stem + ".txt")).expect("a transcript");
        assert!(text.contains(&format!("$ weir {name}")), "{name}: {text}");
        let fails = text.lines().any(|line| line.strip_prefix("exit ").is_some_and(|status| status != "0"));
        assert!(fails, "{name} never fails: {text}");
    }
}

//! Filter rules: what each word means, what cannot be followed, and no text that does harm.

use std::net::IpAddr;

use crate::quota::filter::{self, FilterAction, FilterDirection, FilterEnd, FilterRule, MOST_FILTERS};

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn any() -> FilterEnd {
    FilterEnd::default()
}

fn end(prefix: &str, length: u8) -> FilterEnd {
    FilterEnd { prefix: Some((address(prefix), length)), ports: Vec::new() }
}

#[test]
fn a_rule_is_read_word_by_word() {
    let rule = filter::rule("permit in 6 from any to 192.0.2.10 80,443,8000-8080").expect("a rule");
    let remote = FilterEnd { ports: vec![80..=80, 443..=443, 8000..=8080], ..end("192.0.2.10", 32) };
    let expected = FilterRule {
        action: FilterAction::Permit,
        direction: FilterDirection::Uplink,
        protocol: Some(6),
        local: any(),
        remote,
    };
    assert_eq!(rule, expected);
}

#[test]
fn out_is_towards_those_behind_the_gateway() {
    let rule = filter::rule("  deny\tout ip from 2001:db8::/32 to fd00::1/128 ").expect("a rule");
    let expected = FilterRule {
        action: FilterAction::Deny,
        direction: FilterDirection::Downlink,
        protocol: None,
        local: end("fd00::1", 128),
        remote: end("2001:db8::", 32),
    };
    assert_eq!(rule, expected);
}

#[test]
fn assigned_is_whoever_is_behind_the_gateway_and_nobody_else() {
    assert_eq!(filter::rule("permit in ip from assigned to any").expect("a rule").local, any());
    assert_eq!(filter::rule("permit out ip from any to assigned").expect("a rule").local, any());
    for text in ["permit in ip from any to assigned", "permit out ip from assigned to any"] {
        let told = filter::rule(text).expect_err(text).to_string();
        assert!(told.contains("assigned"), "{told}");
    }
}

#[test]
fn what_cannot_be_followed_is_an_error_that_says_why() {
    for (text, why) in [
        ("", "permit or deny"),
        ("allow in ip from any to any", "permit or deny"),
        ("permit", "no direction"),
        ("permit both ip from any to any", "no direction"),
        ("permit in", "no protocol"),
        ("permit in tcp from any to any", "neither ip nor a number"),
        ("permit in 256 from any to any", "neither ip nor a number"),
        ("permit in +6 from any to any", "neither ip nor a number"),
        ("permit in ip any to any", "no from"),
        ("permit in ip from", "no address after from"),
        ("permit in ip from any", "no to"),
        ("permit in ip from any to", "no address after to"),
        ("permit in ip from any to portal.example", "is not an address"),
        ("permit in ip from any to 192.0.2.0/33", "prefix length of 0 .. 32"),
        ("permit in ip from any to 192.0.2.0/+8", "prefix length of 0 .. 32"),
        ("permit in ip from any to 2001:db8::/129", "prefix length of 0 .. 128"),
        ("permit in ip from any to 192.0.2.0/255.255.255.0", "prefix length"),
        ("permit in ip from any to !192.0.2.1", "not modifier"),
        ("permit in ip from any to 192.0.2.1 80", "the protocol is not TCP"),
        ("permit in 1 from any to 192.0.2.1 80", "the protocol is not TCP"),
        ("permit in 6 from any to 192.0.2.1 80-", "not a list of ports"),
        ("permit in 6 from any to 192.0.2.1 90-80", "not a list of ports"),
        ("permit in 6 from any to 192.0.2.1 80,", "not a list of ports"),
        ("permit in 6 from any to 192.0.2.1 65536", "not a list of ports"),
        ("permit in 6 from 192.0.2.1 to 2001:db8::1", "from IPv4 to IPv6"),
        ("permit in 6 from any to any established", "\"established\" is not supported"),
        ("permit in ip from any to any frag", "\"frag\" is not supported"),
        ("permit in 6 from any to any 80 tcpflags syn", "\"tcpflags\" is not supported"),
        ("permit in 1 from any to any icmptypes 8", "\"icmptypes\" is not supported"),
    ] {
        let told = filter::rule(text).expect_err(text).to_string();
        assert!(told.contains(why), "{text}: {told}");
    }
}

#[test]
fn what_fits_no_rule_passes_behind_a_denial_and_does_not_behind_a_permission() {
    let behind_permission = filter::rules(["permit in ip from any to 192.0.2.1"]).expect("rules");
    assert_eq!(behind_permission.len(), 1);
    let behind_denial = filter::rules(["permit in ip from any to any", "deny in ip from any to 10.0.0.0/8"]);
    let behind_denial = behind_denial.expect("rules");
    let rest: Vec<_> = behind_denial[2..].iter().map(|rule| (rule.action, rule.direction, &rule.remote)).collect();
    let all = any();
    let expected = [FilterDirection::Uplink, FilterDirection::Downlink].map(|way| (FilterAction::Permit, way, &all));
    assert_eq!(rest, expected);
    assert_eq!(filter::rules([]).expect("no rules"), []);
}

#[test]
fn a_list_holds_as_many_entries_as_the_kernel_has_room_for() {
    let one = "permit in 17 from any to any 1,2,3";
    let fits = [one; MOST_FILTERS / 3];
    assert!(filter::rules(fits.iter().copied()).is_ok());
    let told = filter::rules(fits.iter().copied().chain([one])).expect_err("too many").to_string();
    assert!(told.contains("33 entries"), "{told}");
}

#[test]
fn no_text_does_harm() {
    let mut random = fastrand::Rng::with_seed(6733);
    let words = [
        "permit",
        "deny",
        "in",
        "out",
        "ip",
        "6",
        "17",
        "from",
        "to",
        "any",
        "assigned",
        "192.0.2.0/24",
        "::/0",
        "!",
        "80",
        "80-90,5",
        "-",
        ",",
        "/",
        "\u{0}",
        "ü",
        "999999999999999999999",
        "1.2.3.4/",
        "frag",
        " ",
        "\n",
    ];
    for _ in 0..20_000 {
        let text: Vec<_> = (0..random.usize(..14)).map(|_| words[random.usize(..words.len())]).collect();
        let text = text.join(if random.bool() { " " } else { "" });
        if let Err(error) = filter::rule(&text) {
            let told = error.to_string();
            assert!(!told.chars().any(char::is_control) && told.chars().count() < 400, "{told:?}");
        }
    }
}

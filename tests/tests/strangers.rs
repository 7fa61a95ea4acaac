//! Programs and filters of other people at the hooks of a metered link: they hide nothing, miss nothing, and nobody touches them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::path::Path;
use std::process::Command;

use agent::datapath::{Datapath, Origin, detach_and_unpin, meters_on};
use agent_common::{Gate, LINK_RAW_IP, Tally};
use e2e::alone::{LINK, Tun, Way, alone, spec};
use e2e::stranger::{ACCEPT, NEXT, Stranger};

/// Runs `tc` in the namespace of this thread and answers what it printed; an error is what it complained of.
fn tc(args: &str) -> Result<String, String> {
    let output = Command::new("tc").args(args.split_whitespace()).output().unwrap();
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn open(root: &Path) -> Datapath {
    let mut datapath = Datapath::open(&spec(root.join("bpf/weir")).pin_root, LINK).unwrap();
    datapath.set_gate(&Gate { ceiling: u64::MAX, link_type: LINK_RAW_IP, ..Gate::default() }).unwrap();
    datapath
}

fn packets(datapath: &Datapath) -> u64 {
    datapath.read().unwrap().downlink.passed.packets
}

/// Puts somebody's program on the ingress hook, as the command line of `tc` does.
fn filter(stranger: &Stranger, root: &Path, priority: u16) {
    let pin = root.join(format!("bpf/stranger-{priority}"));
    stranger.pin(&pin);
    tc(&format!("filter add dev {LINK} ingress pref {priority} bpf da object-pinned {}", pin.display())).unwrap();
}

#[test]
fn filters_of_others_see_what_the_meter_lets_pass_and_hide_nothing_from_it() {
    for way in Way::all() {
        alone(move |root| {
            let mut tun = Tun::new();
            let (first, last) = (Stranger::with_verdict(NEXT), Stranger::with_verdict(ACCEPT));
            tc(&format!("qdisc add dev {LINK} clsact")).unwrap();
            filter(&first, root, 1);
            let spec = spec(root.join("bpf/weir"));
            way.load(&spec).unwrap();
            filter(&last, root, 7);
            let datapath = open(root);
            for _ in 0..3 {
                tun.receive();
            }
            assert_eq!((packets(&datapath), first.seen(), last.seen()), (3, 3, 3));
            let mut shut = open(root);
            shut.set_gate(&Gate::default()).unwrap();
            tun.receive();
            assert_eq!((first.seen(), last.seen()), (3, 3), "what is refused goes no further, not even to the first");

            let other = Stranger::with_verdict(ACCEPT);
            filter(&other, root, 3);
            assert_eq!(way.load(&spec).unwrap().origin, Origin::Adopted);
            detach_and_unpin(&spec.pin_root, LINK).unwrap();
            assert!(meters_on(LINK).unwrap().is_empty());
            tun.receive();
            assert_eq!((first.seen(), other.seen(), last.seen()), (4, 1, 3), "each is where it was");
        });
    }
}

#[test]
fn a_program_that_was_there_first_and_accepts_everything_hides_nothing() {
    for way in Way::all() {
        alone(move |root| {
            let mut tun = Tun::new();
            let stranger = Stranger::with_verdict(ACCEPT);
            let ifindex = nix::net::if_::if_nametoindex(LINK).unwrap();
            // The same way goes to the same list of programs.
            let stranger = match way {
                Way::Best => stranger.at_tcx(ifindex),
                Way::Clsact => {
                    tc(&format!("qdisc add dev {LINK} clsact")).unwrap();
                    filter(&stranger, root, 1);
                    stranger
                }
            };
            way.load(&spec(root.join("bpf/weir"))).unwrap();
            let datapath = open(root);
            tun.receive();
            assert_eq!((packets(&datapath), stranger.seen()), (1, 1));
        });
    }
}

#[test]
fn the_clsact_stays_when_the_meter_goes() {
    alone(|root| {
        let _tun = Tun::new();
        let spec = spec(root.join("bpf/weir"));
        Way::Clsact.load(&spec).unwrap();
        for (hook, program) in [("egress", "weir_uplink"), ("ingress", "weir_downlink")] {
            let filters = tc(&format!("filter show dev {LINK} {hook}")).unwrap();
            assert!(filters.contains("pref 1 bpf") && filters.contains(program), "{filters}");
        }
        detach_and_unpin(&spec.pin_root, LINK).unwrap();
        assert!(tc(&format!("qdisc show dev {LINK}")).unwrap().contains("clsact"));
        for hook in ["egress", "ingress"] {
            assert_eq!(tc(&format!("filter show dev {LINK} {hook}")).unwrap(), "");
        }
    });
}

/// Priorities begin at 1; whoever has it, in a way that cannot be shared, goes before the meter.
#[test]
fn a_filter_that_nobody_can_get_ahead_of_is_named() {
    alone(|root| {
        let mut tun = Tun::new();
        tc(&format!("qdisc add dev {LINK} clsact")).unwrap();
        tc(&format!("filter add dev {LINK} ingress pref 1 protocol all u32 match u32 0 0 flowid 1:1")).unwrap();
        let ifindex = Way::Clsact.load(&spec(root.join("bpf/weir"))).unwrap().ifindex;
        let datapath = open(root);
        assert!(datapath.is_attached(ifindex));
        assert_eq!(datapath.ahead(ifindex).unwrap(), ["downlink: pref 1 u32"]);
        // This one matches every packet, and with that decides: the meter is behind it.
        tun.receive();
        assert_eq!(packets(&datapath), 0);
        tc(&format!("filter del dev {LINK} ingress pref 1")).unwrap();
        assert!(datapath.ahead(ifindex).unwrap().is_empty());
        tun.receive();
        assert_eq!(packets(&datapath), 1);
    });
}

#[test]
fn a_program_that_is_put_ahead_of_the_meter_later_is_named() {
    for way in Way::all() {
        alone(move |root| {
            let mut tun = Tun::new();
            let ifindex = way.load(&spec(root.join("bpf/weir"))).unwrap().ifindex;
            let datapath = open(root);
            assert!(datapath.ahead(ifindex).unwrap().is_empty());
            let stranger = Stranger::with_verdict(ACCEPT);
            let (stranger, words) = match way {
                Way::Best => (stranger.first_at_tcx(ifindex), "downlink: program "),
                Way::Clsact => {
                    filter(&stranger, root, 1);
                    (stranger, "downlink: pref 1 bpf stranger-1")
                }
            };
            let ahead = datapath.ahead(ifindex).unwrap();
            assert!(ahead.len() == 1 && ahead[0].starts_with(words), "{ahead:?}");
            tun.receive();
            assert_eq!((packets(&datapath), stranger.seen()), (0, 1), "which is why it is to be told");
        });
    }
}

/// `ingress` has no egress hook, and takes a filter for one all the same: the uplink would be counted at the wrong end.
#[test]
fn an_ingress_qdisc_of_somebody_else_is_refused_and_left_alone() {
    alone(|root| {
        let mut tun = Tun::new();
        tc(&format!("qdisc add dev {LINK} ingress")).unwrap();
        let spec = spec(root.join("bpf/weir"));
        let error = format!("{:#}", Way::Clsact.load(&spec).unwrap_err());
        assert!(error.contains("queueing discipline ingress") && error.contains("no egress hook"), "{error}");
        assert!(tc(&format!("qdisc show dev {LINK}")).unwrap().contains("qdisc ingress"));
        assert_eq!(tc(&format!("filter show dev {LINK} ingress")).unwrap(), "");
        assert!(!spec.pin_root.join("new/wwan0:7").exists());
        // TCX needs neither.
        if Way::Best.load(&spec).is_ok() {
            let datapath = open(root);
            tun.receive();
            assert_eq!(datapath.read().unwrap().downlink.passed, Tally { octets: 128, packets: 1 });
        }
    });
}

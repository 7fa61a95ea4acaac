//! Load, pin, adopt, let go: the meter on a tun interface in a namespace of its own.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::{
    fs::{self, File},
    io,
    os::unix::{fs::FileExt as _, process::ExitStatusExt as _},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use agent::datapath::{AllowList, Datapath, Origin, detach_and_unpin, load::OBJECT, load_and_pin, meters_on, retired};
use agent_common::{
    Counters, DOWNLINK, FILTER_DENY, FILTER_PERMIT, Filter, Filters, Gate, HINT_REFUSAL, LAYOUT_VERSION, LINK_RAW_IP,
    MAX_FILTERS, MODE_BLOCK, MODE_RESTRICT, Tally,
};
use aya::{
    EbpfLoader,
    maps::MapInfo,
    programs::{
        LinkOrder, ProgramInfo, SchedClassifier, TcAttachType,
        links::{FdLink, PinnedLink},
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle},
    },
};
use e2e::alone::{LINK, Tun, WITHOUT_TCX, Way, alone, loader, spec};

/// Open without end, on a link without Ethernet headers.
const OPEN: Gate = Gate {
    ceiling: u64::MAX,
    deadline_boot_ns: 0,
    threshold: 0,
    control_ceiling: 0,
    mode: MODE_BLOCK,
    throttle_rate: 0,
    throttle_tolerance_ns: 0,
    link_type: LINK_RAW_IP,
    generation: 0,
    tells_refusals: 0,
};

fn passed(datapath: &Datapath) -> Tally {
    datapath.read().unwrap().downlink.passed
}

#[test]
fn a_live_meter_is_adopted_and_goes_on_counting() {
    for way in Way::all() {
        alone(move |root| {
            let mut tun = Tun::new();
            let spec = spec(root.join("bpf/weir"));
            let first = way.load(&spec).unwrap();
            assert_eq!(first.origin, Origin::New);
            let mut datapath = Datapath::open(&spec.pin_root, LINK).unwrap();
            let epoch = datapath.epoch_id();
            tun.receive();
            assert_eq!(datapath.read().unwrap().downlink.refused, Tally { octets: 128, packets: 1 });
            datapath.set_gate(&OPEN).unwrap();
            tun.receive();
            drop(datapath);
            tun.receive();

            let second = way.load(&spec).unwrap();
            assert_eq!(second.origin, Origin::Adopted);
            let datapath = Datapath::open(&spec.pin_root, LINK).unwrap();
            assert_eq!(datapath.epoch_id(), epoch);
            assert!(datapath.is_attached(second.ifindex));
            assert!(!datapath.is_attached(second.ifindex + 1));
            tun.receive();
            assert_eq!(passed(&datapath), Tally { octets: 3 * 128, packets: 3 });
            assert_eq!(datapath.word().unwrap().gate, 3 * 128);
        });
    }
}

#[test]
fn a_meter_whose_interface_is_gone_makes_way_for_a_new_epoch() {
    for way in Way::all() {
        alone(move |root| {
            let tun = Tun::new();
            let spec = spec(root.join("bpf/weir"));
            let ifindex = way.load(&spec).unwrap().ifindex;
            let mut datapath = Datapath::open(&spec.pin_root, LINK).unwrap();
            let epoch = datapath.epoch_id();
            datapath.set_gate(&OPEN).unwrap();
            tun.remove();
            assert!(!datapath.is_attached(ifindex));

            let mut tun = Tun::new();
            let loaded = way.load(&spec).unwrap();
            assert_eq!(loaded.origin, Origin::New);
            let datapath = Datapath::open(&spec.pin_root, LINK).unwrap();
            assert_ne!(datapath.epoch_id(), epoch);
            assert!(datapath.is_attached(loaded.ifindex));
            assert_eq!(datapath.gate().unwrap(), Gate::default());
            tun.receive();
            assert_eq!(datapath.read().unwrap().downlink.refused, Tally { octets: 128, packets: 1 });
        });
    }
}

#[test]
fn an_older_program_is_replaced_without_a_new_epoch() {
    for way in Way::all() {
        alone(move |root| {
            let mut tun = Tun::new();
            let spec = spec(root.join("bpf/weir"));
            way.load(&spec).unwrap();
            let directory = spec.pin_root.join(format!("v{LAYOUT_VERSION}/wwan0:7"));
            let program = directory.join("prog_downlink");
            let tag = |path: &Path| ProgramInfo::from_pin(path).unwrap().tag();
            let current = tag(&program);

            put_older_program(&directory, "downlink");
            assert_ne!(tag(&program), current);

            let mut datapath = Datapath::open(&spec.pin_root, LINK).unwrap();
            datapath.set_gate(&OPEN).unwrap();
            tun.receive();
            assert_eq!(way.load(&spec).unwrap().origin, Origin::Adopted);
            assert_eq!(tag(&program), current);
            tun.receive();
            assert_eq!(passed(&datapath), Tally { octets: 2 * 128, packets: 2 });
        });
    }
}

/// Puts the same program with a verdict of OK in place of NEXT, which stands for an older one, where the current one runs.
fn put_older_program(directory: &Path, direction: &str) {
    let mut older = objects(directory).load(&with_another_verdict()).unwrap();
    let classifier: &mut SchedClassifier = older.program_mut(&format!("weir_{direction}")).unwrap().try_into().unwrap();
    classifier.load().unwrap();
    let link = match PinnedLink::from_pin(directory.join(format!("link_{direction}"))) {
        Ok(link) => FdLink::from(link).try_into().unwrap(),
        // No link, so a filter: asked for, or all that this kernel has.
        Err(_) => {
            let hook = if direction == "uplink" { TcAttachType::Egress } else { TcAttachType::Ingress };
            SchedClassifierLink::attached(LINK, hook, 1, handle(directory), None).unwrap()
        }
    };
    let link = classifier.attach_to_link(link).unwrap();
    // A filter that aya lets go of is taken off.
    std::mem::forget(classifier.take_link(link).unwrap());
    let program = directory.join(format!("prog_{direction}"));
    fs::remove_file(&program).unwrap();
    classifier.pin(&program).unwrap();
}

/// Ahead of all others.
fn first(way: Way, directory: &Path) -> TcAttachOptions {
    match way {
        Way::Best => TcAttachOptions::TcxOrder(LinkOrder::first()),
        Way::Clsact => {
            // The second of two finds the clsact of the first.
            let _ = tc::qdisc_add_clsact(LINK);
            TcAttachOptions::Netlink(NlOptions { priority: 1, handle: handle(directory), classid: None })
        }
    }
}

/// The handle of the filters of a meter: its epoch, below a bit that others leave alone.
fn handle(directory: &Path) -> TcHandle {
    TcHandle::from(1 << 31 | MapInfo::from_pin(directory.join("counters")).unwrap().id())
}

/// A loader that pins maps in this directory, or takes those that are there.
fn objects(directory: &Path) -> EbpfLoader<'static> {
    let mut loader = EbpfLoader::new();
    for map in ["counters", "word", "gate", "allow", "hints"] {
        loader.map_pin_path(map, directory.join(map));
    }
    loader
}

/// The loader dies between the two: the uplink has the current program, the downlink still the older one.
#[test]
fn a_loader_that_dies_between_two_replacements_leaves_a_meter_that_counts_and_the_next_replaces_the_other() {
    for way in Way::all() {
        alone(move |root| {
            let mut tun = Tun::new();
            let spec = spec(root.join("bpf/weir"));
            way.load(&spec).unwrap();
            let directory = spec.pin_root.join(format!("v{LAYOUT_VERSION}/wwan0:7"));
            let tags = || {
                ["prog_uplink", "prog_downlink"].map(|name| ProgramInfo::from_pin(directory.join(name)).unwrap().tag())
            };
            let current = tags();
            for direction in ["uplink", "downlink"] {
                put_older_program(&directory, direction);
            }
            let older = tags();
            let mut datapath = Datapath::open(&spec.pin_root, LINK).unwrap();
            datapath.set_gate(&OPEN).unwrap();
            tun.receive();

            let mut command = loader(&spec).unwrap();
            if way == Way::Clsact {
                command.envs([WITHOUT_TCX]);
            }
            let status = command.env("WEIR_DRILL_DIE_AT", "uplink-replaced").status().unwrap();
            assert_eq!(status.signal(), Some(libc::SIGKILL), "{status}");
            assert_eq!(tags(), [current[0], older[1]]);
            tun.receive();
            assert_eq!(way.load(&spec).unwrap().origin, Origin::Adopted);
            assert_eq!(tags(), current);
            tun.receive();
            assert_eq!(passed(&datapath), Tally { octets: 3 * 128, packets: 3 });
        });
    }
}

/// A meter whose counters are longer, under another version and under our own: neither is read as if it were ours.
#[test]
fn a_meter_whose_counters_have_another_size_makes_way_and_is_not_misread() {
    let ways = Way::all().into_iter();
    for (way, version) in ways.flat_map(|way| [(way, 0), (way, LAYOUT_VERSION)]) {
        alone(move |root| {
            let mut tun = Tun::new();
            let spec = spec(root.join("bpf/weir"));
            let directory = spec.pin_root.join(format!("v{version}/wwan0:7"));
            fs::create_dir_all(&directory).unwrap();
            let mut foreign = objects(&directory).load(&with_longer_counters()).unwrap();
            for (direction, hook) in [("uplink", TcAttachType::Egress), ("downlink", TcAttachType::Ingress)] {
                let program: &mut SchedClassifier =
                    foreign.program_mut(&format!("weir_{direction}")).unwrap().try_into().unwrap();
                program.load().unwrap();
                let link = program.attach_with_options(LINK, hook, first(way, &directory)).unwrap();
                let link = program.take_link(link).unwrap();
                match way {
                    Way::Best => {
                        let pin = directory.join(format!("link_{direction}"));
                        drop(FdLink::try_from(link).unwrap().pin(pin).unwrap());
                    }
                    Way::Clsact => std::mem::forget(link),
                }
            }
            drop(foreign);
            tun.receive();
            assert!(Datapath::open(&spec.pin_root, LINK).is_err());

            assert_eq!(way.load(&spec).unwrap().origin, Origin::New);
            let meters = meters_on(LINK).unwrap();
            let datapath = Datapath::open(&spec.pin_root, LINK).unwrap();
            assert_eq!(meters.iter().map(|meter| meter.epoch_id).collect::<Vec<_>>(), [datapath.epoch_id()]);
            assert!(version == LAYOUT_VERSION || !directory.exists());
            assert_eq!(retired(&spec.pin_root).len(), 0, "nothing that could be misread is kept");
            tun.receive();
            assert_eq!(datapath.read().unwrap().downlink.refused, Tally { octets: 128, packets: 1 });
        });
    }
}

/// What was counted is there until somebody says that it is recorded.
#[test]
fn the_counters_of_a_replaced_meter_stay_until_they_are_forgotten() {
    alone(|root| {
        let mut tun = Tun::new();
        let spec = spec(root.join("bpf/weir"));
        load_and_pin(&spec).unwrap();
        let mut datapath = Datapath::open(&spec.pin_root, LINK).unwrap();
        datapath.set_gate(&OPEN).unwrap();
        tun.receive();
        let epoch = datapath.epoch_id();
        drop(datapath);
        tun.remove();
        let _tun = Tun::new();
        assert_eq!(load_and_pin(&spec).unwrap().origin, Origin::New);
        let kept = retired(&spec.pin_root);
        assert_eq!(kept.iter().map(|meter| meter.epoch_id).collect::<Vec<_>>(), [epoch]);
        assert_eq!(kept[0].counters.downlink.passed, Tally { octets: 128, packets: 1 });
        kept[0].forget().unwrap();
        assert!(retired(&spec.pin_root).is_empty());
    });
}

/// The object with counters of 208 octets in place of 200: the same programs, another layout.
fn with_longer_counters() -> Vec<u8> {
    let size = u32::try_from(size_of::<Counters>()).unwrap();
    // `struct bpf_map_def`: a per-CPU array (type 6), keys of four octets, one entry.
    let definition = |size: u32| [6, 4, size, 1].map(u32::to_le_bytes).concat();
    let mut object = OBJECT.to_vec();
    let found: Vec<usize> = (0..object.len()).filter(|at| object[*at..].starts_with(&definition(size))).collect();
    let [at] = found[..] else { panic!("one map of counters in the object: {found:?}") };
    object[at..at + 16].copy_from_slice(&definition(size + 8));
    object
}

/// The object with every `r0 = -1` made `r0 = 0`.
fn with_another_verdict() -> Vec<u8> {
    // `BPF_ALU | BPF_MOV | BPF_K`, any register.
    let is_next = |instruction: &[u8]| {
        instruction[0] == 0xb4 && instruction[1] < 10 && instruction[2..] == [0, 0, 0xff, 0xff, 0xff, 0xff]
    };
    let mut object = OBJECT.to_vec();
    let mut changed = 0;
    for instruction in object.chunks_exact_mut(8).filter(|instruction| is_next(instruction)) {
        instruction[4..].fill(0);
        changed += 1;
    }
    assert!(changed > 0, "no verdict in the object");
    object
}

#[test]
fn a_second_meter_is_refused_and_leaves_nothing_behind() {
    for way in Way::all() {
        alone(move |root| {
            let _tun = Tun::new();
            let ours = spec(root.join("bpf/weir"));
            let other = spec(root.join("bpf/other"));
            let ifindex = way.load(&ours).unwrap().ifindex;
            let error = format!("{:#}", way.load(&other).unwrap_err());
            assert!(error.contains("carries another meter at its uplink hook"), "{error}");
            assert!(!other.pin_root.join(format!("v{LAYOUT_VERSION}/wwan0:7")).exists());
            assert!(Datapath::open(&ours.pin_root, LINK).unwrap().is_attached(ifindex));
            assert_eq!(way.load(&ours).unwrap().origin, Origin::Adopted);
        });
    }
}

#[test]
fn letting_go_takes_everything_off() {
    for way in Way::all() {
        alone(move |root| {
            let _tun = Tun::new();
            let spec = spec(root.join("bpf/weir"));
            way.load(&spec).unwrap();
            detach_and_unpin(&spec.pin_root, LINK).unwrap();
            assert_eq!(fs::read_dir(spec.pin_root.join(format!("v{LAYOUT_VERSION}"))).unwrap().count(), 0);
            assert!(meters_on(LINK).unwrap().is_empty());
            // Once more is no error.
            detach_and_unpin(&spec.pin_root, LINK).unwrap();
        });
    }
}

#[test]
fn the_gate_is_what_was_written_and_its_hints_name_the_write() {
    alone(|root| {
        let mut tun = Tun::new();
        let spec = spec(root.join("bpf/weir"));
        load_and_pin(&spec).unwrap();
        let mut datapath = Datapath::open(&spec.pin_root, LINK).unwrap();
        let mut hints = datapath.hints().unwrap();
        let gate = Gate {
            ceiling: 200,
            deadline_boot_ns: u64::MAX,
            threshold: 1000,
            control_ceiling: 50,
            mode: MODE_BLOCK,
            throttle_rate: 3,
            throttle_tolerance_ns: 4,
            link_type: LINK_RAW_IP,
            generation: 0,
            tells_refusals: 5,
        };
        assert_eq!(datapath.set_gate(&gate).unwrap(), 1);
        assert_eq!(datapath.set_gate(&gate).unwrap(), 2);
        assert_eq!(datapath.gate().unwrap(), Gate { generation: 2, ..gate });
        for _ in 0..3 {
            tun.receive();
        }
        assert_eq!(passed(&datapath), Tally { octets: 128, packets: 1 });
        let hint = hints.take().unwrap();
        assert_eq!((hint.kind, hint.generation), (HINT_REFUSAL, 2));
        assert_eq!(hints.take(), None);
    });
}

#[test]
fn a_gate_that_the_kernel_does_not_hold_is_an_error() {
    alone(|root| {
        let _tun = Tun::new();
        let spec = spec(root.join("bpf/weir"));
        load_and_pin(&spec).unwrap();
        let mut datapath = Datapath::open(&spec.pin_root, LINK).unwrap();
        let before = Gate { ceiling: 0x7765_6972_0000_0001, ..OPEN };
        let generation = datapath.set_gate(&before).unwrap();
        hide(before.ceiling);
        let error = datapath.set_gate(&Gate { ceiling: 1, ..OPEN }).unwrap_err().to_string();
        assert!(error.contains("but the kernel holds"), "{error}");
        assert_eq!(datapath.gate().unwrap(), Gate { generation, ..before });
    });
}

/// Puts memory of our own over the mapped gate with this ceiling: from now on no store reaches the kernel.
fn hide(ceiling: u64) {
    let memory = File::open("/proc/self/mem").unwrap();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let starts = maps.lines().filter(|line| line.contains("bpf-map") && line.contains("rw-s"));
    let starts = starts.map(|line| u64::from_str_radix(line.split_once('-').unwrap().0, 16).unwrap());
    // Other tests map gates too, and let them go: read through the file, a mapping that is gone is an error.
    let holds = |start: &u64| {
        let mut first = [0; 8];
        memory.read_exact_at(&mut first, *start).is_ok() && u64::from_ne_bytes(first) == ceiling
    };
    let ours: Vec<u64> = starts.filter(holds).collect();
    assert_eq!(ours.len(), 1, "{maps}");
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the page is the gate that only the caller's datapath knows, and stays mapped for as long as that lives.
    let hidden = unsafe { libc::mmap(ours[0] as *mut libc::c_void, size_of::<Gate>(), access, flags, -1, 0) };
    assert_ne!(hidden, libc::MAP_FAILED, "{}", io::Error::last_os_error());
}

/// The first list refuses whatever comes at its end, the second one at its beginning; half of the one and half of the other lets it pass.
#[test]
fn no_packet_is_judged_by_half_of_one_list_of_filters_and_half_of_another() {
    let filter = |verdict, protocol| Filter { verdict, direction: DOWNLINK, protocol, ..Filter::default() };
    let (no, yes, other) = (filter(FILTER_DENY, 17), filter(FILTER_PERMIT, 17), filter(FILTER_DENY, 6));
    let mut lists = [Filters { list: [other; MAX_FILTERS] }; 2];
    lists[0].list[MAX_FILTERS - 1] = no;
    lists[1].list[0] = no;
    lists[1].list[MAX_FILTERS - 1] = yes;
    alone(move |root| {
        let mut tun = Tun::new();
        let spec = spec(root.join("bpf/weir"));
        load_and_pin(&spec).unwrap();
        let mut datapath = Datapath::open(&spec.pin_root, LINK).unwrap();
        let restrict = Gate { ceiling: 0, mode: MODE_RESTRICT, ..OPEN };
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    tun.receive();
                }
            });
            let written = (0..100).try_for_each(|round| {
                datapath.set_filters(&lists[round % 2])?;
                datapath.set_gate(&restrict).map(drop)
            });
            is_over.store(true, Ordering::SeqCst);
            written.unwrap();
        });
        let downlink = datapath.read().unwrap().downlink;
        assert!(downlink.refused.packets > 1000, "{downlink:?}");
        assert_eq!(downlink.throttled, Tally::default(), "passed by half of each list");
    });
}

#[test]
fn the_allow_list_becomes_what_is_given() {
    alone(|root| {
        let mut tun = Tun::new();
        let spec = spec(root.join("bpf/weir"));
        load_and_pin(&spec).unwrap();
        let mut datapath = Datapath::open(&spec.pin_root, LINK).unwrap();
        datapath.set_gate(&Gate { ceiling: 0, control_ceiling: 10_000, ..OPEN }).unwrap();
        let list = |resolver: &str| AllowList { servers: vec![], resolvers: vec![resolver.parse().unwrap()] };
        datapath.set_allow_list(&list("198.51.100.8")).unwrap();
        tun.receive();
        datapath.set_allow_list(&list("198.51.100.7")).unwrap();
        tun.receive();
        tun.receive();
        datapath.set_allow_list(&list("2001:db8::53")).unwrap();
        tun.receive();
        let counters = datapath.read().unwrap().downlink;
        assert_eq!((counters.control.packets, counters.refused.packets), (2, 2));
        let many = (0..200).map(|last| [198, 51, 100, last].into()).collect();
        assert!(datapath.set_allow_list(&AllowList { servers: vec![], resolvers: many }).is_err());
    });
}

#[test]
fn what_is_missing_is_said_with_what_to_do() {
    alone(|root| {
        let unknown = format!("{:#}", load_and_pin(&spec(root.join("bpf/weir"))).unwrap_err());
        assert_eq!(unknown, format!("there is no interface {LINK}; there are: lo"));
        let _tun = Tun::new();
        let elsewhere = format!("{:#}", load_and_pin(&spec(root.join("pins"))).unwrap_err());
        assert!(elsewhere.contains("is not on a BPF file system") && elsewhere.contains("mount -t bpf"), "{elsewhere}");
        assert!(!root.join("pins").exists());
    });
}

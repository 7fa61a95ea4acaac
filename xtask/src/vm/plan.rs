//! Which tests run on other kernels, and which do not and why.

use super::{
    kernels::{Kernel, Machine},
    verdict::Planned,
};

/// What of a file of tests is run in a guest.
struct Part {
    /// The file: `tests/tests/FILE.rs`.
    file: &'static str,
    /// Names of its tests.
    tests: &'static [&'static str],
    /// Why its other tests are left to this machine's own kernel, which runs them all. Empty when there are no others.
    others: &'static str,
}

/// Modules that these tests use; the kernel of a gateway loads them by itself.
const MODULES: [&str; 6] = ["veth", "tun", "dummy", "sch_ingress", "cls_bpf", "bridge"];

const SAME: &str = "the rest asks the same of the kernel";
const USER: &str = "what it is about happens in user space, the same on every kernel";

/// Chosen for what a kernel can do differently: the programs and their verifier, attaching and adopting, links, offloads.
const PARTS: &[Part] = &[
    Part {
        file: "packets",
        tests: &[
            "a_single_packet_is_its_octets_behind_the_link_header",
            "a_super_packet_is_all_the_packets_it_becomes",
            "tunnels::a_super_packet_in_a_tunnel_is_all_the_packets_it_becomes",
            "the_frame_decides_what_the_link_is_and_not_the_setting",
            "gate::a_gate_never_written_is_shut",
            "gate::the_ceiling_is_reached_to_the_octet_and_not_passed_by_one",
            "object::the_verifier_is_nowhere_near_its_bound",
            "gate::nothing_passes_after_the_deadline",
            "gate::control_traffic_passes_a_shut_gate",
            "policer::an_idle_link_lets_a_packet_of_any_size_pass_and_no_more",
            "gate::the_threshold_is_hinted_once_when_it_is_reached",
            "contention::ten_thousand_times_all_processors_reach_the_ceiling_together_and_none_passes_it",
        ],
        others: "the same programs by other packets; loading them takes seconds in an emulator, for each test",
    },
    Part {
        file: "meter",
        tests: &[
            "every_octet_is_counted_on_ethernet",
            "every_octet_is_counted_where_the_gateway_merges_what_it_receives",
            "every_octet_is_counted_in_small_segments",
            "every_octet_is_counted_on_raw_ip",
            "every_octet_is_counted_when_the_link_type_is_set_wrong",
        ],
        others: "",
    },
    Part {
        file: "adopt",
        tests: &[
            "a_live_meter_is_adopted_and_goes_on_counting",
            "a_meter_whose_interface_is_gone_makes_way_for_a_new_epoch",
            "an_older_program_is_replaced_without_a_new_epoch",
            "the_counters_of_a_replaced_meter_stay_until_they_are_forgotten",
            "the_gate_is_what_was_written_and_its_hints_name_the_write",
            "the_allow_list_becomes_what_is_given",
        ],
        others: SAME,
    },
    Part {
        file: "strangers",
        tests: &[
            "filters_of_others_see_what_the_meter_lets_pass_and_hide_nothing_from_it",
            "the_clsact_stays_when_the_meter_goes",
        ],
        others: SAME,
    },
    Part {
        file: "counting",
        tests: &["counts_every_octet_once_over_ipv4", "counts_every_octet_once_on_a_raw_ip_link"],
        others: "with GRO they send faster than an emulated gateway takes in, and what is lost before the hook is not \
                 the meter's: `meter` sees such losses and does it again",
    },
    Part { file: "ceiling", tests: &["closes_at_the_ceiling", "final_unit_blocks_and_top_up_reopens"], others: SAME },
    Part {
        file: "actions",
        tests: &[
            "a_restricted_link_carries_what_the_server_permits_and_its_word_counts_at_any_moment",
            "hosts_behind_a_used_up_link_hear_of_it_at_once_and_connect_after_a_top_up",
        ],
        others: USER,
    },
    Part { file: "storm", tests: &["survives_kill_minus_nine"], others: SAME },
    Part { file: "stopping", tests: &["keep_leaves_pins_and_gates_and_the_next_agent_goes_on"], others: USER },
    Part {
        file: "links",
        tests: &[
            "switches_link_and_settles_the_old_sim",
            "a_link_that_goes_down_is_settled_and_taken_up_again",
            "a_link_that_vanished_while_nobody_was_there_is_billed_from_its_pinned_meter",
        ],
        others: SAME,
    },
    Part {
        file: "netlink",
        tests: &["the_gate_follows_the_type_of_a_living_link_and_not_an_octet_is_miscounted"],
        others: SAME,
    },
    Part {
        file: "takeover",
        tests: &["a_meter_of_an_older_layout_is_read_for_the_last_time_and_makes_way_without_a_gap"],
        others: SAME,
    },
    Part {
        file: "unmetered",
        tests: &[
            "a_meter_that_somebody_takes_off_is_noticed_and_attached_again_and_the_gap_is_told",
            "a_filter_that_somebody_deletes_is_noticed_and_put_there_again_and_the_gap_is_told",
        ],
        others: SAME,
    },
];

/// Modules of modems without hardware, on top of [`MODULES`]: of a USB modem, whose driver that is asked first comes first; of simulated
/// WWAN links and the way out of them.
const MODEM_MODULES: [&str; 8] =
    ["dummy_hcd", "usb_f_ecm", "qmi_wwan", "cdc_ether", "wwan_hwsim", "cls_matchall", "act_vlan", "act_mirred"];

/// What is run where there are drivers of modems, and nothing else.
const MODEM: Part = Part {
    file: "modem",
    tests: &[
        "a_usb_modem_is_billed_to_the_octet_when_it_is_pulled_out_and_metered_anew_when_it_is_back",
        "a_usb_modem_pulled_out_under_traffic_is_billed_to_the_last_octet_that_was_counted",
        "a_usb_modem_told_to_speak_raw_ip_is_counted_to_the_octet_before_and_after",
        "a_wwan_link_is_billed_to_the_octet_both_ways_over_ipv4_and_ipv6",
        "a_wwan_link_is_billed_to_the_octet_both_ways_where_there_is_no_tcx",
        "a_wwan_link_deleted_under_traffic_and_made_anew_goes_on_as_a_new_meter_and_loses_nothing",
        "links_of_one_wwan_modem_are_billed_each_by_itself_and_settled_when_it_is_gone",
    ],
    others: "",
};

/// The few of [`PARTS`] that every test run takes to the oldest and to the newest kind of kernel: each stage of the road once.
const ESSENTIAL: &[(&str, &str)] = &[
    ("packets", "gate::the_ceiling_is_reached_to_the_octet_and_not_passed_by_one"),
    ("packets", "object::the_verifier_is_nowhere_near_its_bound"),
    ("meter", "every_octet_is_counted_on_ethernet"),
    ("ceiling", "final_unit_blocks_and_top_up_reopens"),
    ("storm", "survives_kill_minus_nine"),
];

/// Files of which nothing is run in a guest, and why.
const LEFT_OUT: &[(&str, &str)] = &[
    ("cli", USER),
    ("commands", USER),
    ("crash", "a death at every point takes minutes in an emulator; `storm` kills the agent on other kernels too"),
    (
        "doctor",
        "it asks of a kernel what the meter asks of it; each of its faults is planted in seconds, not in an emulator's",
    ),
    ("drain", USER),
    ("faults", USER),
    ("foreign", USER),
    ("harness", "the tests' own instruments; each scenario in a guest leans on them"),
    ("matrix", "its traffic counts on a pace that an emulated gateway does not keep; `meter` counts on every kernel"),
    ("page", "it wants a browser; what it shows is made in user space, the same on every kernel"),
    ("power", USER),
    ("rename", SAME),
    ("replay", USER),
    ("secrets", USER),
    ("servers", USER),
    ("stacked", SAME),
    ("starting", USER),
    ("storage", USER),
    ("supervisor", USER),
    ("switch", SAME),
    ("throttle", "a rate wants a machine that keeps up with it; what a kernel can do differently is in `packets`"),
    ("time", USER),
    ("watch", USER),
    ("usage", USER),
    ("ways", USER),
];

/// Tests of [`PARTS`] that need something newer than Linux 6.1, and what.
const NEWER: &[(&str, &str)] = &[
    ("every_octet_is_counted_on_raw_ip", UDP_OVER_TUN),
    ("every_octet_is_counted_when_the_link_type_is_set_wrong", UDP_OVER_TUN),
    (
        "a_meter_that_somebody_takes_off_is_noticed_and_attached_again_and_the_gap_is_told",
        "it takes off a TCX link, and there is none before Linux 6.6; a filter that is deleted is its counterpart",
    ),
];
const UDP_OVER_TUN: &str = "before Linux 6.11 a UDP super-packet cannot be sent through TUN (EIO); \
                            `counting` and `netlink` meter raw-IP links without such";

/// Files of [`PARTS`] that an emulated aarch64, which takes three times as long, is spared.
const NOT_ON_ARM: &[&str] = &["actions", "strangers", "stopping", "links", "netlink", "takeover", "unmetered"];
const SPARED: &str = "what is the machine's own (atomic instructions, the JIT, alignment, the programs) is in the others; \
                      the same kernel on x86-64 runs these";

/// What a guest does.
pub(crate) struct Plan {
    /// Modules that it loads.
    pub(crate) modules: Vec<&'static str>,
    /// The files of tests that it needs.
    pub(crate) files: Vec<&'static str>,
    /// Shell lines that run them, each file's tests after its name.
    pub(crate) script: String,
    /// Every test that has to pass.
    pub(crate) planned: Vec<Planned>,
    /// For the reader: what is run only in part, or not at all, and why.
    pub(crate) left_out: Vec<String>,
}

/// All that is run on this kernel.
pub(crate) fn of(kernel: Kernel) -> Plan {
    match kernel {
        Kernel::V5_10 => refusal(),
        Kernel::Modem6_12 => {
            let mut plan = Plan::new(&[&MODULES[..], &MODEM_MODULES].concat());
            plan.add(&MODEM, MODEM.tests.to_vec());
            plan.left_out.push("all other tests: 6.12 without modems runs them".to_owned());
            plan
        }
        Kernel::V6_1 | Kernel::V6_12 | Kernel::V7_3 | Kernel::Arm6_1 | Kernel::Arm6_12 => metered(kernel),
    }
}

fn metered(kernel: Kernel) -> Plan {
    let mut plan = Plan::new(&MODULES);
    let lacking = if kernel.is_old() { NEWER } else { &[] };
    let spared = if kernel.machine() == Machine::Arm64 { NOT_ON_ARM } else { &[] };
    for part in PARTS.iter().filter(|part| !spared.contains(&part.file)) {
        let is_possible = |test: &&'static str| lacking.iter().all(|(lacks, _)| lacks != test);
        plan.add(part, part.tests.iter().copied().filter(is_possible).collect());
    }
    plan.left_out.extend(lacking.iter().map(|(test, why)| format!("{test}: not run on Linux 6.1; {why}")));
    plan.left_out.extend(spared.iter().map(|file| format!("{file}: not run on aarch64; {SPARED}")));
    plan.left_out.extend(LEFT_OUT.iter().map(|(file, why)| format!("{file}: not run here; {why}")));
    plan
}

/// The little that each run of all tests takes to other kernels.
pub(crate) fn essentials() -> Plan {
    let mut plan = Plan::new(&MODULES);
    for part in PARTS {
        let is_essential = |test: &&'static str| ESSENTIAL.contains(&(part.file, *test));
        let tests: Vec<_> = part.tests.iter().copied().filter(is_essential).collect();
        if !tests.is_empty() {
            plan.add(part, tests);
        }
    }
    plan.left_out = vec!["the essentials; `cargo xtask test --kernel` runs more".to_owned()];
    plan
}

fn refusal() -> Plan {
    let mut plan = Plan::new(&MODULES);
    include_str!("refusal.sh").clone_into(&mut plan.script);
    plan.planned = vec![
        Planned("refusal", "the_agent_says_that_the_kernel_is_too_old_and_which_is_needed"),
        Planned("refusal", "nothing_is_pinned_where_nothing_can_be_metered"),
    ];
    plan.left_out = vec!["all tests: they need a meter, and there is none on this kernel".to_owned()];
    plan
}

impl Plan {
    fn new(modules: &[&'static str]) -> Self {
        let modules = modules.to_vec();
        Self { modules, files: Vec::new(), script: String::new(), planned: Vec::new(), left_out: Vec::new() }
    }

    /// Adds these tests of a part.
    fn add(&mut self, part: &Part, tests: Vec<&'static str>) {
        let Part { file, others, .. } = *part;
        // Two at a time, as many as there are processors.
        let run = format!("/weir/{file} --color never --test-threads 2 --exact {}", tests.join(" "));
        self.script.extend(["echo 'weir-vm: file ", file, "'\n", &run, " || failed=1\n"]);
        if !others.is_empty() {
            self.left_out.push(format!("{file}: {} of its tests; {others}", tests.len()));
        }
        self.planned.extend(tests.into_iter().map(|test| Planned(file, test)));
        self.files.push(file);
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use super::*;
    use crate::{rules::collect_rust_files, workspace::Workspace};

    #[test]
    fn every_file_of_tests_is_run_or_left_out_with_a_reason() {
        let directory = Workspace::find().unwrap().root.join("tests/tests");
        let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let names: BTreeSet<_> = names.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
        let told = PARTS.iter().chain([&MODEM]).map(|part| part.file).chain(LEFT_OUT.iter().map(|(file, _)| *file));
        assert_eq!(told.clone().map(ToOwned::to_owned).collect::<BTreeSet<_>>(), names);
        assert_eq!(told.count(), names.len(), "a file is told of twice");
        assert!(LEFT_OUT.iter().all(|(_, why)| !why.is_empty()));
        assert!(NOT_ON_ARM.iter().all(|file| PARTS.iter().any(|part| part.file == *file)));
    }

    #[test]
    fn what_is_essential_is_planned_and_possible_on_every_kernel() {
        for (file, test) in ESSENTIAL {
            let part = PARTS.iter().find(|part| part.file == *file).unwrap();
            assert!(part.tests.contains(test), "{file}: {test}");
            assert!(NEWER.iter().all(|(lacks, _)| lacks != test), "{file}: {test}");
        }
        assert_eq!(essentials().planned.len(), ESSENTIAL.len());
    }

    #[test]
    fn every_planned_test_exists_and_the_rest_of_its_file_has_a_reason() {
        let directory = Workspace::find().unwrap().root.join("tests/tests");
        for part in PARTS.iter().chain([&MODEM]) {
            let folder = directory.join(part.file);
            let mut sources = Vec::new();
            if folder.is_dir() {
                collect_rust_files(&folder, &mut sources).unwrap();
            } else {
                sources.push(folder.with_extension("rs"));
            }
            let source: String = sources.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
            for test in part.tests {
                let test = test.rsplit("::").next().unwrap();
                assert!(source.contains(&format!("#[test]\nfn {test}()")), "{}: there is no test {test}", part.file);
            }
            let all = source.matches("#[test]\n").count();
            assert_eq!(part.others.is_empty(), all == part.tests.len(), "{} has {all} tests", part.file);
        }
    }
}

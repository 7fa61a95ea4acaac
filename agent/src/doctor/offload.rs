//! Flows that hardware forwards by itself, past every hook of the kernel.
//!
//! A flow table in software is harmless: its hook comes after TC's ingress (`__netif_receive_skb_core`), and what it sends goes
//! through `dev_queue_xmit` and with it through TC's egress.

use std::io;

use anyhow::Result;

use super::finding::{Check, Finding};
use super::links::Metered;
use super::{AS_ROOT, is_forbidden};
use crate::config::fits;
use crate::link::{Flowtable, flowtables, offloads_flows};

/// Looks at all links.
pub(super) fn findings(links: &[Metered]) -> Vec<Finding> {
    let tables = flowtables();
    links.iter().map(|link| judge(&link.name, &tables, &offloads_flows(&link.name)).of(&link.name)).collect()
}

fn judge(link: &str, tables: &Result<Vec<Flowtable>>, feature: &io::Result<bool>) -> Finding {
    let check = Check::LinkOffload;
    let tables = match tables {
        Ok(tables) => tables,
        Err(error) if is_forbidden(error) => {
            return Finding::not_checked(
                check,
                "the flow tables of nftables may not be looked at by this user",
                AS_ROOT,
            );
        }
        Err(error) => return Finding::not_checked(check, format!("{error:#}"), "look by hand: nft list flowtables"),
    };
    let fix = "leave `flags offload` out of it: a flow table in software goes through the meter";
    let in_hardware = || tables.iter().filter(|table| table.in_hardware);
    if let Some(table) = in_hardware().find(|table| table.links.iter().any(|name| fits(name, link))) {
        let what = format!("the flow table {} has the hardware forward its flows", table.name);
        return Finding::problem(check, what, fix);
    }
    // The links of a flow are those of its table as far as it goes in hardware, and drivers differ in how far that is.
    if let Some(table) = in_hardware().next() {
        let what = format!(
            "the flow table {} has the hardware forward flows of other links, perhaps into this one",
            table.name
        );
        return Finding::warning(check, what, fix);
    }
    match feature {
        Ok(true) => Finding::ok(
            check,
            "its driver could forward flows by itself (hw-tc-offload), and no flow table has it do so",
        ),
        Ok(false) => Finding::ok(check, "no hardware forwards flows past the meter"),
        Err(error) => Finding::ok(
            check,
            format!("no flow table has the hardware forward flows (its driver does not say: {error})"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;
    use crate::doctor::finding::Verdict;

    fn table(links: &[&str], in_hardware: bool) -> Flowtable {
        Flowtable {
            name: "fw ft".to_owned(),
            links: links.iter().map(|link| (*link).to_owned()).collect(),
            in_hardware,
        }
    }

    #[test]
    fn a_flow_table_in_hardware_is_found_by_name_and_pattern_and_one_in_software_is_fine() {
        let judged = |tables: Vec<Flowtable>| judge("wan0", &Ok(tables), &Ok(false)).verdict;
        assert_eq!(judged(vec![]), Verdict::Ok);
        assert_eq!(judged(vec![table(&["wan0", "lan0"], false)]), Verdict::Ok);
        assert_eq!(judged(vec![table(&["wan0", "lan0"], false), table(&["wan0"], true)]), Verdict::Problem);
        assert_eq!(judged(vec![table(&["lan0", "wan*"], true)]), Verdict::Problem);
        assert_eq!(judged(vec![table(&["lan0", "lan1"], true)]), Verdict::Warning);
    }

    #[test]
    fn what_the_driver_could_do_is_said_and_alone_is_no_fault() {
        let told = judge("wan0", &Ok(vec![]), &Ok(true));
        assert!(told.verdict == Verdict::Ok && told.what.contains("hw-tc-offload"), "{told:?}");
        assert_eq!(judge("wan0", &Ok(vec![]), &Err(io::ErrorKind::NotFound.into())).verdict, Verdict::Ok);
        let denied = anyhow!(io::Error::from_raw_os_error(libc::EPERM)).context("asking");
        assert_eq!(judge("wan0", &Err(denied), &Ok(true)).verdict, Verdict::NotChecked);
    }
}

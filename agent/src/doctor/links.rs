//! The links of the configuration: whether they are there, what they stand on, and whether the default route leads over one of them.

use super::finding::{Check, Finding};
use crate::config::{Config, Link};
use crate::link::{Links, Refusal};

/// A link that the configuration wants metered and that can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Metered {
    /// Its name.
    pub(super) name: String,
    /// Its index.
    pub(super) index: u32,
    /// Whether it is up.
    pub(super) up: bool,
}

/// What the configuration says of links against those that there are; with the links that can be metered.
pub(super) fn findings(config: &Config, links: &Links) -> (Vec<Finding>, Vec<Metered>) {
    let mut told: Vec<Finding> = config.links.iter().filter_map(|wanted| absent(wanted, links)).collect();
    let mut metered = Vec::new();
    for (index, link) in links.by_index.iter().filter(|(_, link)| config.names(&link.name)) {
        told.push(present(&link.name, link.up));
        let refusal = links.refusal(*index, |name| config.names(name));
        told.push(stack(&link.name, refusal.as_ref()));
        if refusal.is_none() {
            metered.push(Metered { name: link.name.clone(), index: *index, up: link.up });
        }
    }
    let is_metered = |index: u32| metered.iter().any(|link| link.index == index);
    told.extend(routes(links, is_metered));
    (told, metered)
}

fn absent(wanted: &Link, links: &Links) -> Option<Finding> {
    if links.by_index.values().any(|link| wanted.matches(&link.name)) {
        return None;
    }
    let names: Vec<&str> =
        links.by_index.values().map(|link| link.name.as_str()).filter(|name| *name != "lo").collect();
    let what = if wanted.is_pattern() { "no link fits this name" } else { "there is no such link" };
    let fix = format!("plug the modem in, or correct [[link]] name; there are: {}", names.join(", "));
    Some(Finding::warning(Check::LinkPresent, what, fix).of(&wanted.name))
}

fn present(name: &str, up: bool) -> Finding {
    let finding = if up {
        Finding::ok(Check::LinkPresent, "is there and up")
    } else {
        Finding::warning(Check::LinkPresent, "is down", format!("if it should be in use: ip link set {name} up"))
    };
    finding.of(name)
}

fn stack(name: &str, refusal: Option<&Refusal>) -> Finding {
    let finding = match refusal {
        None => Finding::ok(Check::LinkStack, "stands on nothing that would count its octets twice"),
        Some(refusal) => {
            let fix = "name the link that the reason names in [[link]], and restart weir";
            Finding::problem(Check::LinkStack, format!("is not metered: {refusal}"), fix)
        }
    };
    finding.of(name)
}

/// Where the best default route of each family leads.
fn routes(links: &Links, is_metered: impl Fn(u32) -> bool) -> Vec<Finding> {
    let check = Check::RouteMetered;
    let best = |ipv6: bool| {
        let defaults = links.routes.iter().filter(|route| route.length == 0 && route.network.is_ipv6() == ipv6);
        defaults.min_by_key(|route| route.metric).map(|route| (if ipv6 { "IPv6" } else { "IPv4" }, route.index))
    };
    let found: Vec<(&str, u32)> = [false, true].into_iter().filter_map(best).collect();
    if found.is_empty() {
        return vec![Finding::not_checked(check, "there is no default route", "run it again once a link is in use")];
    }
    let tell = |(family, index): (&'static str, u32)| {
        let name = links.name_of(index).unwrap_or("a link that is gone");
        if is_metered(index) {
            return Finding::ok(check, format!("leads out of {name}, which is metered")).of(family);
        }
        let fix = format!(
            "nothing, if {name} is not paid per octet; else give it a [[link]], or a metered link the better metric"
        );
        Finding::warning(check, format!("leads out of {name}, which is not metered"), fix).of(family)
    };
    found.into_iter().map(tell).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::doctor::finding::Verdict;
    use crate::link::{Link as Seen, RouteOut};

    fn config(links: &str) -> Config {
        let text = format!("[device]\nid = \"a\"\n[server]\nurl = \"https://a.example\"\n{links}");
        Config::parse(&text, Path::new("/etc/weir/weir.toml")).unwrap()
    }

    fn links(seen: Vec<Seen>, routes: &[(&str, u32, u32)]) -> Links {
        let route = |(network, metric, index): &(&str, u32, u32)| RouteOut {
            network: network.parse().unwrap(),
            length: 0,
            metric: *metric,
            index: *index,
        };
        Links { by_index: (1..).zip(seen).collect(), routes: routes.iter().map(route).collect(), ..Links::default() }
    }

    fn told(findings: &[Finding], check: Check) -> Vec<(Option<&str>, Verdict)> {
        let of = findings.iter().filter(|finding| finding.check == check);
        of.map(|finding| (finding.subject.as_deref(), finding.verdict)).collect()
    }

    #[test]
    fn links_that_are_missing_or_down_are_told_with_those_that_there_are() {
        let config =
            config("[[link]]\nname = \"wan0\"\n[[link]]\nname = \"wan1\"\n[[link]]\nname = \"wwan*\"\nslot = \"b\"\n");
        let down = Seen { up: false, ..Seen::plain("wan1") };
        let (findings, metered) = findings(&config, &links(vec![Seen::plain("lo"), down, Seen::plain("eth0")], &[]));
        let expected =
            [(Some("wan0"), Verdict::Warning), (Some("wwan*"), Verdict::Warning), (Some("wan1"), Verdict::Warning)];
        assert_eq!(told(&findings, Check::LinkPresent), expected);
        assert!(findings[0].fix.as_ref().unwrap().ends_with("there are: wan1, eth0"), "{:?}", findings[0]);
        assert_eq!(metered, [Metered { name: "wan1".to_owned(), index: 2, up: false }]);
    }

    #[test]
    fn a_link_on_top_of_another_is_a_problem_and_not_looked_at_further() {
        let config = config("[[link]]\nname = \"eth0.5\"\n");
        let vlan = Seen { kind: "vlan".to_owned(), lower: Some(1), ..Seen::plain("eth0.5") };
        let (findings, metered) = findings(&config, &links(vec![Seen::plain("eth0"), vlan], &[]));
        assert_eq!(told(&findings, Check::LinkStack), [(Some("eth0.5"), Verdict::Problem)]);
        assert!(metered.is_empty());
    }

    #[test]
    fn a_default_route_around_the_metered_link_is_told_for_each_family() {
        let config = config("[[link]]\nname = \"wan0\"\n");
        let with = |routes: &[(&str, u32, u32)]| {
            let (findings, _) = findings(&config, &links(vec![Seen::plain("wan0"), Seen::plain("eth0")], routes));
            told(&findings, Check::RouteMetered).iter().map(|(_, verdict)| *verdict).collect::<Vec<_>>()
        };
        assert_eq!(with(&[]), [Verdict::NotChecked]);
        assert_eq!(with(&[("0.0.0.0", 100, 1), ("0.0.0.0", 200, 2)]), [Verdict::Ok]);
        assert_eq!(with(&[("0.0.0.0", 100, 1), ("::", 200, 1), ("::", 100, 2)]), [Verdict::Ok, Verdict::Warning]);
        assert_eq!(with(&[("0.0.0.0", 50, 2), ("0.0.0.0", 100, 1)]), [Verdict::Warning]);
    }
}

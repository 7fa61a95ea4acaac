//! The flow tables of nftables, asked of the kernel: which links forward established flows by a shorter way, in software or in hardware.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NlasIterator};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETFLOWTABLE` (linux/netfilter/nfnetlink.h, `nf_tables.h`).
const GET: u16 = (10 << 8) + 23;
/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWFLOWTABLE`: what an answer is.
const TOLD: u16 = (10 << 8) + 22;
/// Octets of `struct nlmsghdr`, and below of `struct nfgenmsg`.
const HEADER: u32 = 16;
const GENERIC: usize = 4;
const TABLE: u16 = 1;
const NAME: u16 = 2;
const HOOK: u16 = 3;
const FLAGS: u16 = 7;
/// `NFTA_FLOWTABLE_HOOK_DEVS`, within the hook.
const DEVICES: u16 = 3;
/// `NFTA_DEVICE_NAME`, within the devices.
const DEVICE: u16 = 1;
/// `NFT_FLOWTABLE_HW_OFFLOAD`.
const IN_HARDWARE: u32 = 1;

/// A flow table of this namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flowtable {
    /// The nftables table that it is in, and its name there.
    pub name: String,
    /// The links it is for; one with a `*` at its end stands for all that begin so (Linux 6.16).
    pub links: Vec<String>,
    /// Whether it has the hardware forward (`flags offload`).
    pub in_hardware: bool,
}

/// All flow tables; none where the kernel has no nftables. Takes `CAP_NET_ADMIN`.
pub fn flowtables() -> Result<Vec<Flowtable>> {
    if !has_nftables() {
        return Ok(Vec::new());
    }
    let mut socket = match Socket::new(NETLINK_NETFILTER) {
        // A kernel without netfilter.
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(Vec::new()),
        socket => socket.context("opening a netlink socket to ask for flow tables")?,
    };
    socket.bind_auto().context("binding a netlink socket")?;
    socket.send_to(&question(), &SocketAddr::new(0, 0), 0).context("asking for flow tables")?;
    let mut found = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full().context("receiving flow tables")?;
        if take(&datagram, &mut found)? {
            return Ok(found);
        }
    }
}

/// Where nftables is a module that is not loaded it has no table, and the question alone would load it.
fn has_nftables() -> bool {
    let loaded = fs::read_to_string("/proc/modules").unwrap_or_default();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let built_in = Path::new("/lib/modules").join(release.trim()).join("modules.builtin");
    loaded.lines().any(|line| line.starts_with("nf_tables "))
        || fs::read_to_string(built_in).map_or(true, |list| list.contains("/nf_tables.ko"))
}

fn question() -> Vec<u8> {
    let length = HEADER + u32::try_from(GENERIC).unwrap_or_default();
    let mut octets = length.to_ne_bytes().to_vec();
    octets.extend(GET.to_ne_bytes());
    octets.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    // Number and sender; then any family, version 0, no resource.
    octets.extend([0; 8]);
    octets.extend([0; GENERIC]);
    octets
}

/// Takes what a datagram tells; true when it was the last one.
fn take(datagram: &[u8], found: &mut Vec<Flowtable>) -> Result<bool> {
    let mut rest = datagram;
    while !rest.is_empty() {
        let answer = NetlinkBuffer::new_checked(rest).map_err(|error| anyhow!("netlink: {error}"))?;
        let length = usize::try_from(answer.length())?;
        match answer.message_type() {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => return refused(answer.payload()).map(|()| true),
            TOLD => found.extend(answer.payload().get(GENERIC..).map(read)),
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(datagram.is_empty())
}

/// A kernel without nftables does not know the question.
fn refused(payload: &[u8]) -> Result<()> {
    let number = payload.first_chunk().map_or(0, |octets| -i32::from_ne_bytes(*octets));
    if [0, libc::EINVAL, libc::EOPNOTSUPP].contains(&number) {
        return Ok(());
    }
    Err(io::Error::from_raw_os_error(number)).context("asking for flow tables")
}

fn read(attributes: &[u8]) -> Flowtable {
    let text = |kind| attribute(attributes, kind).map(|octets| name(octets, "")).unwrap_or_default();
    let hook = attribute(attributes, HOOK).unwrap_or_default();
    let devices = attribute(hook, DEVICES).unwrap_or_default();
    let flags =
        attribute(attributes, FLAGS).and_then(<[u8]>::first_chunk).map_or(0, |octets| u32::from_be_bytes(*octets));
    Flowtable {
        name: format!("{} {}", text(TABLE), text(NAME)),
        links: each(devices).filter(|(kind, _)| *kind == DEVICE).map(|(_, octets)| name(octets, "*")).collect(),
        in_hardware: flags & IN_HARDWARE != 0,
    }
}

fn attribute(octets: &[u8], kind: u16) -> Option<&[u8]> {
    each(octets).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

fn each(octets: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(octets).map_while(Result::ok).filter_map(|attribute| {
        let (kind, end) = (attribute.kind(), usize::from(attribute.length()));
        Some((kind, attribute.into_inner().get(4..end)?))
    })
}

/// A name as it ends with a zero; what has none at its end is the beginning of names, and gets `open`.
fn name(octets: &[u8], open: &str) -> String {
    let end = octets.iter().position(|octet| *octet == 0);
    let text = String::from_utf8_lossy(&octets[..end.unwrap_or(octets.len())]).into_owned();
    if end.is_some() { text } else { text + open }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An attribute as the kernel writes it: its length without the padding, its kind, what it holds.
    fn told(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut octets = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        octets.extend(value);
        octets.resize(octets.len().next_multiple_of(4), 0);
        octets
    }

    fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(16 + payload.len()).unwrap();
        let mut octets = length.to_ne_bytes().to_vec();
        octets.extend(kind.to_ne_bytes());
        octets.extend([0; 10]);
        octets.extend(payload);
        octets
    }

    /// `table inet fw { flowtable ft { hook ingress priority filter; devices = { eth0, wwan* }; flags offload; } }`
    fn flowtable(flags: u32) -> Vec<u8> {
        const NESTED: u16 = 0x8000;
        let devices = [told(1, b"eth0\0"), told(1, b"wwan")].concat();
        let hook = [told(1, &0_u32.to_be_bytes()), told(2, &0_u32.to_be_bytes()), told(3 | NESTED, &devices)].concat();
        let attributes = [
            told(1, b"fw\0"),
            told(2, b"ft\0"),
            told(4, &1_u32.to_be_bytes()),
            told(5, &3_u64.to_be_bytes()),
            told(7, &flags.to_be_bytes()),
            told(3 | NESTED, &hook),
        ];
        let generic = [1, 0, 0, 1];
        message(TOLD, &[&generic[..], &attributes.concat()].concat())
    }

    #[test]
    fn a_flow_table_is_read_with_its_links_and_whether_it_is_in_hardware() {
        let mut found = Vec::new();
        let both = [flowtable(0), flowtable(1 | 2)].concat();
        assert!(!take(&both, &mut found).unwrap());
        assert!(take(&message(NLMSG_DONE, &[0; 4]), &mut found).unwrap());
        let software = Flowtable {
            name: "fw ft".to_owned(),
            links: vec!["eth0".to_owned(), "wwan*".to_owned()],
            in_hardware: false,
        };
        let hardware = Flowtable { in_hardware: true, ..software.clone() };
        assert_eq!(found, [software, hardware]);
    }

    #[test]
    fn a_kernel_without_nftables_has_none_and_a_missing_right_is_an_error() {
        let refusal = |number: i32| message(NLMSG_ERROR, &[&(-number).to_ne_bytes()[..], &[0; 16]].concat());
        assert!(take(&refusal(libc::EINVAL), &mut Vec::new()).unwrap());
        let error = take(&refusal(libc::EPERM), &mut Vec::new()).unwrap_err();
        let error = error.downcast_ref::<io::Error>().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn octets_that_are_no_flow_table_do_no_harm() {
        let whole = flowtable(1);
        for length in 0..whole.len() {
            let _ = take(&whole[..length], &mut Vec::new());
            let mut torn = whole.clone();
            torn[length] ^= 0xff;
            let _ = take(&torn, &mut Vec::new());
        }
    }
}

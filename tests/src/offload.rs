//! Segmentation and receive offloads, switched by the ethtool ioctls.

use std::ffi::c_char;
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Type};

use crate::netns::{Namespace, run};

// linux/ethtool.h
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_SFEATURES: u32 = 0x3b;
const ETH_SS_FEATURES: u32 = 4;
const ETH_GSTRING_LEN: usize = 32;

/// A feature is on or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// The device does the work.
    On,
    /// The kernel does it, before the device.
    Off,
}

/// The features by which a device takes super-packets to segment.
const SEGMENTATION: [&str; 14] = [
    "tx-gre-segmentation",
    "tx-gre-csum-segmentation",
    "tx-ipxip4-segmentation",
    "tx-ipxip6-segmentation",
    "tx-udp_tnl-segmentation",
    "tx-udp_tnl-csum-segmentation",
    "tx-sctp-segmentation",
    "tx-tcp-segmentation",
    "tx-tcp-ecn-segmentation",
    "tx-tcp-mangleid-segmentation",
    "tx-tcp6-segmentation",
    "tx-udp-segmentation",
    "tx-gso-list",
    "tx-generic-segmentation",
];

/// Switches every segmentation offload of `interface`. Off means: the kernel cuts super-packets after the TC hook, and the wire sees real frames.
pub fn set_segmentation(namespace: &Namespace, interface: &str, switch: Switch) -> Result<()> {
    set(namespace, interface, &SEGMENTATION, switch)
}

/// Switches the merging of received packets (on veth this also turns on its NAPI).
pub fn set_gro(namespace: &Namespace, interface: &str, switch: Switch) -> Result<()> {
    set(namespace, interface, &["rx-gro"], switch)
}

/// Switches the merging of received datagrams that are forwarded.
pub fn set_udp_gro(namespace: &Namespace, interface: &str, switch: Switch) -> Result<()> {
    set(namespace, interface, &["rx-udp-gro-forwarding"], switch)
}

/// How long received packets wait for others that they can be merged with, in nanoseconds. Without this a packet that was sent by itself
/// is received by itself: a virtual device has no interrupts to wait for.
const GRO_FLUSH: u32 = 2_000_000;

/// Lets the merging of received packets wait for what comes within [`GRO_FLUSH`].
pub fn hold_gro(namespace: &Namespace, interface: &str) -> Result<()> {
    // `ip netns exec` mounts the /sys of the namespace.
    let script = format!("echo {GRO_FLUSH} > /sys/class/net/{interface}/gro_flush_timeout");
    run("ip", &["netns", "exec", namespace.name(), "sh", "-c", &script], "").map(drop)
}

/// Has these processors (32 at most) take turns at what `interface` receives, flow by flow, as those of a gateway with several queues do:
/// receive packet steering.
pub fn spread(namespace: &Namespace, interface: &str, processors: &[usize]) -> Result<()> {
    let mask: u32 = processors.iter().filter(|processor| **processor < 32).map(|processor| 1 << processor).sum();
    let script =
        format!("for queue in /sys/class/net/{interface}/queues/rx-*; do echo {mask:x} > $queue/rps_cpus; done");
    run("ip", &["netns", "exec", namespace.name(), "sh", "-c", &script], "").map(drop)
}

/// Switches the named features (the names that `ethtool -k` knows) and makes sure that they are so now.
pub fn set(namespace: &Namespace, interface: &str, features: &[&str], switch: Switch) -> Result<()> {
    let ethtool = Ethtool::new(namespace, interface)?;
    let names = ethtool.feature_names()?;
    let mut request = vec![ETHTOOL_SFEATURES, blocks(names.len())];
    request.resize(2 + 2 * names.len().div_ceil(32), 0);
    let mut bits = Vec::new();
    for feature in features {
        let bit = names.iter().position(|name| name == feature).with_context(|| format!("no feature {feature}"))?;
        bits.push(bit);
        let (block, mask) = (2 + 2 * (bit / 32), 1 << (bit % 32));
        request[block] |= mask;
        request[block + 1] |= if switch == Switch::On { mask } else { 0 };
    }
    ethtool.call(&mut request).with_context(|| format!("switch {features:?} of {interface} {switch:?}"))?;
    let active = ethtool.active(names.len())?;
    for (feature, bit) in features.iter().zip(bits) {
        let on = active[bit / 32] & (1 << (bit % 32)) != 0;
        ensure!(on == (switch == Switch::On), "{interface} keeps {feature} {}", if on { "on" } else { "off" });
    }
    Ok(())
}

/// The state of one named feature.
pub fn get(namespace: &Namespace, interface: &str, feature: &str) -> Result<Switch> {
    let ethtool = Ethtool::new(namespace, interface)?;
    let names = ethtool.feature_names()?;
    let bit = names.iter().position(|name| name == feature).with_context(|| format!("no feature {feature}"))?;
    let on = ethtool.active(names.len())?[bit / 32] & (1 << (bit % 32)) != 0;
    Ok(if on { Switch::On } else { Switch::Off })
}

struct Ethtool {
    socket: socket2::Socket,
    request: libc::ifreq,
}

impl Ethtool {
    fn new(namespace: &Namespace, interface: &str) -> Result<Self> {
        let socket = namespace.socket(Domain::IPV4, Type::DGRAM)?;
        Ok(Self { socket, request: interface_request(interface)? })
    }

    /// One ioctl with the 32-bit words of its structure; the answer is written over them.
    fn call(&self, words: &mut [u32]) -> Result<()> {
        let mut request = self.request;
        request.ifr_ifru.ifru_data = words.as_mut_ptr().cast::<c_char>();
        // SAFETY: the structure is as long as the command in its first word says, which the callers see to.
        let answer = unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
        ensure!(answer >= 0, "ethtool command {:#x}: {}", words[0], std::io::Error::last_os_error());
        Ok(())
    }

    fn feature_names(&self) -> Result<Vec<String>> {
        // cmd, reserved, sset_mask (64 bits), data[1]
        let mut info = [ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_FEATURES, 0, 0, 0];
        self.call(&mut info)?;
        let count = info[4] as usize;
        // cmd, string_set, len, data[]
        let mut strings = vec![ETHTOOL_GSTRINGS, ETH_SS_FEATURES, info[4]];
        strings.resize(3 + count * ETH_GSTRING_LEN / 4, 0);
        self.call(&mut strings)?;
        let octets: Vec<u8> = strings[3..].iter().flat_map(|word| word.to_ne_bytes()).collect();
        let text = |name: &[u8]| {
            String::from_utf8_lossy(name.split(|octet| *octet == 0).next().unwrap_or_default()).into_owned()
        };
        Ok(octets.chunks(ETH_GSTRING_LEN).map(text).collect())
    }

    /// The features that are on, 32 to a word.
    fn active(&self, count: usize) -> Result<Vec<u32>> {
        let size = count.div_ceil(32);
        let mut request = vec![ETHTOOL_GFEATURES, blocks(count)];
        // available, requested, active, never_changed for each block
        request.resize(2 + 4 * size, 0);
        self.call(&mut request)?;
        Ok((0..size).map(|block| request[2 + 4 * block + 2]).collect())
    }
}

fn blocks(features: usize) -> u32 {
    u32::try_from(features.div_ceil(32)).unwrap_or(u32::MAX)
}

/// A request about the interface of this name.
pub(crate) fn interface_request(interface: &str) -> Result<libc::ifreq> {
    // SAFETY: all zeroes is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    ensure!(interface.len() < request.ifr_name.len(), "interface name {interface} is too long");
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    Ok(request)
}

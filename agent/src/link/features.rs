//! Whether a link's driver can forward flows by its hardware: the feature `hw-tc-offload`, as `ethtool -k` shows it.

use std::ffi::c_char;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

// linux/ethtool.h
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETH_SS_FEATURES: u32 = 4;
const ETH_GSTRING_LEN: usize = 32;

/// Tells whether `hw-tc-offload` is on for an interface of this namespace. What has no such features forwards nothing by itself.
pub fn offloads_flows(interface: &str) -> io::Result<bool> {
    let asking = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // cmd, reserved, sset_mask (64 bits), data[1]
    let mut info = [ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_FEATURES, 0, 0, 0];
    match call(&asking, interface, &mut info) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(false),
        asked => asked?,
    }
    let count = info[4] as usize;
    // cmd, string_set, len, data[]
    let mut strings = vec![ETHTOOL_GSTRINGS, ETH_SS_FEATURES, info[4]];
    strings.resize(3 + count * ETH_GSTRING_LEN / 4, 0);
    call(&asking, interface, &mut strings)?;
    let octets: Vec<u8> = strings[3..].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let is_it = |name: &[u8]| name.split(|octet| *octet == 0).next() == Some(b"hw-tc-offload");
    let Some(bit) = octets.chunks(ETH_GSTRING_LEN).position(is_it) else { return Ok(false) };
    let blocks = count.div_ceil(32);
    let mut features = vec![ETHTOOL_GFEATURES, u32::try_from(blocks).map_err(io::Error::other)?];
    // available, requested, active, never_changed for each block
    features.resize(2 + 4 * blocks, 0);
    call(&asking, interface, &mut features)?;
    Ok(features[2 + 4 * (bit / 32) + 2] & (1 << (bit % 32)) != 0)
}

/// One ioctl with the 32-bit words of its structure; the answer is written over them.
fn call(asking: &OwnedFd, interface: &str, words: &mut [u32]) -> io::Result<()> {
    // SAFETY: all zeroes is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_data = words.as_mut_ptr().cast::<c_char>();
    // SAFETY: the structure is as long as the command in its first word says, which the callers see to.
    let answer = unsafe { libc::ioctl(asking.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_has_no_hardware_and_a_link_that_is_not_there_is_an_error() {
        assert!(!offloads_flows("lo").unwrap());
        assert!(offloads_flows("no-such-link").is_err());
        assert!(offloads_flows("a-name-that-is-too-long").is_err());
    }
}

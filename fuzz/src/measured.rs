//! The programs' reading of a packet, on the host, against the model that the tests of the programs in the kernel use.

use agent_common::{DOWNLINK, LINK_ETHERNET, LINK_RAW_IP, UPLINK};

use crate::bench::{Direction, Skb};
use crate::locate::{ETHERNET_HEADER, VLAN_TAG, locate};
use crate::model::Model;
use crate::packet::measure;
use crate::plain;
use crate::programs::{Skb as Buffer, TcContext};

/// Octets in front of the packet that say how it came: a byte of choices, then `gso_size` and `gso_segs`.
const HEAD: usize = 5;

/// No packet is measured below what leaves, and one that is certain is measured exactly; the short path finds what the long one does.
pub fn packet(octets: &[u8]) {
    let Some(([choices, size_0, size_1, segs_0, segs_1], frame)) = octets.split_first_chunk::<HEAD>() else { return };
    if !(14..=0xffff).contains(&frame.len()) {
        return;
    }
    // The kernel gives a super-packet a size between one octet and 64 KiB, and keeps the number of its segments in 16 bits.
    let is_super = choices & 1 != 0;
    let gso_size = if is_super { u32::from(u16::from_be_bytes([*size_0, *size_1])).max(1) } else { 0 };
    let gso_segs = if is_super { u32::from(u16::from_be_bytes([*segs_0, *segs_1])) } else { 0 };
    let (direction, way) = if choices & 2 == 0 { (Direction::Uplink, UPLINK) } else { (Direction::Downlink, DOWNLINK) };
    let link_type = if choices & 4 == 0 { LINK_ETHERNET } else { LINK_RAW_IP };
    let (protocol, network_header) = as_the_kernel(frame);

    let mut buffer = Buffer::new(frame);
    (buffer.gso_size, buffer.gso_segs, buffer.network_header) = (gso_size, gso_segs, network_header);
    buffer.protocol = u32::from(protocol.to_be());
    let ctx = TcContext::new(&mut buffer);
    let found = locate(&ctx, link_type);
    let size = measure(&ctx, &found, way);
    assert!(size.octets > 0 || frame.len() as u32 == found.l2, "nothing is charged for a packet");

    let short = plain::octets(&ctx, link_type, way);
    if short != 0 && found.ip.is_there() {
        assert_eq!(short, size.octets, "the short path and the long one part");
    }
    // The model is of an Ethernet link with IP behind the header that the kernel has read.
    let is_modelled = link_type == LINK_ETHERNET && matches!(protocol, 0x0800 | 0x86dd) && found.l2 == network_header;
    if is_modelled {
        let skb = Skb { gso_size, gso_segs };
        let model = Model::of(frame, skb, direction);
        assert!(size.octets >= model.least, "cheaper than what leaves: {} of {model:?}", size.octets);
        if model.is_certain {
            assert_eq!((size.octets, size.is_guess), (model.least, 0), "not exact: {model:?}");
        }
    }
}

/// The `EtherType` behind at most two tags, and where what it speaks of begins: as the kernel reads an Ethernet frame.
fn as_the_kernel(frame: &[u8]) -> (u16, u32) {
    let word = |at: usize| frame.get(at..at + 2).map_or(0, |octets| u16::from_be_bytes([octets[0], octets[1]]));
    let mut at = ETHERNET_HEADER;
    while matches!(word(at as usize - 2), 0x8100 | 0x88a8) && at < ETHERNET_HEADER + 2 * VLAN_TAG {
        at += VLAN_TAG;
    }
    (word(at as usize - 2), at)
}

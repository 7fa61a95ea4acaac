//! The sockets that say it: ICMP, out of one given interface.

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, sendmsg,
    setsockopt, socket, sockopt,
};

use super::Prohibited;

/// A socket for each family.
#[derive(Debug)]
pub struct Voices {
    v4: OwnedFd,
    /// None where the kernel has no IPv6.
    v6: Option<OwnedFd>,
}

impl Voices {
    /// Opens them in the network namespace of this thread.
    pub fn open() -> Result<Self> {
        let v4 = voice(AddressFamily::Inet, SockProtocol::Icmp);
        let v6 = voice(AddressFamily::Inet6, SockProtocol::IcmpV6).ok();
        Ok(Self { v4: v4.context("opening a socket for ICMP (it needs CAP_NET_RAW)")?, v6 })
    }

    /// Says it once, out of the interface with this index and no other, whatever the routes say. What cannot be sent now is not sent: the
    /// sender tries again.
    pub fn tell(&self, answer: &Prohibited, interface: u32) -> nix::Result<()> {
        let message = [IoSlice::new(&answer.message)];
        let flags = MsgFlags::empty();
        match (answer.to, &self.v6) {
            (IpAddr::V4(to), _) => {
                let any = libc::in_addr { s_addr: 0 };
                let by = libc::in_pktinfo { ipi_ifindex: interface.cast_signed(), ipi_spec_dst: any, ipi_addr: any };
                let to = SockaddrIn::from(SocketAddrV4::new(to, 0));
                sendmsg(self.v4.as_raw_fd(), &message, &[ControlMessage::Ipv4PacketInfo(&by)], flags, Some(&to))?;
            }
            (IpAddr::V6(to), Some(voice)) => {
                let by = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: [0; 16] }, ipi6_ifindex: interface };
                let to = SockaddrIn6::from(SocketAddrV6::new(to, 0, 0, 0));
                sendmsg(voice.as_raw_fd(), &message, &[ControlMessage::Ipv6PacketInfo(&by)], flags, Some(&to))?;
            }
            (IpAddr::V6(_), None) => {}
        }
        Ok(())
    }
}

fn voice(family: AddressFamily, protocol: SockProtocol) -> nix::Result<OwnedFd> {
    let voice = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, protocol)?;
    // Every ICMP message that comes in is offered to it; nobody listens.
    setsockopt(&voice, sockopt::RcvBuf, &0)?;
    Ok(voice)
}

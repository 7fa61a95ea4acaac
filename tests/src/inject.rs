//! Frames made by hand, sent out of an interface as they are, or as super-packets that the kernel cuts.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Result, ensure};

use crate::netns::Namespace;
use crate::sockets::set_option;

/// How a super-packet shall be cut (`struct virtio_net_hdr`, `linux/virtio_net.h`).
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// What it is.
    pub kind: CutKind,
    /// Octets of payload in each segment.
    pub segment: u16,
    /// Where in the frame the TCP or UDP header begins.
    pub transport: u16,
}

/// The kinds of super-packets that can be handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutKind {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// A train of datagrams (`UDP_SEGMENT`), over either.
    Udp,
}

impl Cut {
    /// The header in front of the frame; the checksum is left to the kernel.
    fn header(self) -> [u8; HEADER] {
        const NEEDS_CHECKSUM: u8 = 1;
        let (kind, checksum) = match self.kind {
            CutKind::TcpV4 => (1, 16_u16),
            CutKind::TcpV6 => (4, 16),
            CutKind::Udp => (5, 6),
        };
        let mut header = [0; HEADER];
        header[0] = NEEDS_CHECKSUM;
        header[1] = kind;
        for (at, value) in [(4, self.segment), (6, self.transport), (8, checksum)] {
            header[at..at + 2].copy_from_slice(&value.to_ne_bytes());
        }
        header
    }
}

/// Octets of `struct virtio_net_hdr`.
const HEADER: usize = 10;

/// Sends frames out of one interface.
#[derive(Debug)]
pub struct Injector {
    socket: OwnedFd,
    index: i32,
}

impl Injector {
    /// For this interface. Its frames pass the hooks as any other.
    pub fn open(namespace: &Namespace, interface: &str) -> Result<Self> {
        let index = i32::try_from(namespace.ifindex(interface)?)?;
        let socket = namespace.run_in(|| {
            // SAFETY: plain system call; the answer is checked below.
            unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) }
        })?;
        ensure!(socket >= 0, "packet socket: {}", std::io::Error::last_os_error());
        // SAFETY: the kernel has just given us this descriptor.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        set_option(&socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, &1_i32)?;
        Ok(Self { socket, index })
    }

    /// The same, but its frames go straight to the driver: no queueing discipline, no hook.
    pub fn past_the_hooks(self) -> Result<Self> {
        set_option(&self.socket, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, &1_i32)?;
        Ok(self)
    }

    /// Sends a frame that is for the kernel of this `EtherType`, cut if it is to be.
    pub fn send(&self, ethertype: u16, frame: &[u8], cut: Option<Cut>) -> Result<()> {
        let header = cut.map_or([0; HEADER], Cut::header);
        let message = [&header, frame].concat();
        // SAFETY: all zeroes is a valid address.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET)?;
        address.sll_protocol = ethertype.to_be();
        address.sll_ifindex = self.index;
        let length = libc::socklen_t::try_from(size_of_val(&address))?;
        // SAFETY: message and address live across the call and have the lengths that are given.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                message.as_ptr().cast(),
                message.len(),
                0,
                (&raw const address).cast(),
                length,
            )
        };
        ensure!(
            usize::try_from(sent).is_ok_and(|sent| sent == message.len()),
            "send a frame of {} octets ({cut:?}): {}",
            frame.len(),
            std::io::Error::last_os_error()
        );
        Ok(())
    }
}

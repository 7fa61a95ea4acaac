//! The kernel's packet ring (`AF_PACKET`, `TPACKET_V3`): every frame of one interface, in shared memory, losses told.

use std::ffi::c_void;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::frame::LinkLayer;
use crate::netns::Namespace;
use crate::offload::interface_request;
use crate::sockets::set_option;

/// 64 blocks of 1 MiB: room for what arrives while this thread waits for a CPU.
const BLOCK: usize = 1 << 20;
const BLOCKS: usize = 64;

/// After how many milliseconds the kernel hands over a block that is not full.
const RETIRE: u32 = 5;

/// How much of each frame is kept, in octets: all headers that matter. The true length is told beside it.
const SNAP: u32 = 256;

/// One frame, as the ring holds it.
pub(super) struct Frame<'ring> {
    /// Whether this host sent it.
    pub(super) outgoing: bool,
    /// Its length without a VLAN tag that the kernel has taken off.
    pub(super) wire: usize,
    /// Its first octets, from the link header on.
    pub(super) data: &'ring [u8],
}

/// The ring of one interface.
#[derive(Debug)]
pub(super) struct Ring {
    socket: OwnedFd,
    memory: NonNull<c_void>,
    block: usize,
    namespace: Namespace,
    interface: String,
}

// SAFETY: the mapping belongs to this value alone, and no thread's identity matters to it.
unsafe impl Send for Ring {}

impl Ring {
    /// Opens the ring; from here on no frame of `interface` is missed without being counted as dropped.
    pub(super) fn open(namespace: &Namespace, interface: &str) -> Result<Self> {
        let index = namespace.ifindex(interface)?;
        let socket = namespace.run_in(|| {
            // SAFETY: plain system call; the answer is checked below.
            unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) }
        })?;
        ensure!(socket >= 0, "packet socket: {}", std::io::Error::last_os_error());
        // SAFETY: the kernel has just given us this descriptor.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        set_option(&socket, libc::SOL_PACKET, libc::PACKET_VERSION, &(libc::tpacket_versions::TPACKET_V3 as i32))?;
        keep_headers_only(&socket)?;
        set_option(&socket, libc::SOL_PACKET, libc::PACKET_RX_RING, &request()?)?;
        let (access, length) = (libc::PROT_READ | libc::PROT_WRITE, BLOCK * BLOCKS);
        // SAFETY: a fresh mapping of the ring that the kernel has just made, of exactly its size.
        let memory =
            unsafe { libc::mmap(std::ptr::null_mut(), length, access, libc::MAP_SHARED, socket.as_raw_fd(), 0) };
        ensure!(memory != libc::MAP_FAILED, "map the ring: {}", std::io::Error::last_os_error());
        let memory = NonNull::new(memory).context("the ring is mapped at address zero")?;
        let ring = Self { socket, memory, block: 0, namespace: namespace.clone(), interface: interface.into() };
        bind(&ring.socket, index)?;
        Ok(ring)
    }

    /// Ethernet or raw IP, by the interface's link type now.
    pub(super) fn link_layer(&self) -> Result<LinkLayer> {
        let request = self.ask(libc::SIOCGIFHWADDR)?;
        // SAFETY: SIOCGIFHWADDR fills in this member.
        let link_type = unsafe { request.ifr_ifru.ifru_hwaddr.sa_family };
        match link_type {
            libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK => Ok(LinkLayer::Ethernet),
            _ => Ok(LinkLayer::RawIp),
        }
    }

    /// Octets of the longest packet that the interface sends.
    pub(super) fn mtu(&self) -> Result<usize> {
        let request = self.ask(libc::SIOCGIFMTU)?;
        // SAFETY: SIOCGIFMTU fills in this member.
        Ok(usize::try_from(unsafe { request.ifr_ifru.ifru_mtu })?)
    }

    /// Hands the frames of every full or retired block to `each`; answers how many there were. Waits for at most `limit`.
    pub(super) fn drain(&mut self, limit: Duration, mut each: impl FnMut(&Frame<'_>)) -> Result<usize> {
        if !self.ready() {
            let mut wait = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN | PollFlags::POLLERR)];
            match poll(&mut wait, PollTimeout::try_from(limit)?) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error).context("poll the ring"),
            }
            if wait[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR)) {
                self.forget_error()?;
            }
        }
        let mut frames = 0;
        while self.ready() {
            frames += self.read_block(&mut each);
            self.status().store(libc::TP_STATUS_KERNEL, Ordering::Release);
            self.block = (self.block + 1) % BLOCKS;
        }
        Ok(frames)
    }

    /// Takes the socket's error (the interface is down, or gone) off it: until then no wait for frames would last.
    fn forget_error(&self) -> Result<()> {
        let mut error: libc::c_int = 0;
        let mut length = libc::socklen_t::try_from(size_of_val(&error))?;
        // SAFETY: the kernel writes one int to a live local variable.
        let answer = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ERROR,
                (&raw mut error).cast(),
                &raw mut length,
            )
        };
        ensure!(answer == 0, "error of the packet socket: {}", std::io::Error::last_os_error());
        Ok(())
    }

    /// Frames that the kernel could not put into the ring since the last call.
    pub(super) fn dropped(&self) -> Result<u64> {
        // SAFETY: all zeroes is a valid value.
        let mut statistics: libc::tpacket_stats_v3 = unsafe { std::mem::zeroed() };
        let mut length = libc::socklen_t::try_from(size_of_val(&statistics))?;
        // SAFETY: the kernel writes at most `length` octets to the structure.
        let answer = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut statistics).cast(),
                &raw mut length,
            )
        };
        ensure!(answer == 0, "packet statistics: {}", std::io::Error::last_os_error());
        Ok(u64::from(statistics.tp_drops))
    }

    fn ready(&self) -> bool {
        self.status().load(Ordering::Acquire) & libc::TP_STATUS_USER != 0
    }

    fn descriptor(&self) -> *mut libc::tpacket_block_desc {
        // SAFETY: the block number is below BLOCKS, so the address lies within the mapping.
        unsafe { self.memory.as_ptr().byte_add(self.block * BLOCK).cast() }
    }

    /// The word by which the kernel and we hand the current block to each other.
    fn status(&self) -> &AtomicU32 {
        // SAFETY: it is aligned, lives as long as the mapping, and both sides treat it as atomic.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.descriptor()).hdr.bh1.block_status) }
    }

    fn read_block(&self, each: &mut impl FnMut(&Frame<'_>)) -> usize {
        let descriptor = self.descriptor();
        // SAFETY: the block is ours until its status is given back; the kernel wrote the header before that.
        let header = unsafe { (*descriptor).hdr.bh1 };
        let mut at = header.offset_to_first_pkt as usize;
        for _ in 0..header.num_pkts {
            // SAFETY: the kernel's offsets stay within the block, and each packet header is aligned.
            let packet = unsafe { &*descriptor.byte_add(at).cast::<libc::tpacket3_hdr>() };
            each(&frame(packet));
            at += packet.tp_next_offset as usize;
        }
        header.num_pkts as usize
    }

    /// Asks the kernel about the interface by one ioctl.
    fn ask(&self, what: libc::c_ulong) -> Result<libc::ifreq> {
        let socket = self.namespace.socket(socket2::Domain::IPV4, socket2::Type::DGRAM)?;
        let mut request = interface_request(&self.interface)?;
        // SAFETY: these ioctls read and write one ifreq.
        let answer = unsafe { libc::ioctl(socket.as_raw_fd(), what, &raw mut request) };
        ensure!(answer == 0, "ask about {}: {}", self.interface, std::io::Error::last_os_error());
        Ok(request)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping that `open` made; no reference into it outlives `drain`.
        unsafe { libc::munmap(self.memory.as_ptr(), BLOCK * BLOCKS) };
    }
}

/// The frame behind a packet header.
fn frame(packet: &libc::tpacket3_hdr) -> Frame<'_> {
    let start = std::ptr::from_ref(packet);
    // SAFETY: the kernel puts a sockaddr_ll right behind the (16-aligned) header, and the frame at tp_mac with tp_snaplen octets.
    unsafe {
        let address =
            &*start.byte_add(libc::TPACKET_ALIGN(size_of::<libc::tpacket3_hdr>())).cast::<libc::sockaddr_ll>();
        let data = start.byte_add(usize::from(packet.tp_mac)).cast::<u8>();
        Frame {
            outgoing: address.sll_pkttype == libc::PACKET_OUTGOING,
            wire: packet.tp_len as usize,
            data: std::slice::from_raw_parts(data, packet.tp_snaplen as usize),
        }
    }
}

fn request() -> Result<libc::tpacket_req3> {
    const FRAME: usize = 2048;
    Ok(libc::tpacket_req3 {
        tp_block_size: u32::try_from(BLOCK)?,
        tp_block_nr: u32::try_from(BLOCKS)?,
        tp_frame_size: u32::try_from(FRAME)?,
        tp_frame_nr: u32::try_from(BLOCK / FRAME * BLOCKS)?,
        tp_retire_blk_tov: RETIRE,
        tp_sizeof_priv: 0,
        tp_feature_req_word: 0,
    })
}

/// A filter of one instruction, "keep so many octets": the ring then holds some hundred thousand frames.
fn keep_headers_only(socket: &OwnedFd) -> Result<()> {
    let mut keep = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: SNAP };
    let program = libc::sock_fprog { len: 1, filter: &raw mut keep };
    set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// Begins to receive from this interface, all protocols, both ways.
fn bind(socket: &OwnedFd, index: u32) -> Result<()> {
    // SAFETY: all zeroes is a valid address.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET)?;
    address.sll_protocol = u16::try_from(libc::ETH_P_ALL)?.to_be();
    address.sll_ifindex = i32::try_from(index)?;
    let length = libc::socklen_t::try_from(size_of_val(&address))?;
    // SAFETY: the address lives across the call and has the length that is given.
    let answer = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    ensure!(answer == 0, "bind the packet socket: {}", std::io::Error::last_os_error());
    Ok(())
}

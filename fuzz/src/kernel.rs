//! As much of `aya_ebpf` as the programs' packet reading needs, over a packet in memory.
//!
//! Each read is held against the packet's end, as the kernel does it: a read beyond is an error, and none goes astray.

/// Where an offset counts from.
pub mod bindings {
    /// Of `bpf_skb_load_bytes_relative`.
    pub mod bpf_hdr_start_off {
        /// The network header.
        pub const BPF_HDR_START_NET: u32 = 1;
    }
}

/// The helpers of the kernel.
pub mod helpers {
    /// As generated from the kernel's header.
    pub mod generated {
        use core::ffi::c_void;

        use crate::programs::Skb;

        /// Copies octets behind the network header.
        ///
        /// # Safety
        /// `skb` is [`crate::programs::SkBuff::skb`] of a context that lives; `to` has room for `length` octets.
        pub unsafe fn bpf_skb_load_bytes_relative(
            skb: *const c_void,
            offset: u32,
            to: *mut c_void,
            length: u32,
            _start: u32,
        ) -> i64 {
            // SAFETY: the caller's promise.
            let skb = unsafe { &*skb.cast::<Skb>() };
            let begin = skb.network_header as usize + offset as usize;
            match skb.packet().get(begin..begin + length as usize) {
                // SAFETY: the caller's promise about `to`.
                Some(octets) => unsafe {
                    to.cast::<u8>().copy_from_nonoverlapping(octets.as_ptr(), octets.len());
                    0
                },
                None => -14,
            }
        }
    }
}

/// What a program is called with.
pub mod programs {
    use core::ffi::c_long;

    /// The fields of `struct __sk_buff` that are read, and where the packet is.
    #[derive(Debug)]
    pub struct Skb {
        /// Length of the packet.
        pub len: u32,
        /// `EtherType` as the kernel took it, in network order.
        pub protocol: u32,
        /// Payload of a segment; 0 = no super-packet.
        pub gso_size: u32,
        /// Segments, as the sender says.
        pub gso_segs: u32,
        /// Octets of all segments, as the kernel works them out.
        pub wire_len: u32,
        /// Offset of the kernel's network header.
        pub network_header: u32,
        data: *const u8,
    }

    impl Skb {
        /// An skb with that packet in it, which lives longer.
        pub fn new(packet: &[u8]) -> Self {
            let len = u32::try_from(packet.len()).expect("a short packet");
            Self { len, protocol: 0, gso_size: 0, gso_segs: 0, wire_len: len, network_header: 0, data: packet.as_ptr() }
        }

        pub(crate) fn packet(&self) -> &[u8] {
            // SAFETY: `new` was given so many octets, which live longer.
            unsafe { core::slice::from_raw_parts(self.data, self.len as usize) }
        }
    }

    /// The buffer.
    #[derive(Debug)]
    pub struct SkBuff {
        /// What the program reads fields of.
        pub skb: *mut Skb,
    }

    impl SkBuff {
        /// `EtherType`, in network order.
        pub fn protocol(&self) -> u32 {
            // SAFETY: made by `TcContext::new`.
            unsafe { (*self.skb).protocol }
        }
    }

    /// The context.
    #[derive(Debug)]
    pub struct TcContext {
        /// The buffer.
        pub skb: SkBuff,
    }

    impl TcContext {
        /// A context of that buffer, which lives longer.
        pub fn new(skb: &mut Skb) -> Self {
            Self { skb: SkBuff { skb } }
        }

        fn packet(&self) -> &[u8] {
            // SAFETY: made by `new`.
            unsafe { (*self.skb.skb).packet() }
        }

        /// Length of the packet.
        #[expect(clippy::len_without_is_empty, reason = "what the programs call, and no more")]
        pub fn len(&self) -> u32 {
            // SAFETY: made by `new`.
            unsafe { (*self.skb.skb).len }
        }

        /// Where it begins.
        pub fn data(&self) -> usize {
            self.packet().as_ptr() as usize
        }

        /// Where it ends.
        pub fn data_end(&self) -> usize {
            self.data() + self.packet().len()
        }

        /// Copies a plain value out of the packet.
        pub fn load<T>(&self, offset: usize) -> Result<T, c_long> {
            let octets = self.packet().get(offset..).and_then(|rest| rest.get(..size_of::<T>())).ok_or(-14)?;
            // SAFETY: so many octets are there; the programs load integers and arrays of integers only.
            Ok(unsafe { octets.as_ptr().cast::<T>().read_unaligned() })
        }
    }
}

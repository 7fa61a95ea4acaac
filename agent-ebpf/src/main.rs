//! The two TC programs of one metered link: count every billable octet, shut the gate at the ceiling.
//!
//! `weir_uplink` runs at the egress hook and `weir_downlink` at the ingress hook. Both share the maps of their link;
//! each metered link has an instance of its own, so no packet pays for a lookup by interface.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(clippy::inline_always, reason = "a call would hide from the verifier what it has to prove")]
#![expect(internal_features, reason = "core has no fetch-add for this target; the intrinsics are used in one file")]

// The lints run on the host, where something has to define what a panic does.
#[cfg(not(target_arch = "bpf"))]
extern crate std as _;

mod allow;
mod answers;
mod atomics;
mod counters;
mod filters;
mod gate;
mod hints;
mod locate;
mod maps;
mod packet;
mod plain;
mod policer;
mod transport;
mod tunnel;

use agent_common::{DOWNLINK, UPLINK};
use aya_ebpf::{macros::classifier, programs::TcContext};

/// Lets the packet go on to later programs and filters: `TCX_NEXT`, and `TC_ACT_UNSPEC` under clsact.
/// `TC_ACT_OK` would hide it from everything behind.
const PASS: i32 = -1;
/// `TC_ACT_SHOT`: drops the packet. `TC_ACT_STOLEN` would not.
const DROP: i32 = 2;

/// Meters what leaves the gateway.
#[classifier]
#[expect(clippy::needless_pass_by_value, reason = "the macro hands it over so")]
pub(crate) fn weir_uplink(ctx: TcContext) -> i32 {
    gate::meter(&ctx, UPLINK)
}

/// Meters what comes into the gateway.
#[classifier]
#[expect(clippy::needless_pass_by_value, reason = "the macro hands it over so")]
pub(crate) fn weir_downlink(ctx: TcContext) -> i32 {
    gate::meter(&ctx, DOWNLINK)
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The helpers for the boot clock and the ring buffer are reserved for programs under the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

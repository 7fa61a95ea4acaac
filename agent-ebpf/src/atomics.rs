//! Every atomic operation of the programs, and what stands in for one, in one place.
//!
//! Always `SeqCst`. LLVM 22 compiles a *relaxed* fetch-add whose result is used to the instruction that does not
//! fetch, without a word: the "old value" is then the addend, and a gate built on it never shuts
//! (<https://github.com/llvm/llvm-project/issues/210280>). With `SeqCst` the fetching instruction comes out; a test
//! of the built object looks for it and another sends packets against the ceiling.
//!
//! `core`'s atomics have no read-modify-write on this target (`atomic-cas: false`), so the intrinsics beneath them
//! are used. They need the v3 instruction set: `-C target-cpu=v3`, Linux 5.12.

use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};

const SEQ_CST: AtomicOrdering = AtomicOrdering::SeqCst;

/// Adds and gives the value from before.
///
/// # Safety
/// `word` points to an aligned word inside a map value.
#[inline(always)]
pub(crate) unsafe fn fetch_add(word: *mut u64, addend: u64) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { atomic_xadd::<u64, u64, SEQ_CST>(word, addend) }
}

/// Takes back what [`fetch_add`] added.
///
/// # Safety
/// `word` points to an aligned word inside a map value.
#[inline(always)]
pub(crate) unsafe fn refund(word: *mut u64, addend: u64) {
    // SAFETY: the caller's promise.
    unsafe { atomic_xadd::<u64, u64, SEQ_CST>(word, addend.wrapping_neg()) };
}

/// Adds to a word that nobody else adds to at this moment; a reader sees the old sum or the new one.
///
/// # Safety
/// `word` points to an aligned word inside a map value of this CPU, and nothing that adds to it can come in between.
#[inline(always)]
pub(crate) unsafe fn add_undisturbed(word: *mut u64, addend: u64) {
    // SAFETY: the caller's promise. Volatile accesses of an aligned word are one instruction each on this target.
    unsafe { word.write_volatile(word.read_volatile().wrapping_add(addend)) };
}

/// Stores `new` if the word still holds `current`; tells whether it did.
///
/// # Safety
/// `word` points to an aligned word inside a map value.
#[inline(always)]
pub(crate) unsafe fn replace_if(word: *mut u64, current: u64, new: u64) -> bool {
    // SAFETY: the caller's promise.
    unsafe { atomic_cxchg::<u64, SEQ_CST, SEQ_CST>(word, current, new).1 }
}

/// Reads a word that others write: once, whole, now.
///
/// # Safety
/// `word` points to an aligned word inside a map value.
#[inline(always)]
pub(crate) unsafe fn load(word: *const u64) -> u64 {
    // SAFETY: the caller's promise. A volatile load of an aligned word is one instruction on this target.
    unsafe { word.read_volatile() }
}

/// Stores a word that others read, whole.
///
/// # Safety
/// `word` points to an aligned word inside a map value.
#[inline(always)]
pub(crate) unsafe fn store(word: *mut u64, value: u64) {
    // SAFETY: the caller's promise. A volatile store of an aligned word is one instruction on this target.
    unsafe { word.write_volatile(value) };
}

/// Reads half a word that others write: once, whole, now.
///
/// # Safety
/// `half` points to an aligned half of a word inside a map value.
#[inline(always)]
pub(crate) unsafe fn load_half(half: *const u32) -> u32 {
    // SAFETY: the caller's promise. A volatile load of an aligned half is one instruction on this target.
    unsafe { half.read_volatile() }
}

//! Lets aya copy the map values in and out of the kernel.

use aya::Pod;

use crate::{AllowKey, Counters, DirectionCounters, Filters, Gate, Hint, Refusal, Tally, Word};

// SAFETY: all of these are `repr(C)`, made of integers alone, without padding (the sizes are asserted beside them).
unsafe impl Pod for AllowKey {}
// SAFETY: as above.
unsafe impl Pod for Counters {}
// SAFETY: as above.
unsafe impl Pod for DirectionCounters {}
// SAFETY: as above.
unsafe impl Pod for Filters {}
// SAFETY: as above.
unsafe impl Pod for Gate {}
// SAFETY: as above.
unsafe impl Pod for Hint {}
// SAFETY: as above.
unsafe impl Pod for Refusal {}
// SAFETY: as above.
unsafe impl Pod for Tally {}
// SAFETY: as above.
unsafe impl Pod for Word {}

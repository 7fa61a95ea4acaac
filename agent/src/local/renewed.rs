//! The document that answers whoever has more asked for.

use serde::{Deserialize, Serialize};

/// Version of the document's meaning. Members may be added within a version.
pub const RENEWED_SCHEMA: u32 = 1;

/// What came of an order to ask now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Renewed {
    /// [`RENEWED_SCHEMA`].
    pub schema: u32,
    /// The links that were meant; none when there is no link of the name.
    pub links: Vec<RenewedLink>,
}

/// What came of it on one link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct RenewedLink {
    /// Its name.
    pub link: String,
    /// Whether more is asked for.
    pub asked: bool,
    /// `asks` (at once), `after-answer` (once the message that is under way is answered), or why not: `too-soon`, `not-in-use`, `aborted`
    /// (by order of the server), `no-session` (it idles or is being settled), `ledger-trouble`.
    pub why: String,
    /// With `too-soon`: when it may be asked again, RFC 3339.
    pub again_at: Option<String>,
    /// Grants that the link's session had received by then.
    pub grants: u32,
    /// Octets of the last one that were left then.
    pub had_octets: u64,
}

//! The billing period that is running now, for those who scrape: read out of the ledger once in a while, for a history can be long.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use super::ask::{Asker, Question};
use crate::clock::boot_now;
use crate::units::BootInstant;
use crate::usage::{SpanUsage, Wish};

/// What was read stands for so long.
const STANDS: Duration = Duration::from_secs(10);

/// The period as it was last read.
#[derive(Clone, Debug, Default)]
pub(super) struct Period(Arc<Mutex<Option<(SpanUsage, BootInstant)>>>);

impl Period {
    /// What has passed in it; `None` while the ledger is out of reach.
    pub(super) async fn running(&self, asker: &Asker) -> Option<SpanUsage> {
        let mut last = self.0.lock().await;
        let now = boot_now().ok()?;
        if let Some((period, read_at)) = &*last
            && now < read_at.plus(STANDS)
        {
            return Some(period.clone());
        }
        let told = asker.ask(|reply| Question::Usage(Wish::default(), reply)).await.ok()?;
        let period = told.ok()?.running.period;
        *last = Some((period.clone(), now));
        Some(period)
    }
}

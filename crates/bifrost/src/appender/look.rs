//! Looking at the chain of a log that makes no progress.

use std::sync::Arc;
use std::time::Duration;

use bifrost_loglet::Alarm;
use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tracing::debug;

use crate::log_state::LogState;

/// How long a log may go without progress before its chain is read: the watch of it may hang at the same silent node.
const LOOK_AFTER: Duration = Duration::from_millis(300);
/// So many looks follow one another in the same time: about as long as a failover takes. Then it doubles with each.
const LOOKS_SOON: u32 = 5;
/// How often it doubles.
const DOUBLINGS_MAX: u32 = 6;

/// Reads the chain of a log that makes no progress.
pub(super) struct Look {
    state: Arc<LogState>,
    looks: u32,
    /// When the last look ended.
    looked: Option<Instant>,
    alarm: Alarm,
    running: Option<BoxFuture<'static, ()>>,
}

impl Look {
    pub(super) fn new(state: Arc<LogState>) -> Self {
        Self { state, looks: 0, looked: None, alarm: Alarm::default(), running: None }
    }

    /// Returns after a look, which comes when the log made no progress since `progressed` for long enough. What it sees is
    /// in the state.
    ///
    /// # Cancel safety
    /// Safe: a look that was begun goes on with the next call.
    pub(super) async fn at(&mut self, progressed: Instant) {
        if self.looked.is_none_or(|looked| looked < progressed) {
            self.looks = 0;
        }
        let running = match &mut self.running {
            Some(running) => running,
            running @ None => {
                let since = self.looked.map_or(progressed, |looked| looked.max(progressed));
                let doublings = self.looks.saturating_sub(LOOKS_SOON).min(DOUBLINGS_MAX);
                self.alarm.at(since + LOOK_AFTER * 2_u32.saturating_pow(doublings)).await;
                let state = self.state.clone();
                running.insert(Box::pin(async move {
                    if let Err(error) = state.refresh().await {
                        debug!(log = %state.log, %error, "the chain of a log without progress was not read");
                    }
                }))
            }
        };
        running.await;
        self.running = None;
        self.looked = Some(Instant::now());
        self.looks = self.looks.saturating_add(1);
    }
}

//! Asking a sequencer that acknowledges nothing whether it is there.
//!
//! It may wait for its copies: then it says so at once, and another one would wait for the same, unless it had other disks. Or
//! its answers do not arrive here, although its node is heard by everybody else and nobody calls it silent: then only who
//! appends can tell.

use std::sync::Arc;
use std::time::Duration;

use bifrost_loglet::Alarm;
use bifrost_types::{Actor, LogletParams, Segment};
use futures_util::future::BoxFuture;
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::log_state::LogState;

/// How long a log may go without progress before its sequencer is asked. The time doubles with each answer.
const ASK_AFTER: Duration = Duration::from_secs(1);
/// How often it doubles.
const DOUBLINGS_MAX: u32 = 5;

/// Asks the sequencer of a log that makes no progress.
pub(super) struct Probe {
    state: Arc<LogState>,
    segment: Segment,
    answers: u32,
    /// When it answered last.
    answered: Option<Instant>,
    alarm: Alarm,
    /// Says whether it answered.
    running: Option<BoxFuture<'static, bool>>,
}

impl Probe {
    pub(super) fn new(state: Arc<LogState>, segment: Segment) -> Self {
        Self { state, segment, answers: 0, answered: None, alarm: Alarm::default(), running: None }
    }

    /// Returns when the log made no progress since `progressed` for long enough and the sequencer does not answer either. If
    /// it answers, and only waits for disks that others could take the place of, the log is moved to them; the chain tells.
    ///
    /// # Cancel safety
    /// Safe: a question that was asked goes on with the next call.
    pub(super) async fn unanswered(&mut self, progressed: Instant) {
        if self.answered.is_none_or(|answered| answered < progressed) {
            self.answers = 0;
        }
        loop {
            let running = match &mut self.running {
                Some(running) => running,
                running @ None => {
                    let since = self.answered.map_or(progressed, |answered| answered.max(progressed));
                    self.alarm.at(since + ASK_AFTER * 2_u32.saturating_pow(self.answers.min(DOUBLINGS_MAX))).await;
                    running.insert(Box::pin(ask(Arc::clone(&self.state), self.segment.clone())))
                }
            };
            let answered = running.await;
            self.running = None;
            if !answered {
                return;
            }
            self.answered = Some(Instant::now());
            self.answers = self.answers.saturating_add(1);
        }
    }
}

/// Whether it says anything at all: what its refusal means, its stream tells.
async fn ask(state: Arc<LogState>, segment: Segment) -> bool {
    let LogletParams { id, sequencer, .. } = segment.params;
    let Some(sequencers) = state.cluster.directory.sequencers(sequencer) else { return false };
    let asked = timeout(state.cluster.options.call_deadline, sequencers.tails(id, sequencer));
    let answers = asked.await.is_ok();
    if answers && let Err(error) = state.leave_unwritable(&segment, Actor::Appender).await {
        debug!(loglet = %id, %error, "it waits for its disks, and cannot be moved to others");
    }
    answers
}

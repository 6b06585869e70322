//! What a finder knows of one copy, and what it is doing there.

use std::time::Duration;

use bifrost_types::{LogletOffset, Member, NodeIndex};

use super::report::Why;

/// The first wait after a failure.
const BACK_OFF_FIRST: Duration = Duration::from_millis(50);
/// The longest wait after a failure.
const BACK_OFF_MAX: Duration = Duration::from_secs(5);

/// The one thing that is in progress at a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activity {
    /// It has to be asked for its seal.
    Unasked,
    /// A seal call is out.
    Sealing,
    /// It answered, and nothing is in progress.
    Idle,
    /// Records for it are being read.
    Reading { source: NodeIndex, from: LogletOffset },
    /// Records are being stored there.
    Storing { bytes: u64 },
    /// The last attempt failed; it is asked for its seal again at `until`, which also tells its present state.
    Waiting { until: Duration },
}

/// One member of the nodeset, as a finder sees it.
#[derive(Debug, Clone)]
pub(super) struct SeenCopy {
    pub(super) member: Member,
    pub(super) activity: Activity,
    /// Failures since the first seal or the last successful store; the exponent of the back-off.
    failures: u32,
    pub(super) why: Why,
    /// A range that it could not give as a source. Forgotten when somebody's back-off ends.
    pub(super) denied: Option<(LogletOffset, LogletOffset)>,
}

impl SeenCopy {
    pub(super) const fn new(member: Member) -> Self {
        Self { member, activity: Activity::Unasked, failures: 0, why: Why::NoAnswer, denied: None }
    }

    /// Whether something is on its way there, or for it.
    pub(super) const fn is_busy(&self) -> bool {
        match self.activity {
            Activity::Sealing | Activity::Reading { .. } | Activity::Storing { .. } => true,
            Activity::Unasked | Activity::Idle | Activity::Waiting { .. } => false,
        }
    }

    /// Whether it did not fail since it last did something useful: worth waiting for before calling anything blocked.
    pub(super) const fn is_hopeful(&self) -> bool {
        self.failures == 0
    }

    pub(super) fn fail(&mut self, now: Duration, why: Why) {
        let wait = BACK_OFF_FIRST.saturating_mul(1 << self.failures.min(16)).min(BACK_OFF_MAX);
        self.failures = self.failures.saturating_add(1);
        self.why = why;
        self.activity = Activity::Waiting { until: now.saturating_add(wait) };
    }

    pub(super) const fn succeed(&mut self) {
        self.failures = 0;
        self.why = Why::NoAnswer;
    }

    pub(super) fn denies(&self, offset: LogletOffset) -> bool {
        self.denied.is_some_and(|(from, end)| from <= offset && offset < end)
    }
}

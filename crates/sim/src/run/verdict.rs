//! What is said of a run when it is over.

use std::fmt;

use bifrost_checker::{Bound, Breach, End, Summary};

use crate::history::Line;
use crate::interpose;
use crate::node::Ground;
use crate::plan::Plan;

/// Lines of history told around a breach.
const AROUND: usize = 30;

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Whose run.
    pub seed: u64,
    /// What the checker found.
    pub breaches: Vec<Breach>,
    /// What did not come to an end, and what clients found by themselves; empty when all is well.
    pub failures: Vec<String>,
    /// What was counted while nothing could be done, or nothing had to.
    pub quiet: Vec<Bound>,
    /// What was checked how often.
    pub summary: Summary,
    /// How long the run lasted on its own clock, in microseconds.
    pub virtual_micros: u64,
    /// Equal for equal traces.
    pub fingerprint: u64,
    /// The last lines before the first breach, or of the run.
    pub around: Vec<Line>,
    /// Everything that happened.
    pub lines: Vec<Line>,
}

impl Verdict {
    pub(super) fn new(plan: &Plan, ground: &Ground, stuck: Option<String>, quiet: Vec<Bound>) -> Self {
        let virtual_micros = interpose::now_micros();
        let end = End { at: virtual_micros, scanned: stuck.is_none(), quiet: quiet.clone(), pauses: Vec::new() };
        let (breaches, summary) = ground.history.with_checker(|checker| {
            checker.finish(&end);
            (checker.breaches().to_vec(), checker.summary())
        });
        let mut failures = ground.control.failures();
        failures.extend(ground.truth.breaches());
        failures.extend(stuck.map(|stuck| format!("P5 {stuck}")));
        let lines = ground.history.lines();
        let first = breaches.first().map(|breach| breach.at);
        let end = first.map_or(lines.len(), |at| lines.partition_point(|line| line.at <= at));
        let around = lines.get(end.saturating_sub(AROUND)..end).unwrap_or_default().to_vec();
        Self {
            seed: plan.seed,
            breaches,
            failures,
            quiet,
            summary,
            virtual_micros,
            fingerprint: ground.history.fingerprint(),
            around,
            lines,
        }
    }

    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.breaches.is_empty() && self.failures.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.virtual_micros / 1_000_000;
        if self.is_clean() {
            return write!(f, "seed {}: clean, {} events in {seconds} s", self.seed, self.summary.events);
        }
        writeln!(f, "seed {}: FAILED after {} events in {seconds} s", self.seed, self.summary.events)?;
        for breach in &self.breaches {
            writeln!(f, "  {breach}")?;
        }
        for failure in &self.failures {
            writeln!(f, "  {failure}")?;
        }
        writeln!(f, "history before it:")?;
        for line in &self.around {
            writeln!(f, "    {line}")?;
        }
        Ok(())
    }
}

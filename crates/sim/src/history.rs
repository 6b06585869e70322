//! What happens in a run, in order: events for the checker, and notes for people. The checker sees each event at once.
//!
//! One clock stamps everything, so the trace of a seed is one list of lines. Two runs of one seed give the same lines.

use std::fmt;
use std::sync::Arc;

use bifrost_checker::event::{Event, Micros, Value};
use bifrost_checker::{Checker, EventNumber};
use parking_lot::Mutex;

/// Start value and multiplier of FNV-1a with 64 bits.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

/// Records what happens. Clones share one history.
#[derive(Clone)]
pub struct History {
    clock: Arc<dyn Fn() -> Micros + Send + Sync>,
    trace: Arc<Mutex<Trace>>,
}

#[derive(Default)]
struct Trace {
    lines: Vec<Line>,
    /// The line of each event, in the checker's numbering.
    events: Vec<usize>,
    fingerprint: Fingerprint,
    checker: Checker,
}

/// One line of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When, in virtual time.
    pub at: Micros,
    /// What.
    pub what: What,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Something that the checker judges.
    Event(Event),
    /// Something that explains it: a fault, a step of the plan.
    Note(String),
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>4}.{:06} ", self.at / 1_000_000, self.at % 1_000_000)?;
        match &self.what {
            What::Event(event) => write!(f, "{event:?}"),
            What::Note(note) => write!(f, "# {note}"),
        }
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History").field("lines", &self.len()).finish_non_exhaustive()
    }
}

impl History {
    /// An empty history. `clock` tells the virtual time in microseconds and never goes back.
    pub fn new(clock: impl Fn() -> Micros + Send + Sync + 'static) -> Self {
        Self { clock: Arc::new(clock), trace: Arc::default() }
    }

    /// Adds an event.
    pub fn record(&self, event: Event) {
        self.push(What::Event(event));
    }

    /// Adds a line for people.
    pub fn note(&self, note: impl Into<String>) {
        self.push(What::Note(note.into()));
    }

    fn push(&self, what: What) {
        let line = Line { at: (self.clock)(), what };
        let mut trace = self.trace.lock();
        trace.fingerprint.add(line.to_string().as_bytes());
        if let What::Event(event) = &line.what {
            trace.checker.observe(line.at, event);
            let number = trace.lines.len();
            trace.events.push(number);
        }
        trace.lines.push(line);
    }

    /// Asks the checker, or tells it what to expect.
    pub fn with_checker<T>(&self, work: impl FnOnce(&mut Checker) -> T) -> T {
        work(&mut self.trace.lock().checker)
    }

    /// The number of the line of an event that the checker names.
    pub fn line_of(&self, event: EventNumber) -> Option<usize> {
        self.trace.lock().events.get(usize::try_from(event).ok()?).copied()
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.trace.lock().lines.len()
    }

    /// Whether nothing happened yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The lines from the `first`-th on, in order; the first one is the 0th.
    pub fn lines_from(&self, first: usize) -> Vec<Line> {
        self.trace.lock().lines.get(first..).unwrap_or_default().to_vec()
    }

    /// Every line so far.
    pub fn lines(&self) -> Vec<Line> {
        self.lines_from(0)
    }

    /// A digest of every line so far: equal for equal traces.
    pub fn fingerprint(&self) -> u64 {
        self.trace.lock().fingerprint.0
    }
}

#[derive(Debug, Clone, Copy)]
struct Fingerprint(u64);

impl Default for Fingerprint {
    fn default() -> Self {
        Self(FNV_OFFSET)
    }
}

impl Fingerprint {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(FNV_PRIME);
        }
    }
}

/// What bytes are called in a history. The same bytes have the same value in every process.
pub fn value_of(bytes: &[u8]) -> Value {
    let mut fingerprint = Fingerprint::default();
    fingerprint.add(bytes);
    Value(fingerprint.0)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn history() -> (History, Arc<AtomicU64>) {
        let micros = Arc::new(AtomicU64::new(0));
        let clock = Arc::clone(&micros);
        (History::new(move || clock.load(Ordering::Relaxed)), micros)
    }

    #[test]
    fn lines_carry_the_time_at_which_they_were_added() {
        let (history, micros) = history();
        history.note("one");
        micros.store(2_000_003, Ordering::Relaxed);
        history.clone().record(Event::Healed);
        let lines: Vec<String> = history.lines().iter().map(Line::to_string).collect();
        assert_eq!(lines, ["   0.000000 # one", "   2.000003 Healed"]);
        assert_eq!(history.lines_from(1).len(), 1);
        assert_eq!(history.lines_from(7).len(), 0);
    }

    #[test]
    fn the_checker_sees_events_and_not_notes() {
        let history = history().0;
        history.note("one");
        history.record(Event::Healed);
        history.note("two");
        history.record(Event::Healed);
        assert_eq!(history.with_checker(|checker| checker.summary().events), 2);
        assert_eq!((history.line_of(0), history.line_of(1), history.line_of(2)), (Some(1), Some(3), None));
    }

    #[test]
    fn equal_traces_have_equal_fingerprints() {
        let (one, other, more) = (history().0, history().0, history().0);
        for history in [&one, &other, &more] {
            history.note("a");
        }
        more.note("b");
        assert_eq!(one.fingerprint(), other.fingerprint());
        assert_ne!(one.fingerprint(), more.fingerprint());
    }

    #[test]
    fn values_tell_bytes_apart() {
        assert_eq!(value_of(b"x"), value_of(b"x"));
        assert_ne!(value_of(b"x"), value_of(b"y"));
        // Pinned: regression plans of another build must see the same values.
        assert_eq!(value_of(b"a"), Value(0xaf63_dc4c_8601_ec8c));
    }
}

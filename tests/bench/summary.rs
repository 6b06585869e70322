//! The table.

use std::fmt;
use std::time::Duration;

pub const LEGEND: &str = "\
ms: milliseconds. gap: the longest time without an acknowledged append, as four writers of one log saw it.
canary: the slowest 4 KiB write + fdatasync during each repetition, some hundred a second beside the running load.
A repetition during which one took 20 ms or more is made again; stalled: how many were, and what the slowest of them took.
seal, close: what the chain says of the segments that were closed meanwhile; close is from announcement to decision.";

/// Times of one kind.
#[derive(Debug, Default)]
pub struct Samples {
    all: Vec<Duration>,
}

impl Samples {
    pub fn len(&self) -> u32 {
        u32::try_from(self.all.len()).expect("a bench ends")
    }

    pub fn push(&mut self, time: Duration) {
        self.all.push(time);
    }

    /// The time that this share of all does not exceed; zero if there is none.
    pub fn quantile(&self, share: f64) -> Duration {
        let mut sorted = self.all.clone();
        sorted.sort_unstable();
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }

    fn three(&self) -> [f64; 3] {
        [0.5, 0.99, 1.0].map(|share| self.quantile(share).as_secs_f64() * 1e3)
    }
}

impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, _, max] = self.three();
        write!(f, "p50 {p50:.0} ms, max {max:.0} ms ({} times)", self.all.len())
    }
}

/// What a row has seen.
#[derive(Debug, Default)]
pub struct Measured {
    /// While the disk did not stall.
    pub gaps: Samples,
    /// While it did.
    pub stalled: Samples,
    /// Beside `gaps`.
    pub canary: Samples,
    pub seals: Samples,
    pub closes: Samples,
}

pub fn header() -> String {
    format!(
        "{:<38} {:>8} {:>8} {:>8} {:>14} {:>14} {:>14} {:>14}",
        "row", "gap p50", "p99 ms", "max ms", "canary p50 p99", "stalled max", "seal p50 p99", "close p50 p99"
    )
}

pub fn line(name: &str, measured: &Measured) -> String {
    let [p50, p99, max] = measured.gaps.three();
    let two = |samples: &Samples| {
        let [p50, p99, _] = samples.three();
        format!("{p50:.1} {p99:.1}")
    };
    let stalled = match measured.stalled.len() {
        0 => "0".to_owned(),
        stalled => format!("{stalled} {:.1}", measured.stalled.quantile(1.0).as_secs_f64() * 1e3),
    };
    format!(
        "{name:<38} {p50:>8.1} {p99:>8.1} {max:>8.1} {:>14} {stalled:>14} {:>14} {:>14}",
        two(&measured.canary),
        two(&measured.seals),
        two(&measured.closes)
    )
}

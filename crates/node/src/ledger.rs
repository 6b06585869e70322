//! Keeps what was acknowledged and what readers saw, and has the checker judge the promises of the log by it.
//!
//! ```text
//!  appender task ─► AppenderLedger ─┐ (begun, started, acknowledged, outcome)
//!                        │ Order    ├─► Ledger ─► verify(chain, tail, final scan) ─► Verdicts, one per promise
//!  reader task ───► ReaderLedger ───┘ (given at each LSN)       │
//!                                                 history of events ─► bifrost_checker
//! ```
//! The rules are the checker's; here is only what a user of the public API can note. Each task keeps its own part without
//! locks and hands it in when it ends. A record is remembered by its
//! [`Identity`]: its bytes can be recomputed from that, so they are compared without being kept. A few dozen bytes per
//! record and reader, whatever the payload, and about three hundred per record while the checker judges.
//!
//! ```
//! # use bifrost::{Bifrost, LogOptions, Lsn, ReadOptions, TailKind};
//! # use bifrost_node::ledger::Ledger;
//! # use futures_util::StreamExt;
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let bifrost = Bifrost::in_memory().await?;
//! # let log = bifrost.create_log("orders", LogOptions::default()).await?;
//! let mut ledger = Ledger::new(7);
//! let mut mine = ledger.appender(0);
//! let (number, payload) = mine.begin(100);
//! let outcome = log.appender().append(payload).await;
//! mine.ended(number, &outcome);
//! ledger.add_appender(mine);
//!
//! let tail = log.find_tail(TailKind::Linearizable).await?.lsn;
//! let mut scan = ledger.reader("final scan", Lsn::FIRST);
//! let mut reader = log.read(ReadOptions { until: Some(tail), ..ReadOptions::default() });
//! while let Some(event) = reader.next().await {
//!     scan.observe(&event?);
//! }
//! let verdicts = ledger.verify(&log.describe().await?, tail, &scan);
//! assert!(verdicts.all_hold(), "{verdicts}");
//! # bifrost.shutdown().await; Ok(()) }
//! ```

mod appends;
mod findings;
mod history;
mod order;
mod payload;
mod reads;
mod verdict;

pub use appends::{AppenderLedger, Outcome};
pub use findings::Findings;
pub use order::{Order, Pause};
pub use payload::{Identity, PAYLOAD_BYTES_MIN};
pub use reads::ReaderLedger;
pub use verdict::{Verdict, Verdicts};

use std::collections::BTreeMap;
use std::time::Duration;

use bifrost::Lsn;

/// Everything that was noted of one run.
#[derive(Debug)]
pub struct Ledger {
    run: u32,
    order: Order,
    appenders: BTreeMap<u32, AppenderLedger>,
    readers: Vec<(ReaderLedger, Until)>,
    reconfigurations: Vec<Duration>,
    /// The longest pause of the writers around each planned reconfiguration.
    pauses: Vec<Duration>,
    pause_max: Duration,
}

/// How far a reader should have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    Tail,
    Anywhere,
}

impl Ledger {
    /// The ledger of a run. `run` tells its records from those of other runs on the same log: draw it at random.
    pub fn new(run: u32) -> Self {
        Self {
            run,
            order: Order::new(),
            appenders: BTreeMap::new(),
            readers: Vec::new(),
            reconfigurations: Vec::new(),
            pauses: Vec::new(),
            pause_max: Duration::from_secs(10),
        }
    }

    /// The order of events of this run.
    pub const fn order(&self) -> &Order {
        &self.order
    }

    /// The longest time without an acknowledged append that promise 6 may take. Default 10 s: some times the time after
    /// which a silent sequencer is replaced.
    pub const fn set_pause_max(&mut self, pause_max: Duration) {
        self.pause_max = pause_max;
    }

    /// A ledger for the appender of this number, which is used once in a run.
    pub fn appender(&self, appender: u32) -> AppenderLedger {
        AppenderLedger::new(self.run, appender, self.order.clone())
    }

    /// A ledger for a reader, or for the final scan, that reads from `from`.
    pub fn reader(&self, name: impl Into<String>, from: Lsn) -> ReaderLedger {
        ReaderLedger::new(name, from)
    }

    /// Hands in what an appender did.
    ///
    /// # Panics
    /// When there is one of that number already: the ledger was used wrongly.
    pub fn add_appender(&mut self, appender: AppenderLedger) {
        let before = self.appenders.insert(appender.appender(), appender);
        assert!(before.is_none(), "two appenders of one number");
    }

    /// Hands in what a reader was given that should have reached the tail.
    pub fn add_reader(&mut self, reader: ReaderLedger) {
        self.readers.push((reader, Until::Tail));
    }

    /// Hands in what a reader was given that was stopped on purpose, wherever it was.
    pub fn add_stopped_reader(&mut self, reader: ReaderLedger) {
        self.readers.push((reader, Until::Anywhere));
    }

    /// Takes note of a planned reconfiguration that took place in `[from, until)`, in microseconds of
    /// [`Order::now`]. Call it when acknowledgements have gone on after it.
    pub fn reconfigured(&mut self, from: u64, until: u64) {
        self.reconfigurations.push(Duration::from_micros(until.saturating_sub(from)));
        self.pauses.push(self.order.longest_pause_around(from, until));
    }
}

#[cfg(test)]
mod tests;

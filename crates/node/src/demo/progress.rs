//! The progress line, on stderr: one that moves on a terminal, one each second otherwise.

use std::io::{IsTerminal, Write, stderr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bifrost::{Log, TailKind};
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::disturbance::Restarts;
use super::load::Load;
use super::report::grouped;

/// What the line tells.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) load: Arc<Load>,
    pub(super) restarts: Arc<Mutex<Restarts>>,
    pub(super) readers: Vec<Arc<AtomicU64>>,
    pub(super) log: Log,
}

/// How it is shown.
#[derive(Debug)]
pub(super) enum Line {
    Hidden,
    Plain,
    Moving(ProgressBar),
}

impl Line {
    pub(super) fn new(quiet: bool) -> Self {
        if quiet {
            return Self::Hidden;
        }
        if !stderr().is_terminal() {
            return Self::Plain;
        }
        let bar = ProgressBar::no_length();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
            bar.set_style(style);
        }
        Self::Moving(bar)
    }

    /// One line that stays.
    pub(super) fn say(&self, text: &str) {
        match self {
            Self::Hidden => {}
            Self::Plain => plain(text),
            Self::Moving(bar) => bar.suspend(|| plain(text)),
        }
    }

    /// Shows the load until the future is dropped.
    pub(super) async fn follow(&self, seen: &Seen, seconds: u64) {
        let period = match self {
            Self::Hidden => return std::future::pending().await,
            Self::Plain => Duration::from_secs(1),
            Self::Moving(_) => Duration::from_millis(100),
        };
        let began = Instant::now();
        let mut every = interval(period);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is at once, and there is nothing to tell.
        every.tick().await;
        let (mut before, mut since) = (0, began);
        let mut rate = 0.0;
        loop {
            every.tick().await;
            let records = seen.load.records.load(Ordering::Relaxed);
            let elapsed = since.elapsed().as_secs_f64();
            if elapsed >= 0.9 {
                rate = (records - before) as f64 / elapsed;
                (before, since) = (records, Instant::now());
            }
            let text = describe(seen, began.elapsed().as_secs(), seconds, records, rate).await;
            match self {
                Self::Hidden => {}
                Self::Plain => plain(&text),
                Self::Moving(bar) => {
                    bar.set_message(text);
                    bar.tick();
                }
            }
        }
    }

    /// Takes the moving line away.
    pub(super) fn clear(&self) {
        if let Self::Moving(bar) = self {
            bar.finish_and_clear();
        }
    }
}

async fn describe(seen: &Seen, at: u64, seconds: u64, records: u64, rate: f64) -> String {
    let mebibytes = seen.load.bytes.load(Ordering::Relaxed) >> 20;
    let segments = seen.log.chain().segments.len();
    let tail = seen.log.find_tail(TailKind::Cached).await.map_or(0, |tail| tail.lsn.get());
    let behind = seen.readers.iter().map(|at| tail.saturating_sub(at.load(Ordering::Relaxed))).max().unwrap_or(0);
    let mut text = format!(
        "{at:>3}/{seconds} s  {} records  {}/s  {mebibytes} MiB  {segments} segments  readers {} behind",
        grouped(records),
        grouped(rate.max(0.0) as u64),
        grouped(behind),
    );
    if let Some(down) = &seen.restarts.lock().down {
        text += &format!("  log server {down} is down");
    }
    text
}

/// A line on stderr. That nobody reads it is no reason to stop.
fn plain(text: &str) {
    let _unread = writeln!(stderr(), "{text}");
}

//! `bifrost bench failover`.

use std::time::Duration;

use bifrost::{Advice, AppendError, Log, LogError, ReconfigureOptions};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::ground::{Ground, failed};
use super::report::{Percentiles, Report, Times, print, times_row};
use super::writers::{Appends, Witness, write};
use super::{LogsArgs, WritersArgs};
use crate::cli::context::{Context, Output};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::values::parse_duration;

/// Gaps that are told one by one.
const GAPS_MAX: usize = 1000;

#[derive(Debug, clap::Args)]
pub(crate) struct FailoverArgs {
    #[command(flatten)]
    logs: LogsArgs,
    #[command(flatten)]
    writers: WritersArgs,
    /// Move the sequencer of every log so often: planned reconfigurations
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    reconfigure_every: Option<Duration>,
    /// The shortest time without an acknowledgement of a log that is told
    #[arg(long, value_name = "TIME", default_value = "50ms", value_parser = parse_duration)]
    gap: Duration,
}

/// A time without an acknowledged append.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Gap {
    /// The number of the log, from 0.
    log: usize,
    /// Since the first append, in seconds: when the last acknowledgement before it came.
    at_seconds: f64,
    micros: u64,
}

/// The result, as JSON.
#[derive(Debug, Serialize)]
struct FailoverReport {
    #[serde(flatten)]
    appends: Appends,
    /// Whose outcome is unknown, or that are not in the log.
    appends_failed: u64,
    longest_gap_micros: u64,
    /// The first of those that were long enough.
    gaps: Vec<Gap>,
    /// From the request until the next segment was open.
    reconfigurations_micros: Option<Percentiles>,
    reconfigurations_failed: u64,
}

impl Report for FailoverReport {
    fn rows(&self) -> Vec<(String, String)> {
        let ms = |micros: u64| format!("{:.1} ms", micros as f64 / 1e3);
        let mut rows = self.appends.rows();
        if self.appends_failed > 0 {
            rows.push(("appends that failed".to_owned(), self.appends_failed.to_string()));
        }
        if let Some(reconfigurations) = &self.reconfigurations_micros {
            rows.push(("reconfigurations".to_owned(), reconfigurations.count.to_string()));
            rows.push(times_row("reconfiguration", reconfigurations));
            if self.reconfigurations_failed > 0 {
                rows.push(("reconfigurations that failed".to_owned(), self.reconfigurations_failed.to_string()));
            }
        }
        rows.push(("longest time without an acknowledged append".to_owned(), ms(self.longest_gap_micros)));
        for gap in &self.gaps {
            let when = format!("  log {} after {:.3} s", gap.log, gap.at_seconds);
            rows.push((when, ms(gap.micros)));
        }
        rows
    }
}

/// Sees every outcome.
struct Watch {
    begun: Instant,
    least: Duration,
    seen: Mutex<Seen>,
}

struct Seen {
    /// Of each log, once there was one.
    last: Vec<Option<Instant>>,
    longest: Duration,
    gaps: Vec<Gap>,
    failed: u64,
}

impl Watch {
    fn new(logs: usize, least: Duration) -> Self {
        let seen = Seen { last: vec![None; logs], longest: Duration::ZERO, gaps: Vec::new(), failed: 0 };
        Self { begun: Instant::now(), least, seen: Mutex::new(seen) }
    }
}

impl Witness for Watch {
    fn acknowledged(&self, log: usize) {
        let now = Instant::now();
        let seen = &mut *self.seen.lock();
        let Some(last) = seen.last.get_mut(log).and_then(|last| last.replace(now)) else { return };
        let gap = now - last;
        seen.longest = seen.longest.max(gap);
        if gap >= self.least && seen.gaps.len() < GAPS_MAX {
            let at_seconds = (last - self.begun).as_secs_f64();
            seen.gaps.push(Gap { log, at_seconds, micros: u64::try_from(gap.as_micros()).unwrap_or(u64::MAX) });
        }
    }

    /// Whoever kills nodes expects some of that; a log that is gone is the end.
    fn failed(&self, error: &AppendError) -> bool {
        self.seen.lock().failed += 1;
        matches!(error.advice(), Advice::Retry | Advice::Resolve)
    }
}

/// What became of the reconfigurations that were asked for.
#[derive(Debug, Default)]
struct Moves {
    times: Times,
    failed: u64,
}

pub(crate) async fn run(context: &Context, args: FailoverArgs) -> Result<Exit, CliError> {
    let ground = Ground::make(context, &args.logs).await?;
    let watch = Watch::new(ground.logs.len(), args.gap);
    let mut moves = Moves::default();
    let outcome = {
        let writing = write(context, &ground, &args.writers, &watch);
        let moving = keep_moving(&ground.logs, args.reconfigure_every, &mut moves);
        tokio::select! {
            biased;
            written = writing => written.map_err(|error| failed("an append", &error)),
            error = moving => Err(failed("a reconfiguration", &error)),
        }
    };
    let written = ground.clear(context, outcome).await?;
    let Seen { longest, gaps, failed, .. } = watch.seen.into_inner();
    let report = FailoverReport {
        appends: Appends::of("failover", &args.logs, &args.writers, &written),
        appends_failed: failed,
        longest_gap_micros: u64::try_from(longest.as_micros()).unwrap_or(u64::MAX),
        gaps,
        reconfigurations_micros: args.reconfigure_every.map(|_| moves.times.percentiles()),
        reconfigurations_failed: moves.failed,
    };
    // Whoever has seen enough wants to know what was seen.
    print(context, &report)?;
    if context.stop().is_cancelled() {
        return Err(CliError::interrupted());
    }
    if report.gaps.len() == GAPS_MAX && context.output() == Output::Text {
        context.say(&format!("only the first {GAPS_MAX} gaps are told; --gap tells fewer"));
    }
    Ok(Exit::Done)
}

/// Moves one log after the other, for as long as it is polled.
async fn keep_moving(logs: &[Log], every: Option<Duration>, moves: &mut Moves) -> LogError {
    let Some(every) = every else { return std::future::pending().await };
    let mut due = interval_at(Instant::now() + every, every);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        for log in logs {
            let begun = Instant::now();
            match log.reconfigure(ReconfigureOptions::default()).await {
                Ok(_) => moves.times.since(begun),
                Err(error) if error.advice() == Advice::Retry => moves.failed += 1,
                Err(error) => return error,
            }
        }
    }
}

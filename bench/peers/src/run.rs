//! The rounds: everybody does every cell, then again. A canary stands before and after each cell.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout};

use crate::canary::Canary;
use crate::cell::{Cell, Outcome};
use crate::closed_loop::Load;
use crate::flushes::Device;
use crate::members::Members;
use crate::options::Options;
use crate::peer::{Cluster, Ground, Peer};
use crate::say;

/// How long a cluster has to itself before and after a cell: elections, compaction, deletion.
const SETTLE: Duration = Duration::from_millis(500);
/// How long the disk is to take every write at once before somebody else's turn, and how long that is waited for.
const CALM: Duration = Duration::from_secs(3);
const CALM_MAX: Duration = Duration::from_secs(30);
/// Longest time of one cell beyond what is measured: making a log, filling it, deleting it.
const CELL_MAX: Duration = Duration::from_secs(120);
/// Longest time until three members are ready.
const START_MAX: Duration = Duration::from_secs(240);
/// Appends in flight while a log is filled that is read afterwards.
const FILL_IN_FLIGHT: usize = 256;

/// One cell of one peer in one round.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Measure {
    pub(crate) round: u32,
    pub(crate) peer: String,
    pub(crate) cell: String,
    pub(crate) canary_before_micros: u64,
    pub(crate) canary_after_micros: u64,
    /// How often it was measured again because of its canaries.
    pub(crate) repeats: u32,
    /// The canaries of the last attempt were good.
    pub(crate) quiet: bool,
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
}

/// What could not be measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Skipped {
    pub(crate) peer: String,
    /// `None`: nothing of this peer was.
    pub(crate) cell: Option<String>,
    pub(crate) round: Option<u32>,
    pub(crate) why: String,
}

/// All that a run has found so far.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) measures: Vec<Measure>,
    pub(crate) skipped: Vec<Skipped>,
}

/// What the rounds work with.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub(crate) options: &'a Options,
    pub(crate) ground: &'a Ground,
    pub(crate) device: Option<Device>,
    pub(crate) canary: Canary,
}

impl Run<'_> {
    /// Goes through all rounds. What fails is noted, and the next one's turn comes.
    pub(crate) async fn rounds(
        &mut self,
        peers: &[Peer],
        members: &mut Members,
        findings: &mut Findings,
    ) -> Result<()> {
        for round in 1..=self.options.rounds {
            for &peer in peers {
                say(&format!("round {round} of {}: {}", self.options.rounds, peer.title()));
                let ground = self.ground.below(&format!("{round}-{peer}"));
                let outcome = self.turn(round, peer, &ground, members, findings).await;
                members.stop().await.with_context(|| format!("stopping {peer}"))?;
                remove(&ground.directory)?;
                // What one has left must not be written back, or given back to the disk, during the next one's turn.
                tokio::task::block_in_place(rustix::fs::sync);
                self.calm().await?;
                if let Err(error) = outcome {
                    say(&format!("  failed: {error:#}"));
                    let why = format!("{error:#}");
                    findings.skipped.push(Skipped { peer: peer.to_string(), cell: None, round: Some(round), why });
                }
            }
        }
        Ok(())
    }

    async fn turn(
        &mut self,
        round: u32,
        peer: Peer,
        ground: &Ground,
        members: &mut Members,
        findings: &mut Findings,
    ) -> Result<()> {
        let cluster = timeout(START_MAX, peer.start(ground, members)).await;
        let cluster = cluster.with_context(|| format!("not ready within {START_MAX:?}{}", members.logs()))??;
        for &cell in self.options.cells.iter().filter(|cell| peer.does(**cell)) {
            match self.cell(round, peer, cell, cluster.as_ref()).await {
                Ok(measure) => findings.measures.push(measure),
                Err(error) => {
                    let why = format!("{error:#}");
                    say(&format!("  {}: failed: {why}", cell.title()));
                    let (peer, cell) = (peer.to_string(), Some(cell.name()));
                    findings.skipped.push(Skipped { peer, cell, round: Some(round), why });
                }
            }
            members.check()?;
        }
        cluster.close().await;
        Ok(())
    }

    /// Measures a cell until its canaries are good, or often enough.
    async fn cell(&mut self, round: u32, peer: Peer, cell: Cell, cluster: &dyn Cluster) -> Result<Measure> {
        let mut repeats = 0;
        loop {
            sleep(SETTLE).await;
            let before = self.sing()?;
            let outcome = self.measure(cell, cluster).await?;
            sleep(SETTLE).await;
            let after = self.sing()?;
            let quiet = !self.canary.is_bad(before) && !self.canary.is_bad(after);
            let micros = |canary: Duration| u64::try_from(canary.as_micros()).unwrap_or(u64::MAX);
            let measure = Measure {
                round,
                peer: peer.to_string(),
                cell: cell.name(),
                canary_before_micros: micros(before),
                canary_after_micros: micros(after),
                repeats,
                quiet,
                outcome,
            };
            say(&line(cell, &measure));
            if quiet {
                return Ok(measure);
            }
            if repeats == self.options.repeats {
                say("    its canaries are bad, and it was repeated often enough: taken as it is, and marked");
                return Ok(measure);
            }
            say("    a bad canary: once more");
            repeats += 1;
        }
    }

    async fn measure(&self, cell: Cell, cluster: &dyn Cluster) -> Result<Outcome> {
        let duration = Duration::from_secs(self.options.seconds);
        let warm_up = Duration::from_secs(self.options.warm_up);
        let load = |bytes, in_flight| Load { bytes, in_flight, warm_up, duration, device: self.device.clone() };
        let limit = CELL_MAX + warm_up + duration;
        let outcome = match cell {
            Cell::Append { bytes, in_flight } => timeout(limit, cluster.append(&load(bytes, in_flight))).await,
            Cell::CatchUp => timeout(limit, cluster.catch_up(&load(crate::cell::READ_BYTES, FILL_IN_FLIGHT))).await,
            Cell::Tail => timeout(limit, cluster.tail(&load(crate::cell::READ_BYTES, 1))).await,
        };
        outcome.with_context(|| format!("no end within {limit:?}"))?
    }

    /// Waits until the disk has not stalled for a while.
    async fn calm(&mut self) -> Result<()> {
        let begun = Instant::now();
        let mut quiet_since = begun;
        while begun.elapsed() < CALM_MAX && quiet_since.elapsed() < CALM {
            if tokio::task::block_in_place(|| self.canary.stalls())? {
                quiet_since = Instant::now();
            }
        }
        Ok(())
    }

    fn sing(&mut self) -> Result<Duration> {
        tokio::task::block_in_place(|| self.canary.sing())
    }
}

/// Removes what a cluster has left.
fn remove(directory: &Path) -> Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", directory.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn line(cell: Cell, measure: &Measure) -> String {
    let outcome = &measure.outcome;
    let mut line = format!(
        "  {:<34} {:>11.0} records/s {:>8.1} MB/s",
        cell.title(),
        outcome.records_per_second,
        outcome.megabytes_per_second
    );
    if let Some(micros) = outcome.micros {
        line += &format!("  p50 / p99 / max {} / {} / {} us", micros.p50, micros.p99, micros.max);
    }
    if let Some(micros) = outcome.append_micros {
        line += &format!(" (append p50 {} us)", micros.p50);
    }
    if let Some(flushes) = outcome.flushes_per_record {
        line += &format!("  {flushes:.3} flushes/record");
    }
    line + &format!("  canary {} {} us", measure.canary_before_micros, measure.canary_after_micros)
}

//! What a run came to: medians over its rounds, ratios, bars; as text and as JSON.

pub(crate) mod bars;
mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::cell::Cell;
use crate::machine::Machine;
use crate::peer::Peer;
use crate::run::{Findings, Measure, Skipped};

/// The medians of one cell of one peer.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Medians {
    pub(crate) peer: String,
    pub(crate) cell: String,
    pub(crate) rounds: usize,
    /// Of them, those whose canaries were good.
    pub(crate) quiet: usize,
    pub(crate) records_per_second: f64,
    pub(crate) megabytes_per_second: f64,
    pub(crate) p50_micros: Option<f64>,
    pub(crate) p99_micros: Option<f64>,
    /// The slowest of all rounds.
    pub(crate) max_micros: Option<u64>,
    /// Of `tail`: until the acknowledgement.
    pub(crate) append_p50_micros: Option<f64>,
    pub(crate) flushes_per_record: Option<f64>,
}

/// Medians by peer and cell.
#[derive(Debug, Default)]
pub(crate) struct Summary(Vec<Medians>);

impl Summary {
    pub(crate) fn of(measures: &[Measure]) -> Self {
        let of_one = |peer: Peer, cell: Cell| {
            let is_it = |measure: &&Measure| measure.peer == peer.name() && measure.cell == cell.name();
            medians(peer, cell, &measures.iter().filter(is_it).collect::<Vec<_>>())
        };
        Self(
            Cell::ALL
                .into_iter()
                .flat_map(|cell| Peer::ALL.into_iter().filter_map(move |peer| of_one(peer, cell)))
                .collect(),
        )
    }

    pub(crate) fn get(&self, peer: Peer, cell: Cell) -> Option<&Medians> {
        self.0.iter().find(|medians| medians.peer == peer.name() && medians.cell == cell.name())
    }
}

fn medians(peer: Peer, cell: Cell, measures: &[&Measure]) -> Option<Medians> {
    let of = |value: &dyn Fn(&Measure) -> Option<f64>| {
        median(measures.iter().filter_map(|measure| value(measure)).collect())
    };
    Some(Medians {
        peer: peer.to_string(),
        cell: cell.name(),
        rounds: measures.len(),
        quiet: measures.iter().filter(|measure| measure.quiet).count(),
        records_per_second: of(&|measure| Some(measure.outcome.records_per_second))?,
        megabytes_per_second: of(&|measure| Some(measure.outcome.megabytes_per_second))?,
        p50_micros: of(&|measure| measure.outcome.micros.map(|micros| micros.p50 as f64)),
        p99_micros: of(&|measure| measure.outcome.micros.map(|micros| micros.p99 as f64)),
        max_micros: measures.iter().filter_map(|measure| Some(measure.outcome.micros?.max)).max(),
        append_p50_micros: of(&|measure| measure.outcome.append_micros.map(|micros| micros.p50 as f64)),
        flushes_per_record: of(&|measure| measure.outcome.flushes_per_record),
    })
}

/// Of an even number, the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(*values.get(values.len() / 2 - 1)?, upper))
}

/// What is written as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    /// By peer, with the version that was measured.
    pub(crate) versions: BTreeMap<&'static str, String>,
    pub(crate) acknowledgements: BTreeMap<&'static str, &'static str>,
    pub(crate) rounds: u32,
    pub(crate) seconds: u64,
    pub(crate) warm_up_seconds: u64,
    pub(crate) canary_limit_micros: u64,
    /// Until the end, or until the run was stopped.
    pub(crate) complete: bool,
    pub(crate) medians: Vec<Medians>,
    pub(crate) bars: Vec<bars::Bar>,
    pub(crate) skipped: Vec<Skipped>,
    pub(crate) measures: Vec<Measure>,
}

impl Report {
    /// Puts in what was found.
    pub(crate) fn fill(mut self, findings: Findings, summary: &Summary) -> Self {
        self.medians.clone_from(&summary.0);
        self.bars = bars::all(summary);
        self.skipped.extend(findings.skipped);
        self.measures = findings.measures;
        self
    }

    /// The tables.
    pub(crate) fn text(&self, summary: &Summary) -> String {
        table::text(self, summary)
    }

    /// Writes the JSON; returns where.
    pub(crate) fn write(&self, directory: &Path) -> Result<PathBuf> {
        std::fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
        let path = directory.join(format!("{}.json", self.machine.unix_seconds));
        let json = serde_json::to_vec_pretty(self).context("the results as JSON")?;
        std::fs::write(&path, json).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_lies_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}

//! What the disk takes now for the least that an acknowledged append can cost: 4 KiB written where the file was written
//! before, and an fdatasync.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::Instant;

const BLOCK: usize = 4096;
const BLOCKS: u64 = 1024;
const WRITES: u64 = 150;
/// Below this none is bad: the best one of a run may have been a lucky one.
const GOOD: Duration = Duration::from_micros(300);
/// A disk that is given back what was removed stalls single writes for longer than this.
const STALL: Duration = Duration::from_millis(20);
/// A disk that stalls must not make the canary the longest part of the run.
const TIME_MAX: Duration = Duration::from_millis(500);

/// The file that is written, and the best median so far.
#[derive(Debug)]
pub(crate) struct Canary {
    file: File,
    next: u64,
    best: Option<Duration>,
    limit: Duration,
}

impl Canary {
    /// Writes the file.
    pub(crate) fn new(directory: &Path, limit: Duration) -> Result<Self> {
        let path = directory.join("canary");
        let mut file = File::options().create(true).truncate(true).write(true).open(&path)?;
        for _ in 0..BLOCKS {
            file.write_all(&[0; BLOCK]).with_context(|| format!("writing {}", path.display()))?;
        }
        file.sync_all().with_context(|| format!("fsync of {}", path.display()))?;
        Ok(Self { file, next: 0, best: None, limit })
    }

    /// The median of some writes, one after the other. Blocks.
    pub(crate) fn sing(&mut self) -> Result<Duration> {
        let took = self.writes()?;
        let median = took.get(took.len() / 2).copied().unwrap_or_default();
        self.best = Some(self.best.map_or(median, |best| best.min(median)));
        Ok(median)
    }

    /// Whether the disk holds up one of some writes. Blocks.
    pub(crate) fn stalls(&mut self) -> Result<bool> {
        Ok(self.writes()?.last().is_some_and(|slowest| *slowest > STALL))
    }

    /// What each of some writes took, in order of that.
    fn writes(&mut self) -> Result<Vec<Duration>> {
        let begun = Instant::now();
        let mut took = Vec::new();
        for _ in 0..WRITES {
            let from = Instant::now();
            let block = [u8::try_from(self.next % 251).unwrap_or_default(); BLOCK];
            self.file.write_all_at(&block, self.next % BLOCKS * BLOCK as u64).context("writing the canary")?;
            self.file.sync_data().context("fdatasync of the canary")?;
            took.push(from.elapsed());
            self.next += 1;
            if begun.elapsed() > TIME_MAX {
                break;
            }
        }
        took.sort_unstable();
        Ok(took)
    }

    /// Whether the machine was not quiet.
    pub(crate) fn is_bad(&self, median: Duration) -> bool {
        is_bad(median, self.best, self.limit)
    }
}

/// Above the limit, or three times the best of the run.
fn is_bad(median: Duration, best: Option<Duration>, limit: Duration) -> bool {
    median > limit || (median > GOOD && best.is_some_and(|best| median > best * 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_canary_is_far_above_the_best_or_above_the_limit() {
        let bad = |median, best| is_bad(Duration::from_micros(median), best, Duration::from_millis(1));
        let best = |micros| Some(Duration::from_micros(micros));
        assert!(bad(1_001, None));
        assert!(bad(1_001, best(900)));
        assert!(bad(601, best(200)));
        assert!(!bad(599, best(200)));
        assert!(!bad(299, best(50)));
    }
}

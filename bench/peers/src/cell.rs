//! What is done to a cluster, and what came of it.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::times::Percentiles;

/// Something that each cluster is made to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Cell {
    /// Appends of so many bytes, with so many unacknowledged all the time.
    Append { bytes: usize, in_flight: usize },
    /// Reading a log of 1 KiB records from its start, again and again.
    CatchUp,
    /// One append at a time, and its delivery to a reader at the end of the log.
    Tail,
}

/// Bytes of a record of `CatchUp` and `Tail`.
pub(crate) const READ_BYTES: usize = 1024;

impl Cell {
    pub(crate) const ALONE: Self = Self::Append { bytes: 1024, in_flight: 1 };
    pub(crate) const SMALL: Self = Self::Append { bytes: 128, in_flight: 256 };
    pub(crate) const MEDIUM: Self = Self::Append { bytes: 1024, in_flight: 256 };
    pub(crate) const LARGE: Self = Self::Append { bytes: 16 * 1024, in_flight: 256 };
    pub(crate) const ALL: [Self; 6] = [Self::ALONE, Self::SMALL, Self::MEDIUM, Self::LARGE, Self::CatchUp, Self::Tail];

    /// Whether it is compared by its p50; the others by their rates.
    pub(crate) fn is_latency(self) -> bool {
        matches!(self, Self::Append { in_flight: 1, .. } | Self::Tail)
    }

    /// Its name for people.
    pub(crate) fn title(self) -> String {
        match self {
            Self::Append { bytes, in_flight } if bytes < 1024 => format!("append, {bytes} B, {in_flight} in flight"),
            Self::Append { bytes, in_flight } => format!("append, {} KiB, {in_flight} in flight", bytes / 1024),
            Self::CatchUp => "catch-up read, 1 KiB".to_owned(),
            Self::Tail => "write to read, 1 KiB, 1 in flight".to_owned(),
        }
    }

    /// Its name in flags and results.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Append { bytes, in_flight } if bytes < 1024 => format!("{bytes}Bx{in_flight}"),
            Self::Append { bytes, in_flight } => format!("{}KiBx{in_flight}", bytes / 1024),
            Self::CatchUp => "read".to_owned(),
            Self::Tail => "tail".to_owned(),
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name())
    }
}

impl FromStr for Cell {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|cell| cell.name() == text) {
            Some(cell) => Ok(cell),
            None => bail!("there is no cell {text}: {}", Self::ALL.map(Self::name).join(", ")),
        }
    }
}

/// What one cell of one round came to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// How long was measured.
    pub(crate) seconds: f64,
    /// Acknowledged, or read, in that time.
    pub(crate) records: u64,
    pub(crate) records_per_second: f64,
    /// Payload.
    pub(crate) megabytes_per_second: f64,
    /// From before an append to its acknowledgement; of `tail`, to its delivery. Not told of `read`.
    pub(crate) micros: Option<Percentiles>,
    /// Of `tail`: to the acknowledgement.
    pub(crate) append_micros: Option<Percentiles>,
    /// Flushes of the device meanwhile, whoever asked for them, per record.
    pub(crate) flushes_per_record: Option<f64>,
}

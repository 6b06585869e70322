//! What the disk itself takes: the least that any acknowledged append can cost.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use bifrost_journal::directory::{Fill, JournalFile};
use bifrost_journal::{BLOCK_BYTES, Blocks, Directory, Pace, RealDirectory};
use tokio::time::Instant;

use crate::work::Latencies;

/// Bytes of one write.
const WRITE_BYTES: usize = 4096;
/// Writes of one measurement.
const WRITES: usize = 300;

/// The median of writing 4 KiB at the end of a growing file in `directory` and making it durable by fdatasync, one at a
/// time: what a write-ahead log does, with nothing around it. Takes [`WRITES`] times as long; the file is removed.
///
/// # Errors
/// When the file cannot be made or written.
pub fn median(directory: &Path) -> io::Result<Duration> {
    let path = directory.join("canary");
    let mut file = File::create(&path)?;
    let block = [0xb1; WRITE_BYTES];
    let mut latencies = Latencies::default();
    for _ in 0..WRITES {
        let started = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        latencies.record(started);
    }
    std::fs::remove_file(&path)?;
    Ok(latencies.quantile(0.5))
}

/// The mean time of one write of so many bytes into a file that was written before, past the page cache, and an fdatasync,
/// one after the other: a group commit with nothing around it. The file is removed.
///
/// # Errors
/// When the file cannot be made or written.
pub fn bare_group(directory: &Path, bytes: usize) -> io::Result<Duration> {
    let path = directory.join("bare");
    let files = RealDirectory::open(&path)?;
    let mut group = Blocks::default();
    group.put(&vec![0xb1; bytes.next_multiple_of(BLOCK_BYTES)]);
    let step = group.bytes().len() as u64;
    files.create("group", step * WRITES as u64, Fill::ZEROS, &Pace::unlimited())?;
    let file = files.open("group")?;
    let started = Instant::now();
    for write in 0..WRITES as u64 {
        file.write(&group, write * step)?;
        file.sync()?;
    }
    let took = started.elapsed();
    std::fs::remove_dir_all(&path)?;
    Ok(took / WRITES as u32)
}

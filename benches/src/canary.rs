//! What the disk itself takes: the least that any acknowledged append can cost.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use bifrost_journal::directory::{Fill, JournalFile};
use bifrost_journal::{BLOCK_BYTES, Blocks, Directory, Pace, RealDirectory};
use rustix::fs::OFlags;
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

/// The mean times of one write of so many bytes into a file that was written before, past the page cache, and an fdatasync,
/// one after the other: a group commit with nothing around it.
#[derive(Debug, Clone, Copy)]
pub struct BareGroup {
    /// From ordinary memory, as programs do it.
    pub ordinary: Duration,
    /// From huge pages, as the journal does it.
    pub huge_pages: Duration,
}

impl BareGroup {
    /// Measures both. The file is removed.
    ///
    /// # Errors
    /// When the file cannot be made or written.
    pub fn measure(directory: &Path, bytes: usize) -> io::Result<Self> {
        let path = directory.join("bare");
        let files = RealDirectory::open(&path)?;
        let bytes = bytes.next_multiple_of(BLOCK_BYTES);
        files.create("group", (bytes * WRITES) as u64, Fill::ZEROS, &Pace::unlimited())?;
        let mut blocks = Blocks::default();
        blocks.put(&vec![0xb1; bytes]);
        let file = files.open("group")?;
        let huge_pages = mean(bytes, |at| file.write(&blocks, at).and_then(|()| file.sync()))?;
        let memory = vec![0xb1; bytes + BLOCK_BYTES];
        let start = memory.as_ptr().align_offset(BLOCK_BYTES);
        let group = memory.get(start..start + bytes).ok_or(io::ErrorKind::InvalidInput)?;
        let flags = if files.is_direct() { OFlags::DIRECT } else { OFlags::empty() };
        let file = OpenOptions::new().write(true).custom_flags(flags.bits().cast_signed()).open(path.join("group"))?;
        let ordinary = mean(bytes, |at| file.write_all_at(group, at).and_then(|()| file.sync_data()))?;
        std::fs::remove_dir_all(&path)?;
        Ok(Self { ordinary, huge_pages })
    }
}

fn mean(step: usize, write: impl Fn(u64) -> io::Result<()>) -> io::Result<Duration> {
    let started = Instant::now();
    for at in 0..WRITES {
        write((at * step) as u64)?;
    }
    Ok(started.elapsed() / WRITES as u32)
}

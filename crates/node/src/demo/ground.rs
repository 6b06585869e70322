//! Where the demo runs: its directory, the free space there, and how fast the disk is without us.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

use super::DemoError;

/// Three copies, and room in which RocksDB writes each once more.
const DISK_BYTES_PER_PAYLOAD_BYTE: u64 = 6;
/// What empty stores take, and what stays free: log servers take no records into the last GiB of a large disk.
const DISK_BYTES_FIXED: u64 = (1 << 30) + (512 << 20);
/// A disk that is faster than that is not waited for: the demo stops writing early instead.
const PAYLOAD_BYTES_PER_SECOND: u64 = 24 << 20;
const CANARY_WRITES: usize = 64;
const CANARY_BYTES: usize = 4096;

/// The directory of a run; a temporary one is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Ground {
    directory: PathBuf,
    temporary: Option<TempDir>,
}

impl Ground {
    /// Takes the directory that was asked for, or makes a temporary one.
    pub(super) fn prepare(asked: Option<&Path>) -> Result<Self, DemoError> {
        let Some(directory) = asked else {
            let made = tempfile::Builder::new().prefix("bifrost-demo-").tempdir();
            let temporary = made.map_err(|source| DemoError::Directory { directory: std::env::temp_dir(), source })?;
            return Ok(Self { directory: temporary.path().to_owned(), temporary: Some(temporary) });
        };
        let directory = asked_directory(directory)?;
        Ok(Self { directory, temporary: None })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// How many payload bytes may be written here in `seconds`.
    pub(super) fn payload_budget(&self, seconds: u64, payload_bytes_max: u64) -> Result<u64, DemoError> {
        let failed = |source: io::Error| DemoError::Directory { directory: self.directory.clone(), source };
        let space = rustix::fs::statvfs(&self.directory).map_err(|error| failed(error.into()))?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        let planned = seconds.saturating_mul(PAYLOAD_BYTES_PER_SECOND).min(payload_bytes_max);
        let needed = planned.saturating_mul(DISK_BYTES_PER_PAYLOAD_BYTE).saturating_add(DISK_BYTES_FIXED);
        if free < needed {
            return Err(DemoError::Space { directory: self.directory.clone(), free, needed });
        }
        Ok(payload_bytes_max.min((free - DISK_BYTES_FIXED) / DISK_BYTES_PER_PAYLOAD_BYTE))
    }

    /// The median time of a 4 KiB write with its fdatasync: what an acknowledgement cannot be faster than.
    pub(super) fn canary(&self) -> Result<Duration, DemoError> {
        let failed = |source| DemoError::Directory { directory: self.directory.clone(), source };
        let path = self.directory.join("canary");
        let mut times = time_writes(&path).map_err(failed)?;
        fs::remove_file(&path).map_err(failed)?;
        times.sort_unstable();
        Ok(times.get(times.len() / 2).copied().unwrap_or_default())
    }

    /// Removes a temporary directory. One that was asked for is kept.
    pub(super) fn leave(self) -> Result<(), DemoError> {
        let Self { directory, temporary } = self;
        match temporary {
            Some(temporary) => temporary.close().map_err(|source| DemoError::Directory { directory, source }),
            None => Ok(()),
        }
    }
}

fn asked_directory(directory: &Path) -> Result<PathBuf, DemoError> {
    let failed = |source| DemoError::Directory { directory: directory.to_owned(), source };
    fs::create_dir_all(directory).map_err(failed)?;
    fs::canonicalize(directory).map_err(failed)
}

fn time_writes(path: &Path) -> io::Result<Vec<Duration>> {
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).open(path)?;
    let page = [0x5a; CANARY_BYTES];
    let mut times = Vec::new();
    for _ in 0..CANARY_WRITES {
        let began = Instant::now();
        file.write_all(&page)?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    Ok(times)
}

/// The most memory that this process ever had, in bytes; `None` where the system does not tell.
pub(super) fn memory_peak() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?;
    kibibytes.checked_mul(1024)
}

//! How often the disk below a directory was flushed: what a real fsync cannot do without.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{major, minor, stat};

/// The sixteenth number of `stat`: flush requests that the device completed.
const FLUSHES: usize = 15;

/// The block device below a directory. Its count has the flushes of everybody on this machine.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) name: String,
    /// What the kernel believes of its cache; below `write through` it sends no flushes, and none can be counted.
    pub(crate) cache: String,
    stat: PathBuf,
}

impl Device {
    /// The whole disk that holds the directory.
    pub(crate) fn below(directory: &Path) -> Result<Self> {
        let number = stat(directory).with_context(|| format!("stat of {}", directory.display()))?.st_dev;
        let link = format!("/sys/dev/block/{}:{}", major(number), minor(number));
        let mut device = std::fs::canonicalize(&link)
            .with_context(|| format!("{} is on no block device that {link} would show", directory.display()))?;
        if device.join("partition").exists() {
            device.pop();
        }
        let name = device.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let cache = std::fs::read_to_string(device.join("queue/write_cache")).unwrap_or_default().trim().to_owned();
        let device = Self { name, cache, stat: device.join("stat") };
        device.flushes()?;
        Ok(device)
    }

    /// Flushes since the machine started.
    pub(crate) fn flushes(&self) -> Result<u64> {
        let line = std::fs::read_to_string(&self.stat).with_context(|| format!("reading {}", self.stat.display()))?;
        let number = line.split_whitespace().nth(FLUSHES);
        let number =
            number.with_context(|| format!("{} does not count flushes (Linux 5.5 does)", self.stat.display()))?;
        number.parse().with_context(|| format!("{}: {number}", self.stat.display()))
    }
}

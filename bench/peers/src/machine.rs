//! On what it was measured.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::flushes::Device;

/// For the record: figures of another machine are not comparable.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: String,
    pub(crate) file_system: String,
    pub(crate) device: Option<String>,
    pub(crate) device_cache: Option<String>,
    /// The load of the last minute when the run began.
    pub(crate) load: String,
    pub(crate) unix_seconds: u64,
}

impl Machine {
    pub(crate) fn here(directory: &Path, device: Option<&Device>) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(':'));
            line.map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse::<u64>();
        #[expect(clippy::disallowed_methods, reason = "the date of a run, and nothing is decided by it")]
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            cpu: field(&read("/proc/cpuinfo"), "model name"),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: memory.unwrap_or_default() / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            file_system: file_system(directory, &read("/proc/self/mountinfo")),
            device: device.map(|device| device.name.clone()),
            device_cache: device.map(|device| device.cache.clone()),
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
            unix_seconds: now.as_secs(),
        }
    }
}

/// The kind of the mount that is nearest to the directory.
fn file_system(directory: &Path, mounts: &str) -> String {
    let mounts = mounts.lines().filter_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let point = mount.split(' ').nth(4)?;
        directory.starts_with(point).then(|| (point.len(), kind.split(' ').next().unwrap_or_default().to_owned()))
    });
    mounts.max_by_key(|(length, _)| *length).map_or_else(|| "unknown".to_owned(), |(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mount_tells_the_file_system() {
        let mounts = "22 1 254:0 / / rw - ext4 /dev/vda rw\n23 22 0:20 / /tmp rw shared:3 - tmpfs tmpfs rw\n";
        assert_eq!(file_system(Path::new("/tmp/a"), mounts), "tmpfs");
        assert_eq!(file_system(Path::new("/var/a"), mounts), "ext4");
    }
}

//! What the process took from the machine, as Linux counts it.

use std::fs;
use std::ops::{AddAssign, Sub};
use std::time::Duration;

/// What all threads took so far. A thread that ended is not counted, so only differences over a stretch in which no thread
/// of weight ends mean something. Zero where there is no `/proc`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Time on a CPU.
    pub cpu: Duration,
    /// Times that a thread gave up its CPU or had it taken away.
    pub switches: u64,
}

impl Usage {
    /// Up to now.
    pub fn now() -> Self {
        let mut usage = Self::default();
        let Ok(tasks) = fs::read_dir("/proc/self/task") else { return usage };
        for task in tasks.flatten() {
            // A thread that ends meanwhile has no files any more.
            let schedule = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let nanos = schedule.split_whitespace().next().and_then(|first| first.parse().ok());
            usage.cpu += Duration::from_nanos(nanos.unwrap_or(0));
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            let switches = status.lines().filter_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.ends_with("ctxt_switches").then(|| value.trim().parse::<u64>().ok())?
            });
            usage.switches += switches.sum::<u64>();
        }
        usage
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, more: Self) {
        self.cpu += more.cpu;
        self.switches += more.switches;
    }
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self { cpu: self.cpu.saturating_sub(earlier.cpu), switches: self.switches.saturating_sub(earlier.switches) }
    }
}

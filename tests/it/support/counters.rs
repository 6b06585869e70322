//! The counters of what a test starts, without an exporter and apart from those of other tests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, LocalRecorderGuard, Metadata, Recorder, SharedString, Unit,
    set_default_local_recorder,
};
use parking_lot::Mutex;

/// Counts for whatever registers its metrics on a thread where it is installed: handles are made when a component
/// starts, so that is the thread that starts the cluster.
#[derive(Debug, Default)]
pub struct Counters {
    values: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
}

impl Counters {
    /// Installs it on this thread, until the guard is dropped.
    pub fn install(&self) -> LocalRecorderGuard<'_> {
        set_default_local_recorder(self)
    }

    /// The sum over all labels; 0 for what was never registered.
    pub fn get(&self, name: &str) -> u64 {
        self.values.lock().get(name).map_or(0, |value| value.load(Ordering::Relaxed))
    }
}

impl Recorder for Counters {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.values.lock().entry(key.name().to_owned()).or_default().clone())
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

//! The counters of what a test starts, without an exporter and apart from those of other tests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{
    Counter, CounterFn, Gauge, Histogram, Key, KeyName, LocalRecorderGuard, Metadata, Recorder, SharedString, Unit,
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

    /// What a gauge shows; 0 for what was never registered.
    pub fn gauge(&self, name: &str) -> f64 {
        f64::from_bits(self.get(name))
    }

    /// The sum over all labels, or of one of them as `name{label="value"}`; 0 for what was never registered.
    pub fn get(&self, name: &str) -> u64 {
        self.values.lock().get(name).map_or(0, |value| value.load(Ordering::Relaxed))
    }
}

struct Both {
    labelled: Arc<AtomicU64>,
    sum: Arc<AtomicU64>,
}

impl CounterFn for Both {
    fn increment(&self, value: u64) {
        self.labelled.fetch_add(value, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    fn absolute(&self, value: u64) {
        self.labelled.fetch_max(value, Ordering::Relaxed);
        self.sum.fetch_max(value, Ordering::Relaxed);
    }
}

impl Recorder for Counters {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        if let Some(label) = key.labels().next() {
            // Once more by itself: `name{label="value"}` is one of the values that `name` sums up.
            let labelled = format!("{}{{{}={:?}}}", key.name(), label.key(), label.value());
            let labelled = self.values.lock().entry(labelled).or_default().clone();
            let sum = self.values.lock().entry(key.name().to_owned()).or_default().clone();
            return Counter::from_arc(Arc::new(Both { labelled, sum }));
        }
        Counter::from_arc(self.values.lock().entry(key.name().to_owned()).or_default().clone())
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.values.lock().entry(key.name().to_owned()).or_default().clone())
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

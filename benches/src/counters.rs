//! The product's own metrics, added up for the table.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SetRecorderError, SharedString, Unit,
};
use parking_lot::Mutex;

/// Sums of counters and histograms by name, of the whole process, labels ignored.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    sums: Arc<Mutex<BTreeMap<String, Arc<Sum>>>>,
}

/// How often something was counted, and how much altogether: whole numbers for counters, millionths for histograms.
#[derive(Debug, Default)]
struct Sum {
    count: AtomicU64,
    micros: AtomicU64,
    counter: Arc<AtomicU64>,
}

/// The sums at one moment.
#[derive(Debug, Clone, Default)]
pub struct Sums {
    sums: BTreeMap<String, (u64, f64)>,
}

impl Counters {
    /// Makes these the metrics of the process. Before anything of the product starts: handles are made once.
    ///
    /// # Errors
    /// When the process has metrics already.
    pub fn install() -> Result<Self, SetRecorderError<Self>> {
        let counters = Self::default();
        metrics::set_global_recorder(counters.clone())?;
        Ok(counters)
    }

    /// The sums now.
    pub fn now(&self) -> Sums {
        let sums = self.sums.lock();
        let sums = sums.iter().map(|(name, sum)| {
            let counted = sum.counter.load(Ordering::Relaxed);
            let micros = sum.micros.load(Ordering::Relaxed);
            (name.clone(), (sum.count.load(Ordering::Relaxed), counted as f64 + micros as f64 / 1e6))
        });
        Sums { sums: sums.collect() }
    }

    fn sum(&self, key: &Key) -> Arc<Sum> {
        self.sums.lock().entry(key.name().to_owned()).or_default().clone()
    }
}

impl Sums {
    /// What a counter or the values of a histogram grew by since `earlier`.
    pub fn grown(&self, earlier: &Self, name: &str) -> f64 {
        self.of(name).1 - earlier.of(name).1
    }

    /// The mean of the values that a histogram took since `earlier`; 0 if it took none.
    pub fn mean(&self, earlier: &Self, name: &str) -> f64 {
        let count = self.of(name).0.saturating_sub(earlier.of(name).0);
        if count == 0 { 0.0 } else { self.grown(earlier, name) / count as f64 }
    }

    fn of(&self, name: &str) -> (u64, f64) {
        self.sums.get(name).copied().unwrap_or_default()
    }
}

impl HistogramFn for Sum {
    fn record(&self, value: f64) {
        self.count.fetch_add(1, Ordering::Relaxed);
        // Negative and absurd values become the bounds.
        self.micros.fetch_add((value * 1e6) as u64, Ordering::Relaxed);
    }
}

impl Recorder for Counters {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.sum(key).counter.clone())
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.sum(key))
    }
}

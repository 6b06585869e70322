//! Appends and reads on storage that fsyncs: `make bench`. What the figures mean is in `docs/PERFORMANCE.md`.
//!
//! `cargo bench -p bifrost-benches -- three_servers` runs the cells whose names contain that word.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark talks to its terminal")]
#![allow(missing_docs, reason = "a binary")]

use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::Context;
use bifrost::{Appender, Lsn, ReadOptions, Reader};
use bifrost_benches::backend::{Backend, Stage};
use bifrost_benches::canary::{self, BareGroup};
use bifrost_benches::counters::{Counters, Sums};
use bifrost_benches::process::Usage;
use bifrost_benches::summary::{GROUP_BYTES, Row, Summary};
use bifrost_benches::work::{
    self, CATCH_UP_RECORDS, Latencies, RECORDS_PER_RUN, append_in_flight, append_single, catch_up, tail,
};
use bytes::Bytes;
use criterion::{Criterion, SamplingMode, Throughput};
use tokio::runtime::{Builder, Runtime};

/// Time spent on each cell after its warm-up.
const MEASURE: Duration = Duration::from_secs(5);
const WARM_UP: Duration = Duration::from_secs(1);

/// What one cell does.
#[derive(Debug, Clone, Copy)]
enum Work {
    AppendSingle { bytes: usize },
    AppendInFlight { bytes: usize, in_flight: usize },
    AppendTrimmed { bytes: usize, in_flight: usize },
    Tail { bytes: usize },
    CatchUp { bytes: usize },
}

const WORKS: [(&str, Work); 6] = [
    ("append_1KiB_1_in_flight", Work::AppendSingle { bytes: 1024 }),
    ("append_1KiB_256_in_flight", Work::AppendInFlight { bytes: 1024, in_flight: 256 }),
    ("append_128B_256_in_flight", Work::AppendInFlight { bytes: 128, in_flight: 256 }),
    ("append_1KiB_256_trimmed", Work::AppendTrimmed { bytes: 1024, in_flight: 256 }),
    ("read_tail_1KiB", Work::Tail { bytes: 1024 }),
    ("read_catch_up_1KiB", Work::CatchUp { bytes: 1024 }),
];

impl Work {
    const fn payload_bytes(self) -> usize {
        match self {
            Self::AppendSingle { bytes }
            | Self::AppendInFlight { bytes, .. }
            | Self::AppendTrimmed { bytes, .. }
            | Self::Tail { bytes }
            | Self::CatchUp { bytes } => bytes,
        }
    }

    /// Records of one run.
    const fn records(self) -> u64 {
        match self {
            Self::AppendSingle { .. } | Self::Tail { .. } => 1,
            Self::AppendInFlight { .. } | Self::AppendTrimmed { .. } => RECORDS_PER_RUN,
            Self::CatchUp { .. } => CATCH_UP_RECORDS,
        }
    }
}

/// A cell that is being measured.
struct Cell {
    backend: Backend,
    work: Work,
    stage: Stage,
    appender: Appender,
    reader: Reader,
    /// End of what [`Work::CatchUp`] reads.
    tail: Lsn,
    payload: Bytes,
    canary_before: Duration,
    /// Of groups of the same size in a bare file, after each run.
    bare_groups: Vec<BareGroup>,
    usage: Usage,
    sums_before: Sums,
    latencies: Latencies,
    runs: u64,
    took: Duration,
}

impl Cell {
    async fn start(backend: Backend, work: Work, parent: &Path, counters: &Counters) -> anyhow::Result<Self> {
        let stage = Stage::start(backend, parent).await?;
        let canary_before = canary::median(stage.directory())?;
        let appender = stage.log.appender();
        let payload = work::payload(work.payload_bytes());
        let mut tail = Lsn::FIRST;
        if let Work::CatchUp { .. } = work {
            let runs = CATCH_UP_RECORDS / RECORDS_PER_RUN;
            append_in_flight(&appender, &payload, 256, runs, &mut Latencies::default()).await?;
            tail = tail.advance(CATCH_UP_RECORDS)?;
        } else {
            work::warm_up(&appender, &payload).await?;
        }
        let from = stage.log.find_tail(bifrost::TailKind::Linearizable).await?.lsn;
        let reader = stage.log.read(ReadOptions { from, ..ReadOptions::default() });
        Ok(Self {
            backend,
            work,
            stage,
            appender,
            reader,
            tail,
            payload,
            canary_before,
            bare_groups: Vec::new(),
            usage: Usage::default(),
            sums_before: counters.now(),
            latencies: Latencies::default(),
            runs: 0,
            took: Duration::ZERO,
        })
    }

    async fn run(&mut self, runs: u64, counters: &Counters) -> anyhow::Result<Duration> {
        let Self { appender, payload, latencies, .. } = self;
        let usage_before = Usage::now();
        let took = match self.work {
            Work::AppendSingle { .. } => append_single(appender, payload, runs, latencies).await?,
            Work::AppendInFlight { in_flight, .. } => {
                append_in_flight(appender, payload, in_flight, runs, latencies).await?
            }
            Work::AppendTrimmed { in_flight, .. } => {
                work::append_trimmed(&self.stage.log, appender, payload, in_flight, runs, latencies).await?
            }
            Work::Tail { .. } => tail(appender, &mut self.reader, payload, runs, latencies).await?,
            Work::CatchUp { .. } => catch_up(&self.stage.log, self.tail, runs).await?,
        };
        self.usage += Usage::now() - usage_before;
        self.runs += runs;
        self.took += took;
        let appends = !matches!(self.work, Work::Tail { .. } | Work::CatchUp { .. });
        if let (Backend::Embedded, true) = (self.backend, appends) {
            // Taking turns: what the disk does differs from one second to the next.
            let bytes = counters.now().mean(&self.sums_before, GROUP_BYTES);
            self.bare_groups.push(BareGroup::measure(self.stage.directory(), bytes as usize)?);
        }
        Ok(took)
    }

    async fn finish(self, name: String, counters: &Counters) -> anyhow::Result<Row> {
        let sums_after = counters.now();
        let Self { stage, appender, reader, bare_groups, usage, .. } = self;
        drop((appender, reader));
        let canary_after = canary::median(stage.directory())?;
        stage.stop().await?;
        Ok(Row {
            cell: name,
            latencies: self.latencies,
            records: self.runs * self.work.records(),
            took: self.took,
            canary_before: self.canary_before,
            canary_after,
            bare_groups,
            usage,
            sums_before: self.sums_before,
            sums_after,
        })
    }
}

/// The build's own directory: on the disk of the working copy, never on tmpfs, and nobody keeps anything in it.
fn scratch() -> anyhow::Result<PathBuf> {
    let executable = std::env::current_exe()?;
    Ok(executable.parent().context("an executable lies in a directory")?.to_owned())
}

/// Runs on a worker of the runtime, where the tasks of an embedder run too: from outside each answer would cost two more
/// switches between threads.
fn on_worker<T: Send + 'static>(
    runtime: &Runtime,
    work: impl Future<Output = anyhow::Result<T>> + Send + 'static,
) -> T {
    let done = runtime.block_on(runtime.spawn(work));
    done.expect("the work does not panic").expect("a healthy disk and loopback")
}

/// A thread less than there are cores, as in `bifrost server`; `TOKIO_WORKER_THREADS` says otherwise.
fn runtime() -> anyhow::Result<Runtime> {
    let mut runtime = Builder::new_multi_thread();
    if std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        runtime.worker_threads(available_parallelism()?.get().saturating_sub(1).max(1));
    }
    Ok(runtime.enable_all().build()?)
}

fn main() -> anyhow::Result<()> {
    let counters = Counters::install().context("metrics")?;
    let runtime = runtime()?;
    let scratch = scratch()?;
    let mut summary = Summary::default();
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(WARM_UP)
        .measurement_time(MEASURE)
        .without_plots()
        .configure_from_args();
    for backend in Backend::ALL {
        let mut group = criterion.benchmark_group(backend.to_string());
        group.sampling_mode(SamplingMode::Flat);
        for (name, work) in WORKS {
            group.throughput(Throughput::Elements(work.records()));
            let mut cell: Option<Cell> = None;
            group.bench_function(name, |bencher| {
                // Out of what criterion times; not before it, since a cell may be filtered out.
                let mut started = Some(cell.take().unwrap_or_else(|| {
                    let (scratch, counters) = (scratch.clone(), counters.clone());
                    on_worker(&runtime, async move { Cell::start(backend, work, &scratch, &counters).await })
                }));
                bencher.iter_custom(|runs| {
                    let mut running = started.take().expect("criterion calls this once each time");
                    let counters = counters.clone();
                    let (after, took) = on_worker(&runtime, async move {
                        let took = running.run(runs, &counters).await?;
                        Ok((running, took))
                    });
                    started = Some(after);
                    took
                });
                cell = started;
            });
            if let Some(cell) = cell {
                let (name, counters) = (format!("{backend}/{name}"), counters.clone());
                summary.push(on_worker(&runtime, async move { cell.finish(name, &counters).await }));
            }
        }
        group.finish();
    }
    if !summary.is_empty() {
        println!("{summary}");
    }
    criterion.final_summary();
    Ok(())
}

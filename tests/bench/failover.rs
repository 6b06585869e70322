//! How long writers wait while a cluster of three processes is changed or loses a node. `make bench-failover` runs it;
//! docs/PERFORMANCE.md tells what is measured and has the figures.
//!
//! `cargo bench -p bifrost-tests --bench failover -- WORD` measures the rows whose name contains that word, and
//! `FAILOVER_REPETITIONS` says how often (default 50). `RUST_LOG` says what the clients tell on stderr, `CHAOS_LOG` what the
//! nodes tell.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "a bench is a test in this, and takes of the tests' ground what it needs"
)]

#[path = "../it/chaos"]
mod chaos {
    pub mod load;
    pub mod many_logs;
}
mod disk;
mod rows;
#[path = "../it/support"]
mod support {
    pub mod cluster;
    pub mod net;
    pub mod proxy;
    pub mod tool;
}
mod summary;

use std::path::{Path, PathBuf};
use std::time::Duration;

use self::chaos::load::{Load, Shape};
use self::chaos::many_logs;
use self::disk::DiskWatch;
use self::rows::Row;
use self::summary::{LEGEND, Samples, header, line};
use self::support::cluster::Cluster;
use self::support::net::may_make_namespaces;

/// Four writers, each with one append in flight: as many acknowledgements as the cluster gives.
const LOAD: Shape = Shape { logs: 1, writers: 4, pace: Duration::ZERO, record_bytes: 1024 };
const MANY: usize = 1_000;

fn main() {
    let told = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(told).with_writer(std::io::stderr).init();
    assert!(may_make_namespaces(), "network namespaces are needed: run it as root");
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|word| name.contains(word.as_str()));
    let repetitions = std::env::var("FAILOVER_REPETITIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(50);
    let below = scratch();
    println!("{repetitions} repetitions of each gap; data in {}", below.display());
    println!("{}", header());
    for row in Row::ALL.into_iter().filter(|row| is_wanted(row.name())) {
        let told = Cluster::run(3, &below, |mut cluster| {
            let load = Load::start(&cluster, "measured", LOAD);
            let measured = row.measure(&mut cluster, &load, &DiskWatch::start(&below), repetitions);
            load.finish(&cluster);
            cluster.check();
            measured
        });
        println!("{}", line(row.name(), &told));
    }
    if is_wanted("many_logs") {
        let (mut idle, mut appended) = (Samples::default(), Samples::default());
        for _ in 0..repetitions.div_ceil(10) {
            Cluster::run(3, &below, |mut cluster| {
                let moved = runtime().block_on(many_logs::sequencer_of_many_dies(&mut cluster, MANY));
                idle.push(moved.idle);
                appended.push(moved.appended);
            });
        }
        println!("many_logs: {MANY} idle logs off a killed node: {idle}; one append to each after that: {appended}");
    }
    if is_wanted("boot") {
        let mut booted = Samples::default();
        for _ in 0..repetitions.div_ceil(5) {
            booted.push(boot(&below));
        }
        println!("boot: three empty directories to the first acknowledged append on two copies: {booted}");
    }
    println!("{LEGEND}");
}

/// From the start of the first process until an append to a new log is acknowledged.
fn boot(below: &Path) -> Duration {
    Cluster::run(3, below, |cluster| {
        runtime().block_on(async {
            let client = cluster.connect().await.expect("it answers");
            let log = chaos::load::make_log(&client, "first", cluster.id(0)).await;
            log.appender().append(bytes::Bytes::from_static(b"first")).await.expect("it takes appends");
        });
        cluster.age()
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// Beside the executable: on the disk of the target directory, which is a real one.
fn scratch() -> PathBuf {
    let executable = std::env::current_exe().expect("this binary");
    executable.parent().expect("it lies in a directory").to_owned()
}

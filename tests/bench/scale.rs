//! What more logs, more readers and more history cost. `make bench-scale` runs it; docs/PERFORMANCE.md tells what is
//! measured and has the figures.
//!
//! `cargo bench -p bifrost-tests --bench scale -- WORD ..` measures the points that are named so, such as `logs=100`, or those
//! of a load, such as `history`; a number of one's own is as good: `logs=30000 history=2GiB`. `--json FILE` writes the figures
//! there too. `SCALE_DIR` is where the data goes, by default beside the executable.
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

mod scale {
    pub mod appends;
    pub mod effort;
    pub mod history;
    pub mod load;
    pub mod logs;
    pub mod point;
    pub mod processes;
    pub mod readers;
    pub mod segments;
}
#[path = "../it/support"]
mod support {
    pub mod ports;
    pub mod tool;
}

use std::path::{Path, PathBuf};
use std::time::Duration;

use self::scale::effort::Effort;
use self::scale::load::{Load, wanted};
use self::scale::point::{Point, table};

const LEGEND: &str = "\
cpu: of all servers together, user and system. written: what the servers had written to the disk, per byte of payload, all copies.
alone: one append in flight. care: after a kill, until every log has a sequencer that lives. Latencies mean nothing on a busy machine.";

/// For figures.
const FULL: Effort = Effort {
    appends: 20_000,
    alone: 300,
    deliveries: 200_000,
    idle: Duration::from_secs(10),
    backlog_bytes: 4 << 20,
    tells: true,
};

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let json = arguments.iter().position(|argument| argument == "--json").map(|at| {
        arguments.remove(at);
        PathBuf::from(arguments.remove(at))
    });
    let below = std::env::var_os("SCALE_DIR").map_or_else(beside, PathBuf::from);
    let free = free_bytes(&below);
    let loads = wanted(&arguments, free).unwrap_or_else(|unknown| panic!("{unknown:?} is no load"));
    println!("data in {}, {} GiB free", below.display(), free >> 30);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let mut points: Vec<Point> = Vec::new();
    for load in loads {
        eprintln!("scale: {load}");
        points.push(runtime.block_on(load.measure(&below, &FULL)));
        if let Some(json) = &json {
            let all: Vec<_> = points.iter().map(Point::json).collect();
            std::fs::write(json, serde_json::json!({ "points": all }).to_string()).expect("a file");
        }
    }
    println!("{}\n{LEGEND}", table(&points));
    if arguments.is_empty() && free / 3 < Load::HISTORY_WANTED {
        println!("the history was to be {} GiB, and the disk has not three times that", Load::HISTORY_WANTED >> 30);
    }
}

/// On the disk of the target directory, which is a real one.
fn beside() -> PathBuf {
    let executable = std::env::current_exe().expect("this binary");
    executable.parent().expect("it lies in a directory").to_owned()
}

fn free_bytes(below: &Path) -> u64 {
    let space = rustix::fs::statvfs(below).expect("a directory");
    space.f_bavail * space.f_frsize
}

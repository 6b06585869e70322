//! Nodes inside the processes of embedders: the example `join`, started as two processes beside a plain server.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::support::gate::Gate;
use super::support::server::Cluster;

/// Only a process that hangs gets here.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that embeds a node. Killed when it is dropped.
struct Embedder {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Embedder {
    fn start(name: &str, directory: &Path, metadata: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_join-under-test"));
        command.args([name]).arg(directory).arg(metadata).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the example starts");
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { input: child.stdin.take(), child, lines }
    }

    #[track_caller]
    fn says(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("it says something in time")
    }

    /// Appends a line and gives its LSN.
    #[track_caller]
    fn append(&mut self, line: &str) -> String {
        writeln!(self.input.as_mut().expect("open"), "{line}").expect("it reads");
        self.says()
    }

    /// Ends its input and waits for it.
    #[track_caller]
    fn end(mut self) -> Option<i32> {
        drop(self.input.take());
        while self.lines.recv_timeout(PATIENCE).is_ok() {}
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for Embedder {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[test]
fn two_embedded_nodes_and_a_plain_server_form_a_cluster_that_outlives_one_of_them() {
    let cluster = Cluster::of(1);
    let directory = tempfile::tempdir().expect("a directory");
    let start = |name: &str| Embedder::start(name, &directory.path().join(name), &cluster.metadata_address(0));
    let mut first = start("first");
    // The log that is made here is numbered here: an append crosses the network once, from here to the other copies.
    assert_eq!(first.says(), "N2:1 runs, N2:1 numbers the appends");
    let mut second = start("second");
    assert_eq!(second.says(), "N3:1 runs, N3:1 numbers the appends");
    assert_eq!([first.append("one"), first.append("two")], ["1", "2"]);
    assert_eq!(second.append("three"), "1");
    // There were two nodes when it was made: from now on it lies on all three, and stays numbered where it is appended from.
    cluster.run(0, ["reconfigure", "first", "--sequencer", "first"], b"").ok();
    assert_eq!(first.append("three"), "3");
    let roles: Vec<_> = cluster.run(0, ["nodes", "--output", "json"], b"").objects();
    let roles: Vec<_> = roles.iter().map(|node| node["roles"].as_array().expect("roles").len()).collect();
    assert_eq!(roles, [3, 2, 2]);

    // kill -9: the plain server takes the log over, and the other embedder goes on.
    drop(first);
    cluster.run(0, ["append", "first"], b"after\n").ok();
    assert_eq!(cluster.run(0, ["read", "first", "--output", "raw"], b"").ok(), "one\ntwo\nthree\nafter\n");
    assert_eq!(second.append("four"), "2");

    // Started again it is the same node in its next life, and appends again, wherever its log is numbered by now.
    let mut first = start("first");
    let said = first.says();
    assert!(said.starts_with("N2:2 runs, "), "{said}");
    assert_eq!(first.append("again"), "5");
    let read = cluster.run(0, ["read", "first", "--output", "raw"], b"").ok();
    assert_eq!(read, "one\ntwo\nthree\nafter\nagain\n");
    assert_eq!((first.end(), second.end()), (Some(0), Some(0)));
}

#[test]
fn an_append_from_the_process_that_numbers_it_takes_one_round_trip_to_the_other_copies() {
    /// From this process to the plain server; to itself it speaks without a network.
    const ONE_WAY: Duration = Duration::from_millis(150);
    const ROUND_TRIP: Duration = ONE_WAY.saturating_mul(2);
    let mut cluster = Cluster::empty();
    let server = cluster.reserve();
    let gate = Gate::delayed(&cluster.address(server), ONE_WAY);
    cluster.start_with(server, |command| {
        command.arg("--bootstrap").env("BIFROST__NODE__ADVERTISE", gate.address());
    });
    let directory = tempfile::tempdir().expect("a directory");
    let mut embedder = Embedder::start("here", &directory.path().join("here"), &cluster.metadata_address(server));
    assert_eq!(embedder.says(), "N2:1 runs, N2:1 numbers the appends");
    // The first one opens the streams.
    assert_eq!(embedder.append("0"), "1");
    let times: Vec<Duration> = (1..6)
        .map(|number| {
            let begun = Instant::now();
            embedder.append(&number.to_string());
            begun.elapsed()
        })
        .collect();
    // The machine may be busy: the best one says how many round trips an append needs.
    let best = *times.iter().min().expect("there are some");
    println!("an append takes {best:?} where a round trip takes {ROUND_TRIP:?}: {times:?}");
    assert!((ROUND_TRIP..2 * ROUND_TRIP).contains(&best), "{times:?}");
    assert_eq!(embedder.end(), Some(0));
}

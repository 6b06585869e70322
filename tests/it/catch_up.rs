//! A server that was killed catches up with what was written without it: what its copy of a closed segment misses comes
//! from the other members, and `bifrost node describe` says how far it is.

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use super::support::server::Cluster;

/// Only a node that never catches up gets here.
const PATIENCE: Duration = Duration::from_secs(60);
const RECORD_BYTES: usize = 16 << 10;

/// Lines of 16 KiB that tell their number.
fn lines(numbers: std::ops::Range<u32>) -> String {
    let mut text = String::new();
    for number in numbers {
        writeln!(text, "{number:08} {}", "x".repeat(RECORD_BYTES)).expect("memory");
    }
    text
}

/// The value of a metric without labels; 0 while there is none.
fn value(metrics: &str, name: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or(0.0)
}

fn describe(cluster: &Cluster, node: &str) -> serde_json::Value {
    let described = cluster.run(0, ["node", "describe", node, "--output", "json"], b"").ok();
    serde_json::from_str(&described).expect("JSON")
}

/// Waits until nobody but the sequencer of the newest segment runs.
fn wait_for_one_sequencer(cluster: &Cluster) {
    let begun = Instant::now();
    loop {
        let running = ["N1", "N2"].map(|node| describe(cluster, node)["status"]["open_sequencers"].as_u64());
        if running.into_iter().flatten().sum::<u64>() == 1 {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{running:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_server_that_was_killed_gets_what_it_misses_and_says_how_far_it_is() {
    let mut cluster = Cluster::of(3);
    cluster.run(0, ["log", "create", "orders", "--replication", "2"], b"").ok();
    cluster.run(0, ["append", "orders"], lines(0..10).as_bytes()).ok();
    cluster.kill(2);
    // 4 MiB that the first segment has and the killed server has not, and some more behind it.
    cluster.run(0, ["append", "orders"], lines(10..266).as_bytes()).ok();
    cluster.run(0, ["reconfigure", "orders"], b"").ok();
    cluster.run(0, ["append", "orders"], lines(266..300).as_bytes()).ok();
    // Until it hears that its segment is closed, a sequencer gives copies what they miss; nobody but the server itself shall.
    wait_for_one_sequencer(&cluster);
    cluster.start(2);
    let begun = Instant::now();
    let (caught_up, metrics) = loop {
        let described = describe(&cluster, "N3");
        let told = described["status"]["catch_up"].clone();
        if told["segments_left"] == 0 && told["bytes_done"].as_u64() > Some(0) {
            break (told, cluster.get(2, "/metrics").1);
        }
        assert!(begun.elapsed() < PATIENCE, "{described}");
        thread::sleep(Duration::from_millis(50));
    };
    let done = caught_up["bytes_done"].as_u64().expect("a number");
    let total = value(&metrics, "bifrost_catch_up_bytes_total");
    let missed = ((266 - 10) * RECORD_BYTES) as f64;
    let counted = missed..missed * 2.0;
    assert!(counted.contains(&total) && done as f64 <= total, "{total} of {missed}: {caught_up} {metrics}");
    assert_eq!((&caught_up["bytes_left"], &caught_up["percent"]), (&0.into(), &100.into()), "{caught_up}");
    assert!(caught_up["since_last_byte_millis"].is_u64() && caught_up["last_error"].is_null(), "{caught_up}");
    assert_eq!(value(&metrics, "bifrost_catch_up_done_bytes"), done as f64);
    assert_eq!(value(&metrics, "bifrost_catch_up_left_bytes"), 0.0);
    assert_eq!(value(&metrics, "bifrost_catch_up_done_percent"), 100.0);
    assert!(value(&metrics, "bifrost_catch_up_last_byte_timestamp_seconds") > 1e9);
    // Without another member of the first segment everything is there, byte for byte.
    assert_eq!(cluster.stop(1), 0);
    assert_eq!(cluster.run(2, ["read", "orders", "--output", "raw"], b"").ok(), lines(0..300));
}

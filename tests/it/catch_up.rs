//! A server that was killed catches up with what was written without it: what its copy of a closed segment misses comes
//! from the other members, and `bifrost node describe` says how far it is.

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use super::support::server::Cluster;

/// Only a node that never catches up gets here.
const PATIENCE: Duration = Duration::from_secs(60);
const RECORD_BYTES: usize = 16 << 10;
/// Records from before the server is killed.
const BEFORE: u64 = 10;

/// Lines of 16 KiB that tell their number.
fn lines(numbers: std::ops::Range<u32>) -> String {
    let mut text = String::new();
    for number in numbers {
        writeln!(text, "{number:08} {}", "x".repeat(RECORD_BYTES)).expect("memory");
    }
    text
}

/// Bytes of closed segments that the third server is to have and was not there for. Usually that is all that was appended
/// meanwhile; but a disk that stalls for long enough makes a sequencer silent, and then the log moves by itself, without it.
fn missed(cluster: &Cluster) -> u64 {
    let described = cluster.run(0, ["log", "describe", "orders", "--output", "json"], b"").ok();
    let described: serde_json::Value = serde_json::from_str(&described).expect("JSON");
    let has = |segment: &&serde_json::Value| {
        let nodeset = segment["nodeset"].as_array().expect("members");
        segment["state"] == "closed" && nodeset.iter().any(|member| member["node"] == "N3")
    };
    let records = |segment: &serde_json::Value| segment["tail"].as_u64().zip(segment["base_lsn"].as_u64());
    let segments = described["segments"].as_array().expect("segments").iter().filter(has);
    let closed: u64 = segments.map(|segment| records(segment).map_or(0, |(tail, base)| tail - base)).sum();
    closed.saturating_sub(BEFORE) * RECORD_BYTES as u64
}

/// The value of a metric without labels; 0 while there is none.
fn value(metrics: &str, name: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or(0.0)
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
    cluster.start(2);
    let begun = Instant::now();
    let (missed, caught_up, metrics) = loop {
        let missed = missed(&cluster);
        let described = cluster.run(0, ["node", "describe", "N3", "--output", "json"], b"").ok();
        let described: serde_json::Value = serde_json::from_str(&described).expect("JSON");
        let told = described["status"]["catch_up"].clone();
        let (status, metrics) = cluster.get(2, "/metrics");
        assert_eq!(status, 200);
        // Altogether: what closed later is a new beginning.
        if told["segments_left"] == 0 && value(&metrics, "bifrost_catch_up_bytes_total") >= missed as f64 {
            break (missed, told, metrics);
        }
        assert!(begun.elapsed() < PATIENCE, "{missed} bytes are missed: {described}");
        thread::sleep(Duration::from_millis(50));
    };
    let done = caught_up["bytes_done"].as_u64().expect("a number");
    let total = value(&metrics, "bifrost_catch_up_bytes_total");
    assert!(
        missed > 0 && total < missed as f64 * 2.0 && done > 0 && done as f64 <= total,
        "{total} of {missed}: {caught_up}"
    );
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

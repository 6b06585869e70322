//! `bifrost bench` against a cluster: what it tells, what it leaves, and how it ends early.

use std::thread;
use std::time::{Duration, Instant};

use bifrost_node::local_cluster::{LocalCluster, LocalClusterOptions};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::support::tool::{command, objects, run};

/// Only a bench that hangs gets here.
const PATIENCE: Duration = Duration::from_secs(60);

/// Three nodes in this process, and what a command says to them.
async fn on_cluster<T: Send + 'static>(work: impl FnOnce(String) -> T + Send + 'static) -> anyhow::Result<T> {
    let cluster = LocalCluster::start(LocalClusterOptions::default()).await?;
    let addresses = cluster.addresses().await.join(",");
    let done = tokio::task::spawn_blocking(move || work(addresses)).await?;
    cluster.shutdown().await;
    Ok(done)
}

fn bench(addresses: &str, arguments: &[&str]) -> Value {
    let mut told = command(["bench", "--output", "json"]);
    let ended = run(told.args(arguments).env("BIFROST_ADDRESS", addresses), b"");
    let mut reports = ended.objects();
    assert_eq!(reports.len(), 1, "{reports:?}");
    reports.remove(0)
}

fn logs(addresses: &str) -> Vec<Value> {
    let listed = run(command(["log", "list", "--output", "json"]).env("BIFROST_ADDRESS", addresses), b"").ok();
    objects(&listed)
}

#[track_caller]
fn number(report: &Value, path: &str) -> f64 {
    report.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path} in {report}"))
}

/// Percentiles of something that was done at least once.
#[track_caller]
fn is_measured(report: &Value, at: &str) {
    let values = ["count", "p50", "p90", "p99", "p999", "max"].map(|name| number(report, &format!("{at}/{name}")));
    assert!(values[0] >= 1.0 && values[1] > 0.0 && values[1..].is_sorted(), "{at} in {report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_bench_tells_what_it_measured_and_takes_its_logs_away() -> anyhow::Result<()> {
    on_cluster(|addresses| {
        let some = ["--logs", "2", "--size", "100", "--warm-up", "100ms", "--duration", "500ms"];
        let appended = bench(&addresses, &[&["append", "--writers", "2", "--in-flight", "16"], &some[..]].concat());
        assert_eq!(
            (&appended["bench"], &appended["logs"], &appended["writers"]),
            (&"append".into(), &2.into(), &2.into())
        );
        is_measured(&appended, "/latency_micros");
        assert_eq!(number(&appended, "/records"), number(&appended, "/latency_micros/count"));
        let by_rate = number(&appended, "/records_per_second") * number(&appended, "/seconds");
        assert!((by_rate - number(&appended, "/records")).abs() < 1.0, "{appended}");

        let arguments = ["read", "--logs", "2", "--readers", "3", "--records", "500", "--size", "100"];
        let read = bench(&addresses, &arguments);
        assert_eq!(number(&read, "/records"), 2.0 * 3.0 * 500.0);

        let tailed = bench(&addresses, &[&["tail"], &some[..]].concat());
        is_measured(&tailed, "/append_micros");
        is_measured(&tailed, "/delivery_micros");

        let moving = ["failover", "--in-flight", "4", "--gap", "1ms", "--reconfigure-every", "50ms"];
        let failed_over = bench(&addresses, &[&moving[..], &some[..]].concat());
        is_measured(&failed_over, "/reconfigurations_micros");
        let gaps = failed_over["gaps"].as_array().expect("gaps");
        let longest = gaps.iter().map(|gap| number(gap, "/micros")).fold(0.0, f64::max);
        assert_eq!(longest, number(&failed_over, "/longest_gap_micros"), "the longest is among those that are told");
        assert!(gaps.iter().all(|gap| number(gap, "/micros") >= 1000.0 && number(gap, "/log") < 2.0));
        assert_eq!(logs(&addresses), [] as [Value; 0], "nothing is left");

        bench(&addresses, &[&["append", "--keep"], &some[..]].concat());
        let kept = logs(&addresses);
        assert!(kept.iter().all(|log| log["name"].as_str().expect("a name").starts_with("bench-")), "{kept:?}");
        assert_eq!(kept.len(), 2);
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bench_that_is_interrupted_leaves_nothing_and_one_that_makes_no_sense_begins_nothing() -> anyhow::Result<()> {
    on_cluster(|addresses| {
        let mut endless = command(["bench", "append", "--duration", "1h", "--warm-up", "1ms"]);
        let child = endless.env("BIFROST_ADDRESS", &addresses).spawn().expect("it starts");
        let begun = Instant::now();
        while logs(&addresses).is_empty() {
            assert!(begun.elapsed() < PATIENCE, "it makes no log");
            thread::sleep(Duration::from_millis(20));
        }
        kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
        let ended = child.wait_with_output().expect("it ends");
        assert_eq!(ended.status.code(), Some(130), "{ended:?}");
        assert_eq!(logs(&addresses), [] as [Value; 0]);

        for wrong in [["--size", "9MiB"], ["--in-flight", "0"], ["--logs", "0"], ["--duration", "0s"]] {
            let refused = run(command(["bench", "append"]).args(wrong).env("BIFROST_ADDRESS", &addresses), b"");
            assert_eq!(refused.code, 2, "{wrong:?}: {refused:?}");
        }
        let copies = ["bench", "append", "--replication", "4"];
        run(command(copies).env("BIFROST_ADDRESS", &addresses), b"").refused(5);
        assert_eq!(logs(&addresses), [] as [Value; 0]);
    })
    .await
}

//! `make bench-scale` at its smallest: that each load can be measured, and what its figures must be whatever the machine.

use std::path::Path;
use std::time::Duration;

use super::scale::effort::Effort;
use super::scale::load::{Load, wanted};
use super::scale::point::{Point, table};

async fn measured(word: &str, below: &Path) -> Point {
    let loads = wanted(&[word.to_owned()], 0).expect("a load");
    assert_eq!(loads.len(), 1, "{word} names one load");
    loads[0].measure(below, &LEAST).await
}

/// To see that it works.
const LEAST: Effort = Effort {
    appends: 40,
    alone: 4,
    deliveries: 1000,
    idle: Duration::from_millis(50),
    backlog_bytes: 64 << 10,
    tells: false,
};

#[track_caller]
fn is_positive(point: &Point, names: &[&str]) {
    for name in names {
        assert!(point.figure(name).is_some_and(|value| value > 0.0), "{name} in {}", point.json());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_load_of_the_scale_bench_is_measured_down_to_the_last_figure() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let below = directory.path();
    let logs = measured("logs=3", below).await;
    is_positive(&logs, &["memory_per_log_bytes", "append_switches", "append_written_per_byte", "start_after_kill_ms"]);
    assert_eq!(logs.figure("care_left_logs"), Some(0.0), "every log has a sequencer again: {}", logs.json());
    let spread = measured("spread_readers=2", below).await;
    is_positive(&spread, &["append_switches", "append_alone_p99_ms", "memory_mib"]);
    let backlog = measured("backlog_readers=2", below).await;
    is_positive(&backlog, &["mib_per_s", "switches_per_mib"]);
    let segments = measured("segments=4", below).await;
    is_positive(&segments, &["last_moves_cpu_us", "append_switches", "start_after_kill_ms", "read_segment_ms"]);
    assert_eq!(segments.figure("segments"), Some(4.0 + 1.0), "{}", segments.json());
    let history = measured("history=1MiB", below).await;
    is_positive(&history, &["written_per_byte", "disk_per_byte", "start_after_stop_ms", "first_record_ms"]);
    let shown = table(&[logs.clone(), logs]);
    assert!(shown.lines().any(|line| line.starts_with("append_switches") && line.ends_with(" 1.00")), "{shown}");
    Ok(())
}

#[test]
fn points_of_the_scale_bench_are_chosen_by_name_and_a_history_fits_the_disk_thrice() {
    let named = |words: &[&str]| {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        wanted(&words, 3 << 30).map(|loads| loads.iter().map(Load::to_string).collect::<Vec<_>>())
    };
    assert_eq!(named(&["history"]), Ok(vec![format!("history={}", 1 << 26), format!("history={}", 1 << 30)]));
    assert_eq!(named(&["logs=7", "tail_readers=2"]), Ok(vec!["logs=7".to_owned(), "tail_readers=2".to_owned()]));
    assert_eq!(named(&[]).map(|all| all.len()), Ok(14));
    for wrong in ["nothing", "logs=0", "logs=x", "history=-1"] {
        assert_eq!(named(&[wrong]), Err(wrong.to_owned()));
    }
}

//! The demo as a library: all promises hold, also on what an earlier run left; its JSON parses.

use std::path::Path;

use anyhow::Context;
use bifrost_node::demo::{self, DemoError, DemoOptions};
use tokio_util::sync::CancellationToken;

fn options(directory: &Path, seed: u64) -> DemoOptions {
    DemoOptions {
        seconds: 3,
        appenders: 16,
        data_dir: Some(directory.to_owned()),
        seed: Some(seed),
        quiet: true,
        ..DemoOptions::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_promise_holds_and_a_second_run_continues_on_the_data() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let first = demo::run(&options(directory.path(), 1), CancellationToken::new()).await?;
    assert!(first.ok, "{}", first.to_text());
    assert!(first.records > 0 && first.earlier_records == 0);
    assert_eq!(first.restarted.len(), 1);
    let second = demo::run(&options(directory.path(), 2), CancellationToken::new()).await?;
    assert!(second.ok, "{}", second.to_text());
    assert_eq!(second.earlier_records, first.records, "what the first run left is verified too");
    assert!(second.segments > first.segments);
    let json: serde_json::Value = serde_json::from_str(&second.to_json()?)?;
    assert_eq!(json.get("ok"), Some(&true.into()));
    assert_eq!(json.get("records").and_then(serde_json::Value::as_u64), Some(second.records));
    let promises = json.get("promises").and_then(serde_json::Value::as_array).context("verdicts")?;
    assert_eq!(promises.len(), 6);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_in_use_is_refused_and_an_interrupted_run_leaves_it_free() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let metadata = bifrost_metadata::LocalMetadata::open(directory.path().join("metadata")).await?;
    let refused = demo::run(&options(directory.path(), 1), CancellationToken::new()).await;
    assert!(matches!(refused, Err(DemoError::InUse { .. })), "{refused:?}");
    metadata.shutdown().await;
    let stop = CancellationToken::new();
    stop.cancel();
    let interrupted = demo::run(&options(directory.path(), 1), stop).await;
    assert!(matches!(interrupted, Err(DemoError::Interrupted)), "{interrupted:?}");
    bifrost_metadata::LocalMetadata::open(directory.path().join("metadata")).await?.shutdown().await;
    Ok(())
}

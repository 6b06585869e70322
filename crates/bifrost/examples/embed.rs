//! A log on the local disk, inside this process: what it has acknowledged is there after a restart.

use bifrost::{Bifrost, LogOptions, ReadEvent, ReadOptions};
use futures_util::StreamExt;

/// Runs the example.
///
/// # Errors
/// Whatever the log says.
#[tokio::main]
pub async fn main() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    for life in 1..=3_u32 {
        let bifrost = Bifrost::embedded(directory.path()).await?;
        let events = bifrost.open_log("events", LogOptions::default()).await?;
        let tail = events.appender().append(format!("life {life}")).await?.advance(1)?;

        let mut reader = events.read(ReadOptions { until: Some(tail), ..ReadOptions::default() });
        let mut lives = 0;
        while let Some(event) = reader.next().await {
            if let ReadEvent::Record(record) = event? {
                lives += 1;
                assert_eq!(record.payload, format!("life {lives}"));
            }
        }
        assert_eq!(lives, life, "everything acknowledged before the restart is there");
        drop(reader);
        bifrost.shutdown().await;
    }
    Ok(())
}

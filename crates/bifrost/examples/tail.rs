//! Follow a log while somebody appends to it and it is moved to another segment.

use bifrost::{Bifrost, LogOptions, ReadEvent, ReadOptions, ReconfigureOptions};
use futures_util::StreamExt;

/// Runs the example.
///
/// # Errors
/// Whatever the log says.
#[tokio::main]
pub async fn main() -> anyhow::Result<()> {
    let bifrost = Bifrost::in_memory().await?;
    let orders = bifrost.open_log("orders", LogOptions::default()).await?;

    let mut reader = orders.read(ReadOptions::default());
    #[expect(clippy::disallowed_methods, reason = "the caller's own task")]
    let writer = tokio::spawn({
        let orders = orders.clone();
        async move {
            let appender = orders.appender();
            for number in 0..10 {
                appender.append(format!("order {number}")).await?;
                if number == 4 {
                    // Closes the segment and opens the next; neither side notices.
                    orders.reconfigure(ReconfigureOptions::default()).await?;
                }
            }
            anyhow::Ok(())
        }
    });

    let mut seen = Vec::new();
    while seen.len() < 10
        && let Some(event) = reader.next().await
    {
        match event? {
            ReadEvent::Record(record) => seen.push(String::from_utf8_lossy(&record.payload).into_owned()),
            ReadEvent::Gap { from, end, kind } => anyhow::bail!("nothing was trimmed or lost: {kind:?} {from} {end}"),
            ReadEvent::CaughtUp { .. } => {}
        }
    }
    let expected: Vec<String> = (0..10).map(|number| format!("order {number}")).collect();
    assert_eq!(seen, expected);
    writer.await??;
    bifrost.shutdown().await;
    Ok(())
}

//! Append records: the simple way, many in flight, and an atomic batch.

use bifrost::{Bifrost, Keys, LogOptions, Record, TailKind};

/// Runs the example.
///
/// # Errors
/// Whatever the log says.
#[tokio::main]
pub async fn main() -> anyhow::Result<()> {
    let bifrost = Bifrost::in_memory().await?;
    let orders = bifrost.open_log("orders", LogOptions::default()).await?;
    let appender = orders.appender();

    // One record, and wait until it is on stable storage on a write quorum.
    let first = appender.append("one espresso").await?;

    // Many in flight: reserving is the back-pressure, sending does not wait, the ticket tells the LSN.
    let mut tickets = Vec::new();
    for number in 0..100_u64 {
        let payload = format!("order {number}");
        let permit = appender.reserve(payload.len()).await?;
        tickets.push(permit.send(Record::new(payload).with_keys(Keys::Single(number % 10))));
    }
    let mut last = first;
    for ticket in tickets {
        let lsn = ticket.await?;
        assert!(lsn > last, "acknowledged in the order of sending");
        last = lsn;
    }

    // All or nothing, at contiguous LSNs.
    let batch = appender.append_batch(vec![Record::new("debit"), Record::new("credit")]).await?;
    assert!(batch > last);

    let tail = orders.find_tail(TailKind::Linearizable).await?;
    assert_eq!(tail.lsn, batch.advance(2)?);
    bifrost.shutdown().await;
    Ok(())
}

//! One copy, asked directly: what a log server has of a loglet, whatever readers would do about the rest.

use std::time::Duration;

use anyhow::Context;
use bifrost_types::{KeyFilter, LogletOffset, LogletParams, NodeId};
use bifrost_wire::batch::Batch;
use bifrost_wire::grpc::{ClientOptions, GrpcLogServer};
use bifrost_wire::log_server::{LogServer, ReadGrant, ReadReply, ReadRequest};
use bytes::Bytes;
use tokio::time::timeout;

/// Bytes that are asked for at once.
const CREDIT_BYTES: u64 = 4 << 20;

/// What one copy has of one loglet.
#[derive(Debug, Default)]
pub struct CopyContents {
    /// Payloads by offset.
    pub records: Vec<(u64, Bytes)>,
    /// Offsets that it says are damaged.
    pub corrupt: Vec<u64>,
    /// Offsets that it says it lacks.
    pub missing: Vec<u64>,
}

/// Reads `[1, until)` from the log server of `node` at `address`, which must know all of that to be readable or
/// believe the caller.
pub async fn contents(
    address: &str,
    node: NodeId,
    params: &LogletParams,
    until: LogletOffset,
) -> anyhow::Result<CopyContents> {
    timeout(Duration::from_secs(60), read(address, node, params, until)).await.context("the copy does not answer")?
}

async fn read(address: &str, node: NodeId, params: &LogletParams, until: LogletOffset) -> anyhow::Result<CopyContents> {
    let server = GrpcLogServer::connect_lazy(address, ClientOptions::default())?;
    let index = params.nodeset.index_of(node).context("not in the nodeset")?;
    let member = params.nodeset.member(index).context("not in the nodeset")?;
    let request = ReadRequest {
        loglet: params.id,
        disk: member.disk,
        from: LogletOffset::FIRST,
        until: Some(until),
        filter: KeyFilter::Any,
        credit_bytes: CREDIT_BYTES,
        readable_tail: until,
    };
    let mut stream = server.read(request).await?;
    let mut contents = CopyContents::default();
    while let Some(reply) = stream.replies.recv().await {
        match reply? {
            ReadReply::Batch { first_offset, batch, .. } => {
                let credit_bytes = batch.len() as u64;
                let _ended = stream.grants.try_send(ReadGrant { credit_bytes, readable_tail: until });
                let batch = Batch::decode(batch)?;
                batch.verify()?;
                let records = batch.records();
                contents.records.extend(records.map(|one| (first_offset.get() + u64::from(one.index), one.payload)));
            }
            ReadReply::Missing { from, end, corrupt: true } => contents.corrupt.extend(from.get()..end.get()),
            ReadReply::Missing { from, end, corrupt: false } => contents.missing.extend(from.get()..end.get()),
            ReadReply::Filtered { .. } | ReadReply::Trimmed { .. } => anyhow::bail!("nothing was filtered or trimmed"),
            ReadReply::Tail(_) => {}
        }
    }
    Ok(contents)
}

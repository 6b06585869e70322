//! What can be set on a log server.

use bifrost_types::limits::{MESSAGE_BYTES_MAX, WRITER_QUEUE};
use bifrost_types::{DiskId, NodeId};
use thiserror::Error;

/// Why options are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{option} must be from {least} to {most}")]
pub struct InvalidOption {
    /// Which one.
    pub option: &'static str,
    /// Its lower bound.
    pub least: usize,
    /// Its upper bound.
    pub most: usize,
}

/// Settings of one log server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerOptions {
    /// The node that it runs on; names threads and log lines.
    pub node: NodeId,
    /// Its disk: requests that name another one are refused (W2).
    pub disk: DiskId,
    /// Bytes of batches that may wait in front of the writer, from one message to 1 GiB. Default 64 MiB: two full windows
    /// of a sequencer. Streams wait when it is used up, which stops their senders; repairs are answered `Overloaded`.
    pub queue_bytes: usize,
    /// Requests that wait in front of the writer, of each of the two queues. Default
    /// [`WRITER_QUEUE`]; full has the same effect as `queue_bytes` used up.
    pub queue_requests: usize,
    /// Requests of one store stream that were received and not looked at. Default 32: a message holds about 1 MiB.
    pub stream_requests: usize,
    /// Replies that one store stream may leave untaken before it is dropped. Default 8192: two full queues.
    pub stream_replies: usize,
    /// Store streams open at once; more are answered `Overloaded`. Default 256.
    pub streams: usize,
    /// Reads open at once; more are answered `Overloaded`. Default 1024: each has one task.
    pub reads: usize,
    /// Loglets that the server has a promise about, from 1 to 16 Mi; a store or seal for one more is answered
    /// `TooManyLoglets`. Default 1 Mi: 100,000 logs have another segment each time that their sequencers start again. Each
    /// takes half a KiB of memory, and a peer that makes up loglets must not use
    /// up more than that. Those that are there at the start are all kept.
    pub loglets_max: usize,
}

impl ServerOptions {
    /// The defaults for this node and disk.
    pub const fn new(node: NodeId, disk: DiskId) -> Self {
        Self {
            node,
            disk,
            queue_bytes: 64 << 20,
            queue_requests: WRITER_QUEUE,
            stream_requests: 32,
            stream_replies: 2 * WRITER_QUEUE,
            streams: 256,
            reads: 1024,
            loglets_max: 1 << 20,
        }
    }

    /// Checks the bounds.
    ///
    /// # Errors
    /// [`InvalidOption`] names the first field that is out of its bounds.
    pub fn validate(&self) -> Result<(), InvalidOption> {
        for (option, value, least, most) in [
            ("queue_bytes", self.queue_bytes, MESSAGE_BYTES_MAX, 1 << 30),
            ("queue_requests", self.queue_requests, 1, 1 << 20),
            ("stream_requests", self.stream_requests, 1, 1 << 16),
            ("stream_replies", self.stream_replies, 1, 1 << 20),
            ("streams", self.streams, 1, 1 << 16),
            ("reads", self.reads, 1, 1 << 20),
            ("loglets_max", self.loglets_max, 1, 1 << 24),
        ] {
            if value < least || value > most {
                return Err(InvalidOption { option, least, most });
            }
        }
        Ok(())
    }
}

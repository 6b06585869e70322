//! Options of a `Bifrost` and of what it hands out.

use std::num::NonZeroU64;
use std::time::Duration;

use bifrost_types::limits::{APPENDER_BYTES, READ_CREDIT_BYTES};
use bifrost_types::{KeyFilter, Lsn, NodeId, ReplicationProperty};

/// Options of one [`Bifrost`](crate::Bifrost).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// How long a single question to a sequencer may take before another way is tried. Default 2 s: far above a
    /// healthy answer, and it bounds how late a sequencer that vanished without a word is replaced.
    pub call_deadline: Duration,
    /// How many nodes a new segment is spread over at most; fewer if there are fewer. Default 5: enough for two
    /// failures with three copies, few enough that each record's fan-out stays cheap.
    pub nodeset_max: usize,
    /// The node of this process, or another one that logs are best sequenced at when they are appended from here: a log
    /// that is made here, and one that has an appender here, gets its next sequencer there if that node answers. A hint:
    /// an operator's pin goes first, and nothing moves for it alone. Default: none.
    pub preferred: Option<NodeId>,
}

impl Default for Options {
    fn default() -> Self {
        Self { call_deadline: Duration::from_secs(2), nodeset_max: 5, preferred: None }
    }
}

/// Options of a new log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogOptions {
    /// How many copies of each record, and in which domains. Default: what the cluster's
    /// metadata says ([`Catalog::set_default_replication`](crate::catalog::Catalog::set_default_replication)), else two
    /// nodes, or one if there is only one.
    pub replication: Option<ReplicationProperty>,
    /// The node that is to number its appends, if that node answers. Default: [`Options::preferred`], else whoever has
    /// little to do.
    pub preferred: Option<NodeId>,
}

/// Options of an appender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppenderOptions {
    /// Encoded bytes that wait or are in flight, at most; more waits in `reserve`. At least one largest batch.
    /// Default 16 MiB.
    pub bytes_in_flight_max: usize,
    /// How long an append may go without any progress of the log before it is given up as not appended or unknown.
    /// Default 60 s: longer than a failover, shorter than the patience of whoever is on call.
    pub give_up_after: Duration,
    /// The node that the log's next sequencer is best placed at, because it is appended from there. Default:
    /// [`Options::preferred`].
    pub preferred: Option<NodeId>,
}

impl Default for AppenderOptions {
    fn default() -> Self {
        Self { bytes_in_flight_max: APPENDER_BYTES, give_up_after: Duration::from_secs(60), preferred: None }
    }
}

/// What to read of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadOptions {
    /// First wanted LSN. Default: the first of the log.
    pub from: Lsn,
    /// First LSN that is not wanted any more, or `None` (default) to follow the log.
    pub until: Option<Lsn>,
    /// Which records; evaluated at the log servers. Default: all.
    pub filter: KeyFilter,
    /// Bytes that may be read ahead of the caller. Default 4 MiB.
    pub credit_bytes: NonZeroU64,
}

impl Default for ReadOptions {
    fn default() -> Self {
        let credit_bytes = u64::try_from(READ_CREDIT_BYTES).ok().and_then(NonZeroU64::new).unwrap_or(NonZeroU64::MIN);
        Self { from: Lsn::FIRST, until: None, filter: KeyFilter::Any, credit_bytes }
    }
}

//! Every limit in one place, with the relations between them asserted at compile time (DESIGN §7).

/// Largest payload of one record.
pub const RECORD_BYTES_MAX: usize = 8 << 20;
/// Largest encoded batch, headers included.
pub const BATCH_BYTES_MAX: usize = 16 << 20;
/// Most records in one batch.
pub const BATCH_RECORDS_MAX: u32 = 1 << 16;
/// Appends that wait in an appender share a batch up to this size; what is larger goes alone. By then what each batch costs
/// on its way is little beside its bytes, and a read of one record still fetches little.
pub const SHARED_BATCH_BYTES: usize = 64 << 10;
/// Most members of a nodeset.
pub const NODESET_MAX: usize = 128;
/// Bytes of batches that a loglet's sequencer holds and that are not committed.
pub const WINDOW_BYTES: usize = 32 << 20;
/// Batches that a loglet's sequencer holds and that are not committed.
pub const WINDOW_BATCHES: usize = 4096;
/// Bytes of committed batches that a sequencer keeps for copies that are behind; a copy further behind is dropped from
/// the spread and gets the rest by backfill (A4).
pub const RETAINED_BYTES: usize = 16 << 20;
/// Bytes of batches that a sequencer has sent to one copy of a loglet without an answer; a larger batch goes alone. A
/// silent copy costs this much and its part of [`RETAINED_BYTES`], wherever on the way the bytes wait (A4).
pub const COPY_WINDOW_BYTES: usize = 8 << 20;
/// Longest metadata key.
pub const METADATA_KEY_BYTES_MAX: usize = 64 << 10;
/// Largest metadata value.
pub const METADATA_VALUE_BYTES_MAX: usize = 1 << 20;
/// Most preconditions and operations of one metadata transaction.
pub const METADATA_TXN_ITEMS_MAX: usize = 128;
/// Longest name of a log, in bytes.
pub const LOG_NAME_BYTES_MAX: usize = 255;
/// Largest gRPC message in either direction: one batch and its frame, or one answer to a read.
pub const MESSAGE_BYTES_MAX: usize = BATCH_BYTES_MAX + MESSAGE_OVERHEAD_BYTES;
/// Room in a message for everything that is not a batch.
pub const MESSAGE_OVERHEAD_BYTES: usize = 1 << 20;
/// Batches of one store message stop being added beyond this size; one larger batch travels alone.
pub const STORE_MESSAGE_BYTES: usize = 1 << 20;
/// A segment closes by itself at this many offsets.
pub const SEGMENT_OFFSETS_MAX: u64 = 1 << 40;
/// Positions at the end of the range of LSNs that no appender asks for: once the tail has reached them it stops, and what
/// is in flight then still has an LSN. Two to the 64 records take a log that writes a billion a second six hundred years.
pub const LSN_RESERVE: u64 = 1 << 32;
/// A segment closes by itself at this many bytes.
pub const SEGMENT_BYTES_MAX: u64 = 64 << 30;
/// Outcomes of reconfigurations that a chain remembers.
pub const CHAIN_FINISHED_MAX: usize = 16;
/// Requests that wait in front of a log server's writer thread.
pub const WRITER_QUEUE: usize = 4096;
/// Bytes of payload that one group commit of a log server takes at most, the last request not counted.
pub const GROUP_BYTES: usize = 8 << 20;
/// Bytes that a reader asks for ahead of its caller, by default.
pub const READ_CREDIT_BYTES: usize = 4 << 20;
/// Bytes that an appender holds and that are not acknowledged, by default.
pub const APPENDER_BYTES: usize = 16 << 20;

const _: () = {
    assert!(RECORD_BYTES_MAX < BATCH_BYTES_MAX, "a batch takes the largest record and its header");
    assert!(SHARED_BATCH_BYTES < STORE_MESSAGE_BYTES, "several shared batches are in a store message");
    assert!(BATCH_BYTES_MAX <= WINDOW_BYTES, "an empty window takes the largest batch");
    assert!(STORE_MESSAGE_BYTES < COPY_WINDOW_BYTES, "several store messages are under way to a copy");
    assert!(BATCH_BYTES_MAX <= APPENDER_BYTES, "an appender takes the largest batch");
    assert!(STORE_MESSAGE_BYTES + BATCH_BYTES_MAX <= MESSAGE_BYTES_MAX, "a store message fits a gRPC message");
    assert!(METADATA_VALUE_BYTES_MAX < MESSAGE_BYTES_MAX, "a metadata value fits a gRPC message");
    assert!((NODESET_MAX as u64) < SEGMENT_OFFSETS_MAX, "positions outnumber members");
    assert!(LSN_RESERVE > WINDOW_BATCHES as u64 * BATCH_RECORDS_MAX as u64, "what a window holds fits the reserve");
    assert!(SEGMENT_OFFSETS_MAX < u64::MAX / 2, "offsets of a segment never overflow a position");
};

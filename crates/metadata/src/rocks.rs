//! What the databases of metadata have in common: one key space, small, and a log in which nothing acknowledged is missing.

use rocksdb::{DBCompressionType, DBRecoveryMode, ErrorKind, Options};

/// Of a database with this much of RocksDB's own buffer.
pub fn options(write_buffer_bytes: usize) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_write_buffer_size(write_buffer_bytes);
    options.set_keep_log_file_num(2);
    options.set_compression_type(DBCompressionType::Lz4);
    // A torn last record was never acknowledged and is dropped. A checksum that fails before it may be an acknowledged
    // commit: refuse to open instead of silently going back in time, which RocksDB's default (point in time) does.
    // What this cannot see: a damaged length in the log's last 32 KiB block looks like a torn end.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options
}

/// Whether a directory cannot be opened because somebody has it open. RocksDB has no code for it: the lock is held by this
/// process (first text) or by another one (second).
pub fn is_locked(error: &rocksdb::Error) -> bool {
    let text = error.as_ref();
    error.kind() == ErrorKind::IOError
        && (text.contains("lock hold by current process") || text.contains("While lock file"))
}

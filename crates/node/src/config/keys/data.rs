//! Keys of a local cluster, of its disks and of its segments.

use std::num::NonZeroU64;
use std::path::PathBuf;

use bifrost_logserver::Engine;
use bifrost_types::limits::{SEGMENT_BYTES_MAX, SEGMENT_OFFSETS_MAX};

use super::{MEMORY_MAX, between, number};
use crate::config::key::{Access, Key, KeyName};
use crate::config::value::Rejected;

/// Most nodes of a cluster in one process.
const DEV_NODES_MAX: u64 = 64;
/// Most memory that a sequencer may keep for copies that are behind.
const RETAINED_BYTES_MAX: u64 = 1 << 30;

const fn engine_name(engine: Engine) -> &'static str {
    match engine {
        Engine::Files => "files",
        Engine::RocksDb => "rocksdb",
    }
}

pub(super) const KEYS: &[Key] = keys! {
    dev.nodes Count {
        |config| config.dev.nodes.map_or(0, u64::from),
        |config, count| {
            let mut nodes = 0;
            between(count, 0, DEV_NODES_MAX, &mut nodes)?;
            config.dev.nodes = (nodes > 0).then_some(nodes);
            Ok(())
        }
    }
    "How many nodes, 1 to 64. 0 means as many as the data directory has, or 3. --nodes says the same."

    dev.data_dir Text {
        |config| config.dev.data_dir.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
        |config, text| {
            config.dev.data_dir = (!text.is_empty()).then(|| PathBuf::from(text));
            Ok(())
        }
    }
    "Where the data is kept. Empty means a temporary directory that is removed at the end. --data-dir says the \
     same."

    dev.port Count (dev.port)
    "Where the first node listens on loopback; the others at the ports after it. 0 means free ports. The default \
     spells BIFR on a telephone. --port says the same."

    dev.replication Text {
        |config| config.dev.replication.as_ref().map(ToString::to_string).unwrap_or_default(),
        |config, text| {
            let property = (!text.is_empty()).then(|| text.parse());
            config.dev.replication = property.transpose().map_err(|_| {
                Rejected::Range("a number of nodes such as \"2\", or domains such as \"{zone: 2, node: 3}\"".to_owned())
            })?;
            Ok(())
        }
    }
    "Copies of each record of a log that is made without --replication: a number of nodes, or domains such as \
     \"{zone: 2, node: 3}\". Empty means what the cluster has, at first two nodes. --replication says the same."

    storage.engine Text {
        |config| engine_name(config.storage.engine).to_owned(),
        |config, text| {
            let named = [Engine::Files, Engine::RocksDb].into_iter().find(|engine| engine_name(*engine) == text);
            config.storage.engine = named.ok_or_else(|| Rejected::Range("\"files\" or \"rocksdb\"".to_owned()))?;
            Ok(())
        }
    }
    "Where records are kept: \"files\", that are written before they are needed and used again, with an index in RocksDB; or \
     \"rocksdb\", which keeps them too and writes each several times. It is of a new directory: one that has records goes on \
     as what it is."

    storage.file_bytes Bytes (storage.file_bytes)
    "Bytes of a file of records, 1 MiB to 16 GiB. A file goes when nothing in it is needed; opening reads the newest ones."

    storage.write_buffer_bytes Bytes (storage.write_buffer_bytes)
    "Bytes that RocksDB keeps in memory before they move to its files, 1 MiB to 16 GiB. With storage.engine = \"files\" that \
     is the index only."

    storage.block_cache_bytes Bytes (storage.block_cache_bytes)
    "Bytes of index and data blocks kept in memory, up to 16 GiB. Records are in blob files and cached by the \
     system, so only keys are in here."

    storage.recent_bytes Bytes (storage.recent_bytes)
    "Bytes of records kept in memory for readers at the ends of logs, up to 16 GiB. Those behind read from the disk."

    storage.background_jobs Count (storage.background_jobs)
    "Threads for flush and compaction, 1 to 64. The default is one each."

    storage.concurrent_reads Count (storage.concurrent_reads)
    "Reads that may run at once, 1 to 256; others wait. Each holds a thread."

    storage.open_files Count (storage.open_files)
    "Files that are kept open, at least 16. Each costs a descriptor and a little memory."

    storage.reserve_bytes AutoBytes {
        |config| config.storage.space.reserve_bytes,
        |config, bytes| {
            config.storage.space.reserve_bytes = bytes;
            Ok(())
        }
    }
    "Free bytes of the disk below which appends are refused, 1 MiB to 1 TiB. \"auto\" is 5 % of the file system, at \
     most 1 GiB, at least four write buffers, never more than half of the file system. Seals and trims go on below \
     it, and flush and compaction, which write anew what they are about to drop."

    storage.ballast_bytes AutoBytes {
        |config| config.storage.space.ballast_bytes,
        |config, bytes| {
            config.storage.space.ballast_bytes = bytes;
            Ok(())
        }
    }
    "Size of a file that is given up when others have filled the disk to the last byte, so that seals and trims \
     still work; up to 16 GiB, 0 for none. \"auto\" is half a write buffer, at most 2 % of the file system."

    storage.catch_up_bytes_per_second Bytes {
        |config| config.catch_up.bytes_per_second.get(),
        |config, bytes| {
            let mut rate = 0_u64;
            between(bytes, 4096, MEMORY_MAX, &mut rate)?;
            config.catch_up.bytes_per_second = NonZeroU64::new(rate).unwrap_or(NonZeroU64::MIN);
            Ok(())
        }
    }
    "Bytes per second that a node that was away fetches from others and reads back from its own disk, to find and \
     get what its copies of closed segments miss. At least 4096."

    segments.offsets_max Count {
        |config| config.segments.offsets_max,
        |config, count| between(count, 1, SEGMENT_OFFSETS_MAX, &mut config.segments.offsets_max)
    }
    "Records of one segment. The default is far below the end of the positions."

    segments.bytes_max Bytes {
        |config| config.segments.bytes_max,
        |config, bytes| between(bytes, 1, SEGMENT_BYTES_MAX, &mut config.segments.bytes_max)
    }
    "Bytes of one segment. Smaller segments give space back sooner after a trim, and make longer chains."

    segments.retained_bytes_max Bytes {
        |config| number(config.segments.retained_bytes_max),
        |config, bytes| between(bytes, 0, RETAINED_BYTES_MAX, &mut config.segments.retained_bytes_max)
    }
    "Memory of a sequencer for what is committed and not yet on every copy, for each log that is appended to, up to \
     1 GiB. A copy that is further behind gets the rest from the disks of the others."
};

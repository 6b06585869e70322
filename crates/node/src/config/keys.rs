//! Every key that can be set. The defaults are those of the parts; the words here say unit and reason.

use std::num::NonZeroU64;
use std::path::PathBuf;

use bifrost_types::limits::{BATCH_BYTES_MAX, NODESET_MAX, SEGMENT_BYTES_MAX, SEGMENT_OFFSETS_MAX};

use super::Config;
use super::key::{Access, Key, KeyName};
use super::value::Rejected;

/// The sections, in the order in which they are shown, and what each is about.
pub const SECTIONS: &[(&str, &str)] = &[
    ("client", "How the commands reach a cluster."),
    ("connection", "Connections of the commands to nodes, and of `bifrost dev` and `bifrost demo` from node to node."),
    ("appender", "`bifrost append`."),
    ("reader", "`bifrost read`."),
    ("dev", "`bifrost dev`: a cluster on this machine."),
    ("server", "What one peer may take of a node's listener. Limits are per connection unless said otherwise."),
    ("storage", "RocksDB of each log server."),
    ("segments", "When a segment counts as full: it is closed then and the next one opened."),
];

/// The key that `--address` and `BIFROST_ADDRESS` set.
pub const ADDRESSES: KeyName = KeyName { section: "client", key: "addresses" };
/// The key that `--timeout` sets.
pub const TIMEOUT: KeyName = KeyName { section: "client", key: "timeout" };

/// Most nodes of a cluster in one process.
const DEV_NODES_MAX: u64 = 64;

macro_rules! keys {
    ($($section:ident . $key:ident $kind:ident { $get:expr, $set:expr } $doc:literal)*) => {
        &[$(Key {
            name: KeyName { section: stringify!($section), key: stringify!($key) },
            doc: $doc,
            access: Access::$kind { get: $get, set: $set },
        }),*]
    };
}

/// Every key, by section.
pub const KEYS: &[Key] = keys! {
    client.addresses Texts { |config| config.client.addresses.clone(), set_addresses }
    "Nodes of the cluster, HOST:PORT, tried in order. The default is where `bifrost dev` listens. BIFROST_ADDRESS and \
     --address say the same."

    client.timeout Time { |config| config.client.timeout, |config, time| config.client.timeout = time }
    "How long a command waits without any progress before it gives up. The default is longer than a failover. \
     --timeout says the same."

    client.call_deadline Time {
        |config| config.client.options.call_deadline,
        |config, time| config.client.options.call_deadline = time
    }
    "How long a single question to a sequencer may take before another way is tried. The default is far above a \
     healthy answer; it bounds how late a sequencer that vanished without a word is replaced."

    client.nodeset_max Count {
        |config| number(config.client.options.nodeset_max),
        |config, count| between(count, 1, number(NODESET_MAX), &mut config.client.options.nodeset_max)
    }
    "How many nodes a new segment is spread over at most, 1 to 128; fewer if there are fewer. The default is enough for \
     two failures with three copies, and few enough that each record's fan-out stays cheap."

    connection.connect_timeout Time {
        |config| config.connection.connect_timeout,
        |config, time| config.connection.connect_timeout = time
    }
    "Time to establish a connection. Longer than a lost packet or two."

    connection.request_timeout Time {
        |config| config.connection.request_timeout,
        |config, time| config.connection.request_timeout = time
    }
    "Time from a request to its answer, connecting included. A repair of the largest batch waits for its fsync on a \
     busy disk."

    connection.open_timeout Time {
        |config| config.connection.open_timeout,
        |config, time| config.connection.open_timeout = time
    }
    "Time from the request for a stream until it is open, connecting included."

    connection.stream_window_bytes Bytes {
        |config| number(config.connection.stream_window_bytes),
        |config, bytes| fits(bytes, &mut config.connection.stream_window_bytes)
    }
    "Bytes that a peer may send on one stream before they are taken. The default keeps 10 Gbit/s busy over 3 ms."

    connection.connection_window_bytes Bytes {
        |config| number(config.connection.connection_window_bytes),
        |config, bytes| fits(bytes, &mut config.connection.connection_window_bytes)
    }
    "Bytes that a peer may send on one connection before they are taken. With the default, sixteen stalled streams do \
     not stop the others."

    connection.frame_bytes_max Bytes {
        |config| number(config.connection.frame_bytes_max),
        |config, bytes| fits(bytes, &mut config.connection.frame_bytes_max)
    }
    "Largest HTTP/2 frame, in bytes, 16 KiB to 16 MiB. Large batches need fewer frames than with 16 KiB, and small \
     messages still get in between."

    connection.header_list_bytes_max Bytes {
        |config| number(config.connection.header_list_bytes_max),
        |config, bytes| fits(bytes, &mut config.connection.header_list_bytes_max)
    }
    "Largest list of HTTP/2 headers, in bytes. Ours are below 1 KiB."

    connection.message_bytes_max Bytes {
        |config| number(config.connection.message_bytes_max),
        |config, bytes| fits(bytes, &mut config.connection.message_bytes_max)
    }
    "Largest message in either direction, in bytes. The default takes the largest batch; more only wastes memory."

    connection.keepalive_interval Time {
        |config| config.connection.keepalive_interval,
        |config, time| config.connection.keepalive_interval = time
    }
    "Time between pings, also on an idle connection. With it a healed link is used at once; without it a connection \
     that died in a partition is found by the first request that fails."

    connection.keepalive_timeout Time {
        |config| config.connection.keepalive_timeout,
        |config, time| config.connection.keepalive_timeout = time
    }
    "Time after which an unanswered ping closes the connection."

    appender.bytes_in_flight_max Bytes {
        |config| number(config.appender.bytes_in_flight_max),
        |config, bytes| {
            between(bytes, number(BATCH_BYTES_MAX), u64::from(u32::MAX), &mut config.appender.bytes_in_flight_max)
        }
    }
    "Encoded bytes that wait or are in flight, at most; then input is not read on. At least one largest batch."

    appender.give_up_after Time {
        |config| config.appender.give_up_after,
        |config, time| config.appender.give_up_after = time
    }
    "How long an append may go without any progress of the log before it is given up, as not appended or unknown. \
     Longer than a failover, shorter than the patience of whoever is on call. --timeout goes before it."

    reader.credit_bytes Bytes {
        |config| config.reader_credit_bytes.get(),
        |config, bytes| {
            let bytes = NonZeroU64::new(bytes).ok_or_else(|| Rejected::Range("1 byte or more".to_owned()))?;
            config.reader_credit_bytes = bytes;
            Ok(())
        }
    }
    "Bytes that may be on their way ahead of the reader. The default is a few round trips of a fast network."

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
    "Where the data is kept. Empty means a temporary directory that is removed at the end. --data-dir says the same."

    dev.port Count {
        |config| u64::from(config.dev.port),
        |config, count| fits(count, &mut config.dev.port)
    }
    "Where the first node listens on loopback; the others at the ports after it. 0 means free ports. The default spells \
     BIFR on a telephone. --port says the same."

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

    server.concurrent_streams_max Count {
        |config| number(config.server.concurrent_streams_max),
        |config, count| fits(count, &mut config.server.concurrent_streams_max)
    }
    "RPCs that one connection may have open, streams included. An appender or reader holds one each; without a limit \
     one peer could take all memory."

    server.stream_window_bytes Bytes {
        |config| number(config.server.stream_window_bytes),
        |config, bytes| fits(bytes, &mut config.server.stream_window_bytes)
    }
    "Bytes that a client may send on one stream before the service takes them."

    server.connection_window_bytes Bytes {
        |config| number(config.server.connection_window_bytes),
        |config, bytes| fits(bytes, &mut config.server.connection_window_bytes)
    }
    "Bytes that a client may send on one connection before the services take them. With the default, sixteen stalled \
     streams do not stop the others."

    server.frame_bytes_max Bytes {
        |config| number(config.server.frame_bytes_max),
        |config, bytes| fits(bytes, &mut config.server.frame_bytes_max)
    }
    "Largest HTTP/2 frame that is accepted, in bytes, 16 KiB to 16 MiB."

    server.header_list_bytes_max Bytes {
        |config| number(config.server.header_list_bytes_max),
        |config, bytes| fits(bytes, &mut config.server.header_list_bytes_max)
    }
    "Largest list of HTTP/2 headers, in bytes. Ours are below 1 KiB."

    server.message_bytes_max Bytes {
        |config| number(config.server.message_bytes_max),
        |config, bytes| fits(bytes, &mut config.server.message_bytes_max)
    }
    "Largest message in either direction, in bytes. The default takes the largest batch; more only wastes memory."

    server.pending_reset_streams_max Count {
        |config| number(config.server.pending_reset_streams_max),
        |config, count| fits(count, &mut config.server.pending_reset_streams_max)
    }
    "Streams that a client reset and that the server has not looked at yet; above it the connection is closed (rapid \
     reset attack)."

    server.local_error_resets_max Count {
        |config| number(config.server.local_error_resets_max),
        |config, count| fits(count, &mut config.server.local_error_resets_max)
    }
    "Streams that the server reset because of a client's errors; above it the connection is closed."

    server.keepalive_interval Time {
        |config| config.server.keepalive_interval,
        |config, time| config.server.keepalive_interval = time
    }
    "Time between pings on a connection without traffic: finds a peer that vanished without a word."

    server.keepalive_timeout Time {
        |config| config.server.keepalive_timeout,
        |config, time| config.server.keepalive_timeout = time
    }
    "Time after which an unanswered ping closes the connection."

    server.request_timeout Time {
        |config| config.server.request_timeout,
        |config, time| config.server.request_timeout = time
    }
    "Time from a request to its answer, or until a stream is open. Longer than any client of ours waits, so it only \
     frees what a client forgot."

    server.drain_timeout Time {
        |config| config.server.drain_timeout,
        |config, time| config.server.drain_timeout = time
    }
    "Time that connections get to close when the server stops. Only what is already written has to go out; a client \
     that does not close must not delay a stop."

    storage.write_buffer_bytes Bytes {
        |config| number(config.storage.write_buffer_bytes),
        |config, bytes| fits(bytes, &mut config.storage.write_buffer_bytes)
    }
    "Bytes of writes kept in memory before they move to files, 1 MiB to 16 GiB. At 50 MB/s the default is a flush a \
     second, and the write-ahead log is bounded by twice this."

    storage.block_cache_bytes Bytes {
        |config| number(config.storage.block_cache_bytes),
        |config, bytes| fits(bytes, &mut config.storage.block_cache_bytes)
    }
    "Bytes of index and data blocks kept in memory, up to 16 GiB. Records are in blob files and cached by the system, \
     so only keys are in here."

    storage.background_jobs Count {
        |config| number(config.storage.background_jobs),
        |config, count| fits(count, &mut config.storage.background_jobs)
    }
    "Threads for flush and compaction, 1 to 64. The default is one each."

    storage.concurrent_reads Count {
        |config| number(config.storage.concurrent_reads),
        |config, count| fits(count, &mut config.storage.concurrent_reads)
    }
    "Reads that may run at once, 1 to 256; others wait. Each holds a thread."

    storage.open_files Count {
        |config| number(config.storage.open_files),
        |config, count| fits(count, &mut config.storage.open_files)
    }
    "Files that are kept open, at least 16. Each costs a descriptor and a little memory."

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
};

fn set_addresses(config: &mut Config, addresses: Vec<String>) -> Result<(), Rejected> {
    if addresses.iter().any(String::is_empty) || addresses.is_empty() {
        return Err(Rejected::Range("one HOST:PORT or more".to_owned()));
    }
    config.client.addresses = addresses;
    Ok(())
}

fn number(value: impl TryInto<u64>) -> u64 {
    value.try_into().unwrap_or(u64::MAX)
}

/// Takes a number into a smaller type.
fn fits<T: TryFrom<u64> + Bounded>(value: u64, field: &mut T) -> Result<(), Rejected> {
    *field = T::try_from(value).map_err(|_| Rejected::Range(format!("0 to {}", T::LARGEST)))?;
    Ok(())
}

fn between<T: TryFrom<u64>>(value: u64, least: u64, most: u64, field: &mut T) -> Result<(), Rejected> {
    let allowed = || Rejected::Range(format!("{least} to {most}"));
    if value < least || value > most {
        return Err(allowed());
    }
    *field = T::try_from(value).map_err(|_| allowed())?;
    Ok(())
}

/// The largest number that a field can hold.
trait Bounded {
    const LARGEST: u64;
}

impl Bounded for u16 {
    const LARGEST: u64 = Self::MAX as u64;
}

impl Bounded for u32 {
    const LARGEST: u64 = Self::MAX as u64;
}

impl Bounded for usize {
    const LARGEST: u64 = Self::MAX as u64;
}

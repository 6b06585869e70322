//! Keys of the commands: how they reach a cluster, append and read.

use std::num::NonZeroU64;

use bifrost_types::limits::{BATCH_BYTES_MAX, NODESET_MAX};

use super::{between, number};
use crate::config::Config;
use crate::config::key::{Access, Key, KeyName};
use crate::config::value::Rejected;

pub(super) const KEYS: &[Key] = keys! {
    client.addresses Texts { |config| config.client.addresses.clone(), set_addresses }
    "Nodes of the cluster, HOST:PORT, tried in order. The default is where `bifrost dev` listens. BIFROST_ADDRESS \
     and --address say the same."

    client.timeout Time (client.timeout)
    "How long a command waits without any progress before it gives up. The default is longer than a failover. \
     --timeout says the same."

    client.call_deadline Time (client.options.call_deadline)
    "How long a single question to a sequencer may take before another way is tried. The default is far above a \
     healthy answer; it bounds how late a sequencer that vanished without a word is replaced."

    client.nodeset_max Count {
        |config| number(config.client.options.nodeset_max),
        |config, count| between(count, 1, number(NODESET_MAX), &mut config.client.options.nodeset_max)
    }
    "How many nodes a new segment is spread over at most, 1 to 128; fewer if there are fewer. The default is enough \
     for two failures with three copies, and few enough that each record's fan-out stays cheap."

    connection.connect_timeout Time (connection.connect_timeout)
    "Time to establish a connection. Longer than it takes to repeat a lost packet."

    connection.request_timeout Time (connection.request_timeout)
    "Time from a request to its answer, connecting included. A repair of the largest batch waits for its fsync on a \
     busy disk."

    connection.open_timeout Time (connection.open_timeout)
    "Time from the request for a stream until it is open, connecting included. Nothing is written for it, so it is \
     shorter than that of a request."

    connection.stream_window_bytes Bytes (connection.stream_window_bytes)
    "Bytes that a peer may send on one stream before they are taken. The default keeps 10 Gbit/s busy over 3 ms."

    connection.connection_window_bytes Bytes (connection.connection_window_bytes)
    "Bytes that a peer may send on one connection before they are taken. With the default, sixteen stalled streams \
     do not stop the others."

    connection.frame_bytes_max Bytes (connection.frame_bytes_max)
    "Largest HTTP/2 frame, in bytes, 16 KiB to 16 MiB. Large batches need fewer frames than with 16 KiB, and small \
     messages still get in between."

    connection.header_list_bytes_max Bytes (connection.header_list_bytes_max)
    "Largest list of HTTP/2 headers, in bytes. Ours are below 1 KiB."

    connection.message_bytes_max Bytes (connection.message_bytes_max)
    "Largest message in either direction, in bytes. The default takes the largest batch; more only wastes memory."

    connection.keepalive_interval Time (connection.keepalive_interval)
    "Time between pings, also on an idle connection. With it a healed link is used at once; without it a connection \
     that died in a partition is found by the first request that fails."

    connection.keepalive_timeout Time (connection.keepalive_timeout)
    "Time after which an unanswered ping closes the connection. Together with keepalive_interval it says how late a dead \
     peer is noticed."

    connection.tcp_user_timeout Time (connection.tcp_user_timeout)
    "Time that bytes may be on their way unacknowledged before a connection counts as broken. Without it a link that was cut \
     and is healed stays unused for as long again, because TCP repeats what was lost ever more rarely. Linux only."

    appender.bytes_in_flight_max Bytes {
        |config| number(config.appender.bytes_in_flight_max),
        |config, bytes| {
            between(bytes, number(BATCH_BYTES_MAX), u64::from(u32::MAX), &mut config.appender.bytes_in_flight_max)
        }
    }
    "Encoded bytes that wait or are in flight, at most; then input is not read on. At least one largest batch."

    appender.give_up_after Time (appender.give_up_after)
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
};

fn set_addresses(config: &mut Config, addresses: Vec<String>) -> Result<(), Rejected> {
    if addresses.iter().any(String::is_empty) || addresses.is_empty() {
        return Err(Rejected::Range("one HOST:PORT or more".to_owned()));
    }
    config.client.addresses = addresses;
    Ok(())
}

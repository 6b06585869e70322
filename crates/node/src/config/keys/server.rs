//! Keys of what peers and clients may take of a node.

use bifrost_types::limits::BATCH_BYTES_MAX;

use super::{MEMORY_MAX, between, number};
use crate::config::key::{Access, Key, KeyName};

pub(super) const KEYS: &[Key] = keys! {
    server.connections_max Count (server.connections_max)
    "Connections of the listener; one more is closed at once. A client process needs four to each node that it \
     talks to, a node three. Lower this first where memory is small."

    server.handshake_timeout Time (server.handshake_timeout)
    "Time from a connection to its first HTTP/2 frame. A client sends it with its first packet."

    server.streams_max Count (server.streams_max)
    "Requests and streams of the listener that may be open; one more is refused. Each costs some 10 KiB, and up to \
     64 KiB of a message that has not arrived as a whole."

    server.concurrent_streams_max Count (server.concurrent_streams_max)
    "RPCs that one connection may have open, streams included. An appender or reader holds one each; without a \
     limit one peer could take all memory."

    server.stream_window_bytes Bytes (server.stream_window_bytes)
    "Bytes that a client may send on one stream before the service takes them. 8 Gbit/s over a round trip of 1 ms."

    server.connection_window_bytes Bytes (server.connection_window_bytes)
    "Bytes that a client may send on one connection before the services take them. With the default, eight stalled \
     streams do not stop the others, and all connections together stay within memory."

    server.frame_bytes_max Bytes (server.frame_bytes_max)
    "Largest HTTP/2 frame that is accepted, in bytes, 16 KiB to 16 MiB. Large batches need fewer frames than with \
     16 KiB, and small messages still get in between."

    server.header_list_bytes_max Bytes (server.header_list_bytes_max)
    "Largest list of HTTP/2 headers, in bytes. Ours are below 1 KiB."

    server.message_bytes_max Bytes (server.message_bytes_max)
    "Largest message in either direction, in bytes. The default takes the largest batch; more only wastes memory."

    server.request_bytes_max Bytes (server.request_bytes_max)
    "Bytes of messages above 64 KiB that the listener receives at the same time; the next one waits. One connection \
     gets at most a quarter, so this is at least four of the largest messages."

    server.message_timeout Time (server.message_timeout)
    "Time from the beginning of a message above 64 KiB to its end. Its stream ends then, because others may wait \
     for its room."

    server.answer_bytes_max Bytes (server.answer_bytes_max)
    "Bytes of answers that the listener holds for peers that have not taken them; while they are used up nothing \
     more is read for whoever holds much. One connection gets at most a quarter."

    server.answer_stall_timeout Time (server.answer_stall_timeout)
    "Time that the bytes of answers may be used up before connections are closed that took nothing meanwhile. A \
     healthy peer takes something in each."

    server.pending_reset_streams_max Count (server.pending_reset_streams_max)
    "Streams that a client reset and that the server has not looked at yet; above it the connection is closed \
     (rapid reset attack)."

    server.local_error_resets_max Count (server.local_error_resets_max)
    "Streams that the server reset because of a client's errors; above it the connection is closed."

    server.keepalive_interval Time (server.keepalive_interval)
    "Time between pings on a connection without traffic: finds a peer that vanished without a word."

    server.keepalive_timeout Time (server.keepalive_timeout)
    "Time after which an unanswered ping closes the connection. Together with keepalive_interval it says how late a dead \
     peer is noticed."

    server.request_timeout Time (server.request_timeout)
    "Time from a request to its answer, or until a stream is open. Longer than any client of ours waits, so it only \
     frees what a client forgot."

    server.drain_timeout Time (server.drain_timeout)
    "Time that connections get to close when the server stops. Only what is already written has to go out; a client \
     that does not close must not delay a stop."

    gateway.open_logs_max Count (not_zero gateway.open_logs_max)
    "Logs that are kept open with an appender for requests that come alone; beyond it the one that was not used for \
     the longest time is closed."

    gateway.idle_after Time (gateway.idle_after)
    "Time after which an unused log is closed. A client that appends once a minute finds it open."

    gateway.append_streams_max Count (not_zero gateway.append_streams_max)
    "Append streams that are open at once. Each has an appender, and with it a stream to a sequencer."

    gateway.stream_batches_max Count (not_zero gateway.stream_batches_max)
    "Batches of one append stream that are sent and not answered; more wait at the client."

    gateway.reads_max Count (not_zero gateway.reads_max)
    "Reads that are open at once. One that takes nothing costs its credit and one response."

    gateway.read_credit_bytes Bytes (not_zero gateway.read_credit_bytes)
    "Bytes that one read has fetched ahead of its client. A few round trips of a fast network."

    gateway.append_bytes_max Bytes {
        |config| number(config.gateway.append_bytes_max),
        |config, bytes| between(bytes, number(BATCH_BYTES_MAX), MEMORY_MAX, &mut config.gateway.append_bytes_max)
    }
    "Bytes of batches that came alone and have no outcome yet; beyond it appends are refused as overloaded. At \
     least the largest batch."

    gateway.stream_bytes_max Bytes {
        |config| number(config.gateway.stream_bytes_max),
        |config, bytes| between(bytes, number(BATCH_BYTES_MAX), MEMORY_MAX, &mut config.gateway.stream_bytes_max)
    }
    "Bytes of batches of all streams that have no outcome yet; beyond it streams wait. At least the largest batch."

    gateway.give_up_after Time (gateway.give_up_after)
    "How long a log may go without progress before an append is given up as not appended or unknown. Longer than a \
     failover, and below request_deadline, so that an unknown append gets its id."

    gateway.request_deadline Time (gateway.request_deadline)
    "Longest time for one request. Below server.request_timeout, so that the answer says what happened."

    gateway.drain Time (gateway.drain)
    "Time that appends under way get to end when the node stops. A healthy one takes a few milliseconds."
};

//! The numbers of both sides. tonic's defaults bound neither streams nor waiting, and its windows are 64 KiB.

use std::sync::Arc;
use std::time::Duration;

use bifrost_types::ClusterId;
use bifrost_types::limits::MESSAGE_BYTES_MAX;
use thiserror::Error;

use super::network::Dial;

/// HTTP/2 window of one stream of a client: what the server may have under way before the caller takes anything.
/// 10 Gbit/s over a round trip of 3 ms.
const CLIENT_STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// HTTP/2 window of one connection of a client. Sixteen streams whose callers stand still do not stop the others.
const CLIENT_CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
/// The largest window that HTTP/2 can name.
const WINDOW_BYTES_MAX: u32 = (1 << 31) - 1;
/// More than any machine has, and far from overflow.
const MEMORY_BYTES_MAX: u64 = 1 << 48;
/// HTTP/2 frame sizes that the protocol allows.
const FRAME_BYTES: std::ops::RangeInclusive<u32> = (1 << 14)..=((1 << 24) - 1);

/// Limits that do not fit each other or HTTP/2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidLimits {
    /// A number or a time that must not be zero.
    #[error("{field} must not be zero")]
    Zero {
        /// The field.
        field: &'static str,
    },
    /// A number outside of what HTTP/2 or this protocol allows.
    #[error("{field} is {value}, allowed are {min} to {max}")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// What it is.
        value: u64,
        /// The smallest allowed number.
        min: u64,
        /// The largest allowed number.
        max: u64,
    },
}

/// Limits of a server, per connection unless said otherwise.
///
/// What a listener's peers can make it hold at most, with the defaults: 4 GiB of requests that no service has taken
/// (`connections_max` × `connection_window_bytes`, if every connection is hostile), 512 MiB of large messages that are
/// being received, 1 GiB of small ones (64 KiB for each of `streams_max`), and 256 MiB of answers. Where memory is smaller, lower
/// `connections_max` first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerLimits {
    /// Connections of the listener. Default 512: a client process needs four to each node that it talks to, a node three.
    /// One more is closed at once.
    pub connections_max: usize,
    /// Time from the connection to the HTTP/2 preface and the header of the first frame behind it. Default 5 s: a client
    /// sends both with its first packet. After that `keepalive_interval` and `keepalive_timeout` hold: a peer that sends
    /// a frame or a header block byte by byte cannot answer a ping in the middle of it.
    pub handshake_timeout: Duration,
    /// Requests and streams of the listener that may be open. Default 16,384: each costs some 10 KiB, and up to 64 KiB
    /// of a message that has not arrived as a whole. One more is refused.
    pub streams_max: usize,
    /// RPCs that one connection may have open, streams included. Default 4,096: an appender or reader holds one each,
    /// and a process with thousands of them is legal; without a limit one peer could take all memory.
    pub concurrent_streams_max: u32,
    /// Bytes that a client may send on one stream before the service takes them. Default 1 MiB: 8 Gbit/s over a round
    /// trip of 1 ms.
    pub stream_window_bytes: u32,
    /// Bytes that a client may send on one connection before the services take them. Default 8 MiB: eight stalled
    /// streams do not stop the others, and all connections together stay within memory.
    pub connection_window_bytes: u32,
    /// Largest HTTP/2 frame that is accepted, in bytes. Default 64 KiB: large batches need fewer frames than with 16 KiB,
    /// and small messages still get in between.
    pub frame_bytes_max: u32,
    /// Largest list of HTTP/2 headers, in bytes. Default 16 KiB: ours are below 1 KiB.
    pub header_list_bytes_max: u32,
    /// Largest message in either direction, in bytes. Default [`MESSAGE_BYTES_MAX`]; larger values only waste memory,
    /// because the codec refuses larger batches.
    pub message_bytes_max: usize,
    /// Bytes of messages above 64 KiB that the listener receives at the same time; the next one waits. Default 512 MiB:
    /// thirty of the largest. One connection gets at most a quarter, so this is at least four of the largest messages.
    pub request_bytes_max: usize,
    /// Time from the beginning of a message above 64 KiB to its end. Default 30 s: the largest one in 5 Mbit/s. Its stream
    /// ends then, because others may wait for its room.
    pub message_timeout: Duration,
    /// Bytes of answers that the listener holds for peers that have not taken them; while they are used up nothing more
    /// is read or encoded for whoever holds much. Default 256 MiB: hundreds of readers at full speed. One connection
    /// gets at most a quarter.
    pub answer_bytes_max: u64,
    /// Time that answers may be used up before connections are closed that took nothing meanwhile. Default 10 s: a
    /// healthy peer takes something in each.
    pub answer_stall_timeout: Duration,
    /// Streams that a client reset and that the server has not looked at yet. Default 64; above it the connection is
    /// closed (rapid reset attack).
    pub pending_reset_streams_max: usize,
    /// Streams that the server reset because of a client's errors. Default 1,024; above it the connection is closed.
    pub local_error_resets_max: usize,
    /// Time between pings on a connection without traffic. Default 5 s: finds a peer that vanished without a FIN.
    pub keepalive_interval: Duration,
    /// Time after which an unanswered ping closes the connection. Default 5 s. A socket that takes nothing for both
    /// times together is closed too: no ping would get through.
    pub keepalive_timeout: Duration,
    /// Time from the request to its answer, or to the response headers of a stream. Default 30 s: longer than any client
    /// of ours waits, so it only frees what a client forgot.
    pub request_timeout: Duration,
    /// Time that connections get to close after the shutdown token fired. Default 1 s: streams and requests end with the
    /// token, so only what is already written has to go out; a client that does not close must not delay a stop.
    pub drain_timeout: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections_max: 512,
            handshake_timeout: Duration::from_secs(5),
            streams_max: 16_384,
            concurrent_streams_max: 4096,
            stream_window_bytes: 1 << 20,
            connection_window_bytes: 8 << 20,
            frame_bytes_max: 64 << 10,
            header_list_bytes_max: 16 << 10,
            message_bytes_max: MESSAGE_BYTES_MAX,
            request_bytes_max: 512 << 20,
            message_timeout: Duration::from_secs(30),
            answer_bytes_max: 256 << 20,
            answer_stall_timeout: Duration::from_secs(10),
            pending_reset_streams_max: 64,
            local_error_resets_max: 1024,
            keepalive_interval: Duration::from_secs(5),
            keepalive_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(1),
        }
    }
}

impl ServerLimits {
    /// Checks the limits; call it where configuration is read.
    ///
    /// # Errors
    /// [`InvalidLimits`] names the first field that is wrong.
    pub fn validate(&self) -> Result<(), InvalidLimits> {
        not_zero("connections_max", self.connections_max == 0)?;
        not_zero("streams_max", self.streams_max == 0)?;
        not_zero("concurrent_streams_max", self.concurrent_streams_max == 0)?;
        not_zero("pending_reset_streams_max", self.pending_reset_streams_max == 0)?;
        not_zero("local_error_resets_max", self.local_error_resets_max == 0)?;
        not_zero("header_list_bytes_max", self.header_list_bytes_max == 0)?;
        not_zero("handshake_timeout", self.handshake_timeout.is_zero())?;
        not_zero("message_timeout", self.message_timeout.is_zero())?;
        not_zero("answer_stall_timeout", self.answer_stall_timeout.is_zero())?;
        not_zero("keepalive_interval", self.keepalive_interval.is_zero())?;
        not_zero("keepalive_timeout", self.keepalive_timeout.is_zero())?;
        not_zero("request_timeout", self.request_timeout.is_zero())?;
        http2(self.stream_window_bytes, self.connection_window_bytes, self.frame_bytes_max)?;
        message_size(self.message_bytes_max)?;
        // A quarter is what one connection gets, and the largest message has to fit into it.
        let least = (self.message_bytes_max as u64).saturating_mul(4);
        within("request_bytes_max", self.request_bytes_max as u64, least, MEMORY_BYTES_MAX)?;
        within("answer_bytes_max", self.answer_bytes_max, 1 << 20, MEMORY_BYTES_MAX)
    }
}

/// Options of a client: one connection to one peer, unless said otherwise.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// The cluster that the peer must belong to; another one refuses every request
    /// ([`RpcError::OtherCluster`](crate::RpcError::OtherCluster)). Default `None`: not known yet. Whoever connects to a
    /// cluster learns it from the metadata.
    pub cluster: Option<ClusterId>,
    /// Time to establish a connection. Default 2 s.
    pub connect_timeout: Duration,
    /// Time from a unary request to its answer, connecting included. Default 10 s: a repair of the largest batch waits
    /// for its fsync on a busy disk.
    pub request_timeout: Duration,
    /// Time from the request for a stream until it is open, connecting included. Default 5 s.
    pub open_timeout: Duration,
    /// Bytes that the peer may send on one stream before the caller takes them. Default 4 MiB.
    pub stream_window_bytes: u32,
    /// Bytes that the peer may send on one connection before the callers take them. Default 64 MiB: sixteen stalled
    /// streams do not stop the others.
    pub connection_window_bytes: u32,
    /// Largest HTTP/2 frame that is accepted, in bytes. Default 64 KiB.
    pub frame_bytes_max: u32,
    /// Largest list of HTTP/2 headers, in bytes. Default 16 KiB.
    pub header_list_bytes_max: u32,
    /// Largest message in either direction, in bytes. Default [`MESSAGE_BYTES_MAX`].
    pub message_bytes_max: usize,
    /// Time between pings, also on an idle connection. Default 5 s: with it a healed link is used at once, without it a
    /// connection that died in a partition is found by the first request that fails.
    pub keepalive_interval: Duration,
    /// Time after which an unanswered ping closes the connection. Default 5 s.
    pub keepalive_timeout: Duration,
    /// Time that bytes may be on their way without the peer's system acknowledging them; then the connection counts as broken
    /// and the next call makes another one. Default 2 s. TCP alone repeats a lost packet after twice the time of its last
    /// attempt, so that a link that was cut for some seconds and is healed stays unused for as long again. A process that is
    /// stopped is not meant: its system acknowledges. Linux only.
    pub tcp_user_timeout: Duration,
    /// Makes the connections. Default `None`: TCP.
    pub dial: Option<Arc<dyn Dial>>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            cluster: None,
            connect_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(10),
            open_timeout: Duration::from_secs(5),
            stream_window_bytes: CLIENT_STREAM_WINDOW_BYTES,
            connection_window_bytes: CLIENT_CONNECTION_WINDOW_BYTES,
            frame_bytes_max: 64 << 10,
            header_list_bytes_max: 16 << 10,
            message_bytes_max: MESSAGE_BYTES_MAX,
            keepalive_interval: Duration::from_secs(5),
            keepalive_timeout: Duration::from_secs(5),
            tcp_user_timeout: Duration::from_secs(2),
            dial: None,
        }
    }
}

impl ClientOptions {
    /// Checks the options; call it where configuration is read.
    ///
    /// # Errors
    /// [`InvalidLimits`] names the first field that is wrong.
    pub fn validate(&self) -> Result<(), InvalidLimits> {
        not_zero("connect_timeout", self.connect_timeout.is_zero())?;
        not_zero("request_timeout", self.request_timeout.is_zero())?;
        not_zero("open_timeout", self.open_timeout.is_zero())?;
        not_zero("header_list_bytes_max", self.header_list_bytes_max == 0)?;
        not_zero("keepalive_interval", self.keepalive_interval.is_zero())?;
        not_zero("keepalive_timeout", self.keepalive_timeout.is_zero())?;
        not_zero("tcp_user_timeout", self.tcp_user_timeout.is_zero())?;
        http2(self.stream_window_bytes, self.connection_window_bytes, self.frame_bytes_max)?;
        message_size(self.message_bytes_max)
    }
}

fn not_zero(field: &'static str, zero: bool) -> Result<(), InvalidLimits> {
    if zero { Err(InvalidLimits::Zero { field }) } else { Ok(()) }
}

fn within(field: &'static str, value: u64, min: u64, max: u64) -> Result<(), InvalidLimits> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(InvalidLimits::OutOfRange { field, value, min, max }) }
}

fn http2(stream: u32, connection: u32, frame: u32) -> Result<(), InvalidLimits> {
    within("frame_bytes_max", frame.into(), (*FRAME_BYTES.start()).into(), (*FRAME_BYTES.end()).into())?;
    within("stream_window_bytes", stream.into(), frame.into(), WINDOW_BYTES_MAX.into())?;
    within("connection_window_bytes", connection.into(), stream.into(), WINDOW_BYTES_MAX.into())
}

/// The largest legal message must pass, or a legal append could never be stored.
fn message_size(bytes: usize) -> Result<(), InvalidLimits> {
    within("message_bytes_max", bytes as u64, MESSAGE_BYTES_MAX as u64, u64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_contradictions_are_named() {
        assert_eq!(ServerLimits::default().validate(), Ok(()));
        assert_eq!(ClientOptions::default().validate(), Ok(()));
        let narrow = ServerLimits { connection_window_bytes: 1 << 19, ..ServerLimits::default() };
        assert!(matches!(narrow.validate(), Err(InvalidLimits::OutOfRange { field: "connection_window_bytes", .. })));
        let tight = ServerLimits { request_bytes_max: 64 << 20, ..ServerLimits::default() };
        assert!(matches!(tight.validate(), Err(InvalidLimits::OutOfRange { field: "request_bytes_max", .. })));
        let closed = ServerLimits { connections_max: 0, ..ServerLimits::default() };
        assert_eq!(closed.validate(), Err(InvalidLimits::Zero { field: "connections_max" }));
        let small = ClientOptions { message_bytes_max: 1 << 20, ..ClientOptions::default() };
        assert!(matches!(small.validate(), Err(InvalidLimits::OutOfRange { field: "message_bytes_max", .. })));
        let hasty = ClientOptions { open_timeout: Duration::ZERO, ..ClientOptions::default() };
        assert_eq!(hasty.validate(), Err(InvalidLimits::Zero { field: "open_timeout" }));
    }
}

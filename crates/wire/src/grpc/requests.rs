//! The body of a request, as far as memory goes: a large message takes room before more of it is received.
//!
//! The decoder behind this keeps what it has of a message until the rest arrives, outside of all HTTP/2 windows. So the
//! length in front of each message is read here too. A message above [`SMALL_BYTES`] waits, right behind its length, for
//! as much room as it declares, first within its connection and then within the listener; what was granted it keeps until
//! its last byte was passed on. A message that has room needs nothing else, so those that wait are not waited for by others, and
//! [`ServerLimits::message_timeout`](super::ServerLimits::message_timeout) ends one whose peer does not go on.
//! Waiting stops the peer by flow control; other streams go on.

#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_util::sync::PollSemaphore;
use tonic::Status;

/// A message up to this many bytes needs no room.
const SMALL_BYTES: u32 = 64 << 10;
/// gRPC puts a flag and a length in front of each message.
const PREFIX_BYTES: usize = 5;

/// Room for large messages.
#[derive(Debug, Clone)]
pub(super) struct RequestRoom {
    connection: PollSemaphore,
    listener: PollSemaphore,
    message_bytes_max: u32,
    message_timeout: Duration,
}

impl RequestRoom {
    /// `connection` and `listener` have a permit for each byte.
    pub(super) fn new(
        connection: Arc<Semaphore>,
        listener: Arc<Semaphore>,
        message_bytes_max: u32,
        message_timeout: Duration,
    ) -> Self {
        let (connection, listener) = (PollSemaphore::new(connection), PollSemaphore::new(listener));
        Self { connection, listener, message_bytes_max, message_timeout }
    }
}

/// Where the parser of message lengths stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// In front of a message; so many bytes of its prefix are known.
    Prefix { known: usize, prefix: [u8; PREFIX_BYTES] },
    /// Behind the prefix of a message that needs room.
    Door { bytes: u32 },
    /// In a message; so many bytes are to come. A large one has room.
    Inside { left: u32, large: bool },
}

impl At {
    const START: Self = Self::Prefix { known: 0, prefix: [0; PREFIX_BYTES] };

    /// Reads on in `data`; returns how much of it may be passed on. Stops early only at a door.
    fn advance(&mut self, data: &[u8], message_bytes_max: u32) -> usize {
        let mut passed = 0;
        while let Some(rest) = data.get(passed..).filter(|rest| !rest.is_empty()) {
            match self {
                Self::Prefix { known, prefix } => {
                    for (to, from) in prefix.iter_mut().skip(*known).zip(rest) {
                        *to = *from;
                        *known += 1;
                        passed += 1;
                    }
                    if *known == PREFIX_BYTES {
                        let [_, length @ ..] = *prefix;
                        let bytes = u32::from_be_bytes(length);
                        *self = match bytes {
                            0 => Self::START,
                            // The decoder refuses one over the limit by its length; it needs no room.
                            _ if bytes <= SMALL_BYTES || bytes > message_bytes_max => {
                                Self::Inside { left: bytes, large: false }
                            }
                            _ => Self::Door { bytes },
                        };
                    }
                }
                Self::Door { .. } => return passed,
                Self::Inside { left, .. } => {
                    let here = u32::try_from(rest.len()).unwrap_or(u32::MAX).min(*left);
                    passed += here as usize;
                    *left -= here;
                    if *left == 0 {
                        *self = Self::START;
                    }
                }
            }
        }
        passed
    }
}

/// The room of the message that is being received, and when it must be complete.
#[derive(Debug)]
struct Granted {
    _connection: OwnedSemaphorePermit,
    _listener: OwnedSemaphorePermit,
    deadline: Pin<Box<Sleep>>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct BoundedRequest<B> {
    body: B,
    room: RequestRoom,
    at: At,
    /// Received and not passed on: what follows a door.
    held_back: Bytes,
    /// The first half of the room, while the second is waited for.
    half: Option<OwnedSemaphorePermit>,
    granted: Option<Granted>,
}

impl<B> BoundedRequest<B> {
    pub(super) const fn new(body: B, room: RequestRoom) -> Self {
        Self { body, room, at: At::START, held_back: Bytes::new(), half: None, granted: None }
    }

    /// Takes the room of the message behind the door.
    fn poll_door(&mut self, bytes: u32, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        let stopped = || Status::unavailable("the listener is closed");
        if self.half.is_none() {
            let permit = ready!(self.room.connection.poll_acquire_many(cx, bytes)).ok_or_else(stopped)?;
            self.half = Some(permit);
        }
        let listener = ready!(self.room.listener.poll_acquire_many(cx, bytes)).ok_or_else(stopped)?;
        if let Some(connection) = self.half.take() {
            let deadline = Box::pin(tokio::time::sleep(self.room.message_timeout));
            self.granted = Some(Granted { _connection: connection, _listener: listener, deadline });
        }
        self.at = At::Inside { left: bytes, large: true };
        Poll::Ready(Ok(()))
    }
}

impl<B> Body for BoundedRequest<B>
where
    B: Body<Data = Bytes, Error = Status> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if let At::Door { bytes } = this.at {
            ready!(this.poll_door(bytes, cx))?;
        }
        let mut data = std::mem::take(&mut this.held_back);
        if data.is_empty() {
            match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(received) => data = received,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Poll::Ready(other) => return Poll::Ready(other),
                Poll::Pending => {
                    if let Some(granted) = &mut this.granted
                        && granted.deadline.as_mut().poll(cx).is_ready()
                    {
                        this.granted = None;
                        return Poll::Ready(Some(Err(Status::deadline_exceeded("a message did not arrive in time"))));
                    }
                    return Poll::Pending;
                }
            }
        }
        let passed = this.at.advance(&data, this.room.message_bytes_max);
        if !matches!(this.at, At::Inside { large: true, .. }) {
            this.granted = None;
        }
        let rest = data.split_off(passed);
        this.held_back = rest;
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        !self.held_back.has_remaining() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.held_back.is_empty() { self.body.size_hint() } else { SizeHint::default() }
    }
}

//! One accepted socket: it ends when its peer takes nothing from it, or when the listener wants its memory back.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::server::Connected;

use super::network::Socket;
use crate::account::Account;
use crate::metrics::{CloseReason, Metrics};

/// What requests of one connection share: found in the extensions of each.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) account: Arc<Account>,
    /// Room for its large messages.
    pub(super) requests: Arc<Semaphore>,
}

/// A place among the connections of a listener; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    metrics: Metrics,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    pub(super) fn new(metrics: Metrics, permit: OwnedSemaphorePermit) -> Self {
        metrics.connections.increment(1);
        Self { metrics, _permit: permit }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.connections.decrement(1);
    }
}

/// A socket whose peer has begun to speak HTTP/2.
///
/// HTTP/2 has its own way to end connections, but it has to write for that: a peer that takes nothing from the socket
/// would never be told. So the socket itself fails, for reading and writing.
#[derive(Debug)]
pub(super) struct Connection<S> {
    socket: S,
    /// Read from the socket already.
    greeting: Bytes,
    peer: Peer,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    stall_timeout: Duration,
    stall: Pin<Box<Sleep>>,
    /// The socket takes nothing; `stall` runs.
    stalled: bool,
    place: Place,
}

impl<S: Socket> Connection<S> {
    pub(super) fn new(socket: S, greeting: Bytes, peer: Peer, stall_timeout: Duration, place: Place) -> Self {
        let closing = Box::pin(peer.account.closing().clone().cancelled_owned());
        let stall = Box::pin(tokio::time::sleep(stall_timeout));
        Self { socket, greeting, peer, closing, stall_timeout, stall, stalled: false, place }
    }

    fn poll_closing(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.closing.as_mut().poll(cx).is_pending() {
            return Ok(());
        }
        // Whatever the kernel still holds for the peer goes too. If that fails it goes with the last retransmission.
        let _ = self.socket.set_zero_linger();
        Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the listener needs the memory of this connection"))
    }

    /// Judges an attempt to write.
    fn watch<T>(&mut self, wrote: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            self.stalled = false;
            return wrote;
        }
        if !self.stalled {
            self.stalled = true;
            self.stall.as_mut().reset(Instant::now() + self.stall_timeout);
        }
        if self.stall.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.stalled = false;
        self.place.metrics.closed(CloseReason::Stalled);
        let _ = self.socket.set_zero_linger();
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing from the socket")))
    }
}

impl<S: Socket> Connected for Connection<S> {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl<S: Socket> AsyncRead for Connection<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.poll_closing(cx)?;
        if this.greeting.is_empty() {
            return Pin::new(&mut this.socket).poll_read(cx, buf);
        }
        let bytes = this.greeting.len().min(buf.remaining());
        buf.put_slice(&this.greeting.split_to(bytes));
        Poll::Ready(Ok(()))
    }
}

impl<S: Socket> AsyncWrite for Connection<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.poll_closing(cx)?;
        let wrote = Pin::new(&mut this.socket).poll_write(cx, buf);
        this.watch(wrote, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.poll_closing(cx)?;
        let wrote = Pin::new(&mut this.socket).poll_write_vectored(cx, bufs);
        this.watch(wrote, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

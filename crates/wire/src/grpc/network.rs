//! The network as an argument: what a listener accepts and what a client dials. TCP, unless a test or the simulator
//! brings its own.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// One end of a connection: bytes in order, both ways. Dropping it closes the connection.
pub trait Socket: AsyncRead + AsyncWrite + Unpin + Send + fmt::Debug + 'static {
    /// Whether small writes go out at once, without waiting for more.
    ///
    /// # Errors
    /// When the socket has no such option. It works as well then, only slower.
    fn set_nodelay(&self, nodelay: bool) -> io::Result<()>;

    /// Whatever the peer has not received is thrown away when the socket is dropped.
    ///
    /// # Errors
    /// When the socket has no such option. What is left then goes with the last retransmission.
    fn set_zero_linger(&self) -> io::Result<()>;
}

impl Socket for TcpStream {
    fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        Self::set_nodelay(self, nodelay)
    }

    fn set_zero_linger(&self) -> io::Result<()> {
        Self::set_zero_linger(self)
    }
}

/// Where peers connect. Dropping it refuses those that come later.
pub trait Listener: Send + 'static {
    /// What it accepts.
    type Socket: Socket;

    /// Waits for the next peer.
    ///
    /// # Errors
    /// When there is no socket for it, or it went away again. The listener stays usable.
    ///
    /// # Cancel safety
    /// Safe: a peer is accepted by a later call.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Socket, SocketAddr)>> + Send;

    /// Where it listens: peers connect to this address.
    ///
    /// # Errors
    /// When the system does not say.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

impl Listener for TcpListener {
    type Socket = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        Self::accept(self).await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Self::local_addr(self)
    }
}

/// Makes connections of a client, in place of TCP.
pub trait Dial: Send + Sync + fmt::Debug {
    /// Connects to `port` of `host`: a name, or an IP address without brackets. The caller sets the deadline.
    fn dial(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Box<dyn Socket>>>;
}

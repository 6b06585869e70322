//! The simulated network as the product's listeners and clients see it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bifrost_wire::grpc::{Dial, Listener, Socket};
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

/// The port of every service.
pub const PORT: u16 = 7000;

/// A socket of the simulated network.
pub struct SimSocket(TcpStream);

impl fmt::Debug for SimSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SimSocket").field(&self.0.peer_addr().ok()).finish()
    }
}

impl AsyncRead for SimSocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl AsyncWrite for SimSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}

impl Socket for SimSocket {
    fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.0.set_nodelay(nodelay)
    }

    fn set_zero_linger(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A listener at [`PORT`] of the host that makes it.
pub struct SimListener {
    listener: TcpListener,
    address: SocketAddr,
}

impl SimListener {
    /// Listens on the host of this name, which must be the one that runs now.
    ///
    /// # Errors
    /// When something of this life of the host listens there already.
    pub async fn bind(host: &str) -> io::Result<Self> {
        let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
        Ok(Self { listener, address: SocketAddr::new(turmoil::lookup(host), PORT) })
    }
}

impl Listener for SimListener {
    type Socket = SimSocket;

    async fn accept(&mut self) -> io::Result<(SimSocket, SocketAddr)> {
        let (socket, peer) = self.listener.accept().await?;
        Ok((SimSocket(socket), peer))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// Dials through the simulated network.
#[derive(Debug, Clone, Copy)]
pub struct SimDial;

impl Dial for SimDial {
    fn dial(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Box<dyn Socket>>> {
        let host = host.to_owned();
        Box::pin(async move {
            let socket = TcpStream::connect((host.as_str(), port)).await?;
            Ok(Box::new(SimSocket(socket)) as Box<dyn Socket>)
        })
    }
}

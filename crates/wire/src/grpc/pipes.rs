//! A network of pipes within this process: no socket and no thread takes part, so a test may stop the clock.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc;

use super::network::{Dial, Listener, Socket};

/// Bytes that one end of a pipe may have written and the other not read.
const PIPE_BYTES: usize = 64 << 10;
/// Connections that wait to be accepted; one more is refused.
const BACKLOG: usize = 64;

type Bound = BTreeMap<SocketAddr, mpsc::Sender<DuplexStream>>;

/// The network. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Pipes {
    bound: Arc<Mutex<Bound>>,
}

/// Where dialled pipes arrive.
#[derive(Debug)]
pub struct PipeListener {
    address: SocketAddr,
    arriving: mpsc::Receiver<DuplexStream>,
}

impl Pipes {
    /// Listens at an address, in place of whoever did before.
    pub fn listen(&self, address: SocketAddr) -> PipeListener {
        let (arrived, arriving) = mpsc::channel(BACKLOG);
        self.bound.lock().insert(address, arrived);
        PipeListener { address, arriving }
    }
}

impl Socket for DuplexStream {
    fn set_nodelay(&self, _: bool) -> io::Result<()> {
        Ok(())
    }

    fn set_zero_linger(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Listener for PipeListener {
    type Socket = DuplexStream;

    async fn accept(&mut self) -> io::Result<(DuplexStream, SocketAddr)> {
        match self.arriving.recv().await {
            Some(pipe) => Ok((pipe, (Ipv4Addr::LOCALHOST, 1).into())),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl Dial for Pipes {
    fn dial(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Box<dyn Socket>>> {
        let connect = || {
            let host: IpAddr = host.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
            let bound = self.bound.lock();
            let listener = bound.get(&SocketAddr::new(host, port)).ok_or(io::ErrorKind::ConnectionRefused)?;
            let (near, far) = duplex(PIPE_BYTES);
            listener.try_send(far).map_err(|_| io::ErrorKind::ConnectionRefused)?;
            Ok(Box::new(near) as Box<dyn Socket>)
        };
        Box::pin(std::future::ready(connect()))
    }
}

//! A server and a client over something that is not TCP: pipes of this process.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::BoxFuture;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc;

use super::metadata::{Fake, value};
use super::*;
use crate::metadata::{MetadataError, MetadataStore};

const PIPE_BYTES: usize = 1 << 10;
const PORT: u16 = 7;

impl Socket for DuplexStream {
    fn set_nodelay(&self, _: bool) -> io::Result<()> {
        Ok(())
    }

    fn set_zero_linger(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Where dialled pipes arrive.
struct Pipes {
    arriving: mpsc::Receiver<DuplexStream>,
}

impl Listener for Pipes {
    type Socket = DuplexStream;

    async fn accept(&mut self) -> io::Result<(DuplexStream, SocketAddr)> {
        match self.arriving.recv().await {
            Some(pipe) => Ok((pipe, (Ipv4Addr::LOCALHOST, 1).into())),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok((Ipv4Addr::LOCALHOST, PORT).into())
    }
}

/// Makes pipes to one listener.
#[derive(Debug)]
struct DialPipes {
    host: &'static str,
    listener: mpsc::Sender<DuplexStream>,
    silent: AtomicBool,
}

impl Dial for DialPipes {
    fn dial(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Box<dyn Socket>>> {
        assert_eq!((host, port), (self.host, PORT));
        if self.silent.load(Ordering::Relaxed) {
            return Box::pin(std::future::pending());
        }
        let (near, far) = duplex(PIPE_BYTES);
        let arrived = self.listener.try_send(far);
        Box::pin(async move {
            arrived.map_err(|_| io::ErrorKind::ConnectionRefused)?;
            Ok(Box::new(near) as Box<dyn Socket>)
        })
    }
}

fn network(host: &'static str) -> (Pipes, Arc<DialPipes>) {
    let (listener, arriving) = mpsc::channel(4);
    (Pipes { arriving }, Arc::new(DialPipes { host, listener, silent: AtomicBool::new(false) }))
}

fn host_at(pipes: Pipes) -> Host {
    let (watchers, _) = mpsc::channel(1);
    let fake: Arc<dyn MetadataStore> = Arc::new(Fake { refusal: None, watchers });
    Host::start_at(pipes, |routes, limits, token| MetadataGrpc::new(fake, limits, token).add_to(routes))
}

fn options(dial: &Arc<DialPipes>) -> ClientOptions {
    ClientOptions { dial: Some(Arc::<DialPipes>::clone(dial)), ..ClientOptions::default() }
}

#[tokio::test]
async fn a_client_reaches_a_server_through_what_its_dial_makes() {
    for (address, name) in [("localhost:7", "localhost"), ("[::1]:7", "::1")] {
        let (pipes, dial) = network(name);
        let client = GrpcMetadata::connect_lazy(address, options(&dial)).expect("an address");
        let host = host_at(pipes);
        assert_eq!(soon(client.get("a".into())).await, Ok(Some(value(3))));
        assert_eq!(soon(client.get("z".into())).await, Ok(None));
        host.stop().await;
        assert_eq!(soon(client.get("a".into())).await, Err(MetadataError::Unknown), "the listener is gone");
    }
}

#[tokio::test]
async fn a_connection_that_broke_is_dialled_again() {
    let (mut pipes, dial) = network("localhost");
    let client = GrpcMetadata::connect_lazy("localhost:7", options(&dial)).expect("an address");
    let breaking = async {
        // The greeting may go through; the connection ends before its answer.
        drop(soon(pipes.arriving.recv()).await);
        pipes
    };
    let (failed, pipes) = tokio::join!(soon(client.get("a".into())), breaking);
    assert_eq!(failed, Err(MetadataError::Unknown));
    let host = host_at(pipes);
    assert_eq!(soon(client.get("a".into())).await, Ok(Some(value(3))));
    host.stop().await;
}

#[tokio::test]
async fn a_dial_that_never_connects_has_a_deadline() {
    let (_pipes, dial) = network("localhost");
    dial.silent.store(true, Ordering::Relaxed);
    let hasty = ClientOptions { connect_timeout: Duration::from_millis(20), ..options(&dial) };
    let client = GrpcMetadata::connect_lazy("localhost:7", hasty).expect("an address");
    assert_eq!(soon(client.get("a".into())).await, Err(MetadataError::Unknown));
}

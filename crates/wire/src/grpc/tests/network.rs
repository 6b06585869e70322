//! A server and a client over something that is not TCP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::metadata::{Fake, value};
use super::*;
use crate::grpc::pipes::{PipeListener, Pipes};
use crate::metadata::{MetadataError, MetadataStore};

fn host_at(listener: PipeListener) -> Host {
    let (watchers, _) = mpsc::channel(1);
    let fake: Arc<dyn MetadataStore> = Arc::new(Fake { refusal: None, watchers });
    Host::start_at(listener, |routes, limits, token| MetadataGrpc::new(fake, limits, token).add_to(routes))
}

fn client_of(address: SocketAddr, dial: impl Dial + 'static) -> GrpcMetadata {
    let options = ClientOptions { dial: Some(Arc::new(dial)), ..ClientOptions::default() };
    GrpcMetadata::connect_lazy(&address.to_string(), options).expect("an address")
}

#[tokio::test]
async fn a_client_reaches_a_server_through_what_its_dial_makes() {
    for address in [SocketAddr::from(([10, 0, 0, 1], 7)), SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 7))] {
        let pipes = Pipes::default();
        let client = client_of(address, pipes.clone());
        let host = host_at(pipes.listen(address));
        assert_eq!(soon(client.get("a".into())).await, Ok(Some(value(3))));
        assert_eq!(soon(client.get("z".into())).await, Ok(None));
        host.stop().await;
        assert_eq!(soon(client.get("a".into())).await, Err(MetadataError::Unknown), "the listener is gone");
    }
}

#[tokio::test]
async fn a_connection_that_broke_is_dialled_again() {
    let (pipes, address) = (Pipes::default(), SocketAddr::from(([10, 0, 0, 1], 7)));
    let client = client_of(address, pipes.clone());
    let mut listener = pipes.listen(address);
    let breaking = async {
        drop(soon(listener.accept()).await.expect("a pipe"));
        listener
    };
    let (failed, listener) = tokio::join!(soon(client.get("a".into())), breaking);
    assert_eq!(failed, Err(MetadataError::Unknown));
    let host = host_at(listener);
    assert_eq!(soon(client.get("a".into())).await, Ok(Some(value(3))));
    host.stop().await;
}

/// Whoever is dialled does not answer.
#[derive(Debug)]
struct Silence;

impl Dial for Silence {
    fn dial(&self, _: &str, _: u16) -> BoxFuture<'static, io::Result<Box<dyn Socket>>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn a_dial_that_never_connects_has_a_deadline() {
    let dial = Some(Arc::new(Silence) as Arc<dyn Dial>);
    let hasty = ClientOptions { connect_timeout: Duration::from_millis(20), dial, ..ClientOptions::default() };
    let client = GrpcMetadata::connect_lazy("10.0.0.1:7", hasty).expect("an address");
    assert_eq!(soon(client.get("a".into())).await, Err(MetadataError::Unknown));
}

//! A connection to one peer.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};

use super::limits::ClientOptions;
use super::network::{Dial, Socket};

/// A text that is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not an address of the form host:port")]
pub struct InvalidAddress;

/// A connection to `address` (`host:port`) that is established by the first call and again by the first call after it
/// broke. Cheap to clone; clones share the connection. Must be called inside a Tokio runtime.
///
/// # Errors
/// [`InvalidAddress`]. That nobody listens there is found by the first call.
pub fn connect_lazy(address: &str, options: &ClientOptions) -> Result<Channel, InvalidAddress> {
    let (host, port) = address.rsplit_once(':').ok_or(InvalidAddress)?;
    let port: u16 = port.parse().map_err(|_| InvalidAddress)?;
    if host.is_empty() || host.contains('/') {
        return Err(InvalidAddress);
    }
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|_| InvalidAddress)?;
    let endpoint = endpoint
        .connect_timeout(options.connect_timeout)
        .tcp_nodelay(true)
        .initial_stream_window_size(options.stream_window_bytes)
        .initial_connection_window_size(options.connection_window_bytes)
        .max_frame_size(options.frame_bytes_max)
        .http2_max_header_list_size(options.header_list_bytes_max)
        .http2_keep_alive_interval(options.keepalive_interval)
        .keep_alive_timeout(options.keepalive_timeout)
        .keep_alive_while_idle(true);
    let Some(dial) = &options.dial else { return Ok(endpoint.connect_with_connector_lazy(tcp(options))) };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned();
    Ok(endpoint.connect_with_connector_lazy(Dialer { dial: Arc::clone(dial), host, port }))
}

fn tcp(options: &ClientOptions) -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(options.connect_timeout));
    #[cfg(target_os = "linux")]
    tcp.set_tcp_user_timeout(Some(options.tcp_user_timeout));
    tcp
}

/// Dials one address, whenever the channel has no connection.
struct Dialer {
    dial: Arc<dyn Dial>,
    host: String,
    port: u16,
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<Box<dyn Socket>>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dialing = self.dial.dial(&self.host, self.port);
        Box::pin(async {
            let socket = dialing.await?;
            // As with TCP: requests are small and must not wait for more.
            let _ = socket.set_nodelay(true);
            Ok(TokioIo::new(socket))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_is_a_host_and_a_port() {
        let options = ClientOptions::default();
        for address in ["localhost:7000", "127.0.0.1:1", "[::1]:65535", "n1.example.org:80"] {
            assert!(connect_lazy(address, &options).is_ok(), "{address}");
        }
        for address in ["", "localhost", ":7000", "localhost:", "localhost:70000", "http://localhost:1", "a b:1"] {
            assert!(connect_lazy(address, &options).is_err(), "{address}");
        }
    }
}

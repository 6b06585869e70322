//! A connection to one peer.

use thiserror::Error;
use tonic::transport::{Channel, Endpoint};

use super::limits::ClientOptions;

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
    if host.is_empty() || host.contains('/') || port.parse::<u16>().is_err() {
        return Err(InvalidAddress);
    }
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|_| InvalidAddress)?;
    Ok(endpoint
        .connect_timeout(options.connect_timeout)
        .tcp_nodelay(true)
        .initial_stream_window_size(options.stream_window_bytes)
        .initial_connection_window_size(options.connection_window_bytes)
        .max_frame_size(options.frame_bytes_max)
        .http2_max_header_list_size(options.header_list_bytes_max)
        .http2_keep_alive_interval(options.keepalive_interval)
        .keep_alive_timeout(options.keepalive_timeout)
        .keep_alive_while_idle(true)
        .connect_lazy())
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

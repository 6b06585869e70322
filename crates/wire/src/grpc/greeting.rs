//! The first bytes of a connection, before HTTP/2 gets it: a peer that says nothing, or speaks something else, is sent
//! away here.

use std::io;

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// What every HTTP/2 client sends first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The preface, and the header of the first frame, which is SETTINGS.
const GREETING_BYTES: usize = PREFACE.len() + 9;
/// Most bytes of another protocol that are read and thrown away before the connection is closed.
const OTHER_BYTES_MAX: usize = 64 << 10;
/// To whoever speaks HTTP/1.
const OTHER_PROTOCOL: &[u8] = b"HTTP/1.1 505 HTTP Version Not Supported\r\n\
    content-type: text/plain\r\n\
    content-length: 55\r\n\
    connection: close\r\n\
    \r\n\
    This port speaks gRPC: HTTP/2 without TLS, no upgrade.\n";

/// How a connection began.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Greeting {
    /// With these bytes of HTTP/2.
    Http2(Bytes),
    /// With something else. A peer that speaks HTTP/1 was told so.
    Other,
}

/// Reads until it is known how the connection begins. Give it a deadline.
///
/// # Errors
/// When the peer goes away before.
pub(super) async fn greeting(socket: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<Greeting> {
    let mut begin = BytesMut::with_capacity(GREETING_BYTES);
    while begin.len() < GREETING_BYTES {
        let missing = GREETING_BYTES - begin.len();
        if socket.read_buf(&mut (&mut begin).limit(missing)).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let known = begin.len().min(PREFACE.len());
        if begin.get(..known) != PREFACE.get(..known) {
            if begin.first().is_some_and(u8::is_ascii_uppercase) {
                refuse(socket).await?;
            }
            return Ok(Greeting::Other);
        }
    }
    Ok(Greeting::Http2(begin.freeze()))
}

/// Answers, and takes what the peer still sends: closing with unread bytes would reset the answer away.
async fn refuse(socket: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    socket.write_all(OTHER_PROTOCOL).await?;
    socket.shutdown().await?;
    let mut rest = socket.take(OTHER_BYTES_MAX as u64);
    tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn begun_with(bytes: &[u8]) -> (io::Result<Greeting>, Vec<u8>) {
        let (mut client, mut server) = tokio::io::duplex(1 << 10);
        client.write_all(bytes).await.expect("room for all");
        client.shutdown().await.expect("a pipe");
        let greeting = greeting(&mut server).await;
        drop(server);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.expect("a pipe");
        (greeting, answer)
    }

    #[tokio::test]
    async fn http2_goes_on_with_its_first_bytes_and_everything_else_is_sent_away() {
        let http2 = [PREFACE, &[0; 20]].concat();
        let (greeting, answer) = begun_with(&http2).await;
        assert_eq!(greeting.unwrap(), Greeting::Http2(Bytes::copy_from_slice(&http2[..GREETING_BYTES])));
        assert!(answer.is_empty());

        let (greeting, answer) = begun_with(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert_eq!(greeting.unwrap(), Greeting::Other);
        assert_eq!(answer, OTHER_PROTOCOL);
        let body = OTHER_PROTOCOL.split(|byte| *byte == b'\r').next_back().unwrap();
        assert_eq!(body.len(), 1 + 55, "the content length is right");

        let (greeting, answer) = begun_with(&[0x16, 3, 1, 2, 0]).await;
        assert_eq!((greeting.unwrap(), answer), (Greeting::Other, Vec::new()), "TLS");
        assert_eq!(begun_with(b"PRI * HTT").await.0.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}

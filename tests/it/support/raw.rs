//! HTTP/2 by hand: what no gRPC client would do.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tonic::{Code, Status};

/// Long enough for a busy machine: only a broken test waits for it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits, but not for ever.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it should have happened long ago")
}

/// Asks again and again until it is so.
pub async fn until(mut so: impl FnMut() -> bool) {
    let asking = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(asking).await;
}

/// Bytes of memory that this process has in use.
pub fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a Linux machine");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("always there");
    line.split_whitespace().nth(1).expect("a number").parse::<u64>().expect("a number") << 10
}

/// A message as gRPC frames it.
pub fn framed(message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(5 + message.len());
    bytes.put_u8(0);
    bytes.put_u32(message.len() as u32);
    bytes.put_slice(message);
    bytes.freeze()
}

/// One HTTP/2 connection.
#[derive(Debug)]
pub struct RawConnection {
    send: SendRequest<Bytes>,
    driver: JoinHandle<Result<(), h2::Error>>,
}

/// One open request.
pub struct RawStream {
    pub response: ResponseFuture,
    pub body: SendStream<Bytes>,
}

/// How a call ended.
#[derive(Debug)]
pub struct RawAnswer {
    pub http: u16,
    /// `None` if there was no gRPC status at all.
    pub status: Option<Status>,
    /// Its first message.
    pub message: Option<Bytes>,
}

impl RawAnswer {
    pub fn code(&self) -> Option<Code> {
        self.status.as_ref().map(Status::code)
    }
}

impl RawConnection {
    pub async fn open(address: &str) -> Result<Self, h2::Error> {
        Self::open_with(address, &Builder::new()).await
    }

    pub async fn open_with(address: &str, builder: &Builder) -> Result<Self, h2::Error> {
        let socket = soon(TcpStream::connect(address)).await.map_err(|_| h2::Reason::CONNECT_ERROR)?;
        let (send, connection) = soon(builder.handshake(socket)).await?;
        Ok(Self { send, driver: tokio::spawn(connection) })
    }

    pub async fn stream(&mut self, path: &str, headers: &[(&str, &str)]) -> Result<RawStream, h2::Error> {
        let mut request = Request::post(format!("http://localhost{path}")).header("te", "trailers");
        if headers.iter().all(|(name, _)| *name != "content-type") {
            request = request.header("content-type", "application/grpc");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut send = soon(self.send.clone().ready()).await?;
        let (response, body) = send.send_request(request.body(()).expect("a legal request"), false)?;
        Ok(RawStream { response, body })
    }

    /// One request of these bytes, framed or not, and its answer.
    pub async fn call(&mut self, path: &str, headers: &[(&str, &str)], body: Bytes) -> Result<RawAnswer, h2::Error> {
        let mut stream = self.stream(path, headers).await?;
        // A server may answer before it has taken everything; what it says then is the answer.
        let _ = stream.body.send_data(body, true);
        answer(stream.response).await
    }

    pub fn is_open(&self) -> bool {
        !self.driver.is_finished()
    }
}

impl Drop for RawConnection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl RawStream {
    /// The status of a request that is over, or `None` for a stream that begins; it is reset then.
    pub async fn first(self) -> Result<Option<Code>, h2::Error> {
        let (head, mut body) = soon(self.response).await?.into_parts();
        if let Some(status) = Status::from_header_map(&head.headers) {
            return Ok(Some(status.code()));
        }
        if soon(body.data()).await.transpose()?.is_some() {
            return Ok(None);
        }
        let trailers = soon(body.trailers()).await?.unwrap_or_else(HeaderMap::new);
        Ok(Status::from_header_map(&trailers).map(|status| status.code()))
    }
}

/// Takes a whole answer.
pub async fn answer(response: ResponseFuture) -> Result<RawAnswer, h2::Error> {
    let (head, mut body) = soon(response).await?.into_parts();
    let http = head.status.as_u16();
    if let Some(status) = Status::from_header_map(&head.headers) {
        return Ok(RawAnswer { http, status: Some(status), message: None });
    }
    let mut bytes = BytesMut::new();
    while let Some(data) = soon(body.data()).await {
        bytes.extend_from_slice(&take(&mut body, data?)?);
    }
    let trailers = soon(body.trailers()).await?.unwrap_or_else(HeaderMap::new);
    let message = (bytes.remaining() >= 5).then(|| {
        bytes.advance(1);
        let length = bytes.get_u32() as usize;
        bytes.split_to(length.min(bytes.len())).freeze()
    });
    Ok(RawAnswer { http, status: Status::from_header_map(&trailers), message })
}

fn take(body: &mut RecvStream, data: Bytes) -> Result<Bytes, h2::Error> {
    body.flow_control().release_capacity(data.len())?;
    Ok(data)
}

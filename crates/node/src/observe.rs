//! What a process tells monitoring: `/metrics` for Prometheus, `/livez` and `/readyz` for orchestrators, as plain HTTP on a
//! port of its own, so that nobody who scrapes takes a place at the node's listener.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

/// Connections at the same time; one more is closed at once.
const CONNECTIONS_MAX: usize = 16;
/// For the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// For a connection as a whole: whoever scrapes connects again.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of the head of a request.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// How often histograms take in what was recorded: until then each sample is kept.
const UPKEEP: Duration = Duration::from_secs(5);
/// After a failure to accept, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Upper bounds of histograms of times: from an fsync on a fast disk to a deadline.
const SECONDS: [f64; 14] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];
/// Upper bounds of all others: bytes and counts.
const SIZES: [f64; 12] =
    [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 16_777_216.0];

const PROMETHEUS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// The metrics of this process.
#[derive(Clone)]
pub(crate) struct Observed {
    metrics: PrometheusHandle,
    /// Whether the node serves.
    serves: watch::Receiver<bool>,
}

impl Observed {
    /// Takes note of all metrics of this process from now on. Call it once, before any part of the process starts.
    ///
    /// # Errors
    /// [`BuildError`] when something else takes note of them already.
    pub(crate) fn install(serves: watch::Receiver<bool>) -> Result<Self, BuildError> {
        let builder = PrometheusBuilder::new().set_buckets(&SIZES)?;
        let builder = builder.set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?;
        Ok(Self { metrics: builder.install_recorder()?, serves })
    }

    /// Answers at this listener until `stop` fires.
    ///
    /// # Cancel safety
    /// Safe: connections end with it.
    pub(crate) async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let tasks = TaskTracker::new();
        let mut upkeep = interval(UPKEEP);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = upkeep.tick() => self.metrics.run_upkeep(),
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
                        let (observed, stop) = (self.clone(), stop.clone());
                        tasks.spawn(async move {
                            let _stopped = stop.run_until_cancelled(observed.converse(stream)).await;
                            drop(place);
                        });
                    }
                    Err(error) => {
                        debug!(%error, "no connection for metrics was accepted");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        tasks.close();
        tasks.wait().await;
    }

    async fn converse(&self, stream: TcpStream) {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_BYTES_MAX);
        let answer = service_fn(|request| ready(Ok::<_, Infallible>(self.answer(&request))));
        let connection = http.serve_connection(TokioIo::new(stream), answer);
        if let Ok(Err(error)) = timeout(CONNECTION_TIMEOUT, connection).await {
            debug!(%error, "a connection for metrics ended");
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let (status, kind, text) = match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, PROMETHEUS, self.metrics.render()),
            (&Method::GET | &Method::HEAD, "/livez") => (StatusCode::OK, TEXT, "ok\n".to_owned()),
            (&Method::GET | &Method::HEAD, "/readyz") => match *self.serves.borrow() {
                true => (StatusCode::OK, TEXT, "ok\n".to_owned()),
                false => (StatusCode::SERVICE_UNAVAILABLE, TEXT, "the node starts or stops\n".to_owned()),
            },
            (_, "/metrics" | "/livez" | "/readyz") => {
                (StatusCode::METHOD_NOT_ALLOWED, TEXT, "ask with GET\n".to_owned())
            }
            _ => (StatusCode::NOT_FOUND, TEXT, "there are /metrics, /livez and /readyz\n".to_owned()),
        };
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, kind);
        if status == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        response
    }
}

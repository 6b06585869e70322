//! The two halves of a stream at the server: what the client sends goes into the service's channel, what the service
//! answers goes to the client. Either half ends the other.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tonic::{Status, Streaming};

use crate::codec::DecodeError;
use crate::grpc::status::{malformed, stopped};

/// Items of one stream that still go out after the shutdown token fired, if they are ready: a service that always has one
/// must not keep the server from stopping.
const LAST_WORDS: u32 = 256;

/// The first message of a client.
pub(super) async fn opening<M>(requests: &mut Streaming<M>) -> Result<M, Status> {
    let missing = || malformed(DecodeError::Missing { field: "the opening of the stream" });
    requests.message().await?.ok_or_else(missing)
}

/// The life of one stream: ends with the server, or with [`Replies`].
#[derive(Debug)]
pub(super) struct Life {
    shutdown: CancellationToken,
    stream: CancellationToken,
}

impl Life {
    pub(super) fn under(shutdown: &CancellationToken) -> Self {
        Self { shutdown: shutdown.clone(), stream: shutdown.child_token() }
    }

    /// Moves what the client sends to the service, in order, one message at a time: a service that does not take it stops
    /// the client by HTTP/2 flow control. Ends when the client is done or gone, the service closed its half, or this life is
    /// over. The returned channel speaks only if the client sent what cannot be understood.
    pub(super) fn receive<M, T, I>(
        &self,
        mut requests: Streaming<M>,
        service: mpsc::Sender<T>,
        decode: fn(M) -> Result<I, DecodeError>,
    ) -> oneshot::Receiver<Status>
    where
        M: Send + 'static,
        T: Send + 'static,
        I: IntoIterator<Item = T, IntoIter: Send> + Send + 'static,
    {
        let (failure, failed) = oneshot::channel();
        let stream = self.stream.clone();
        let pump = async move {
            loop {
                let message = tokio::select! {
                    biased;
                    () = service.closed() => return,
                    message = requests.message() => message,
                };
                let message = match message {
                    Ok(Some(message)) => message,
                    Ok(None) => return,
                    Err(status) => {
                        // Over a limit, late, or not protobuf. Or the client is gone: then nobody listens, and the service
                        // learns it from its closed channels.
                        let _ = failure.send(status);
                        return;
                    }
                };
                match decode(message) {
                    Ok(items) => {
                        for item in items {
                            if service.send(item).await.is_err() {
                                return;
                            }
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a stream was ended because its client sent what cannot be understood");
                        // Nobody listens if the stream is over anyway.
                        let _ = failure.send(malformed(error));
                        return;
                    }
                }
            }
        };
        #[expect(clippy::disallowed_methods, reason = "the task owns nothing but the stream and ends with it")]
        tokio::spawn(async move { stream.run_until_cancelled(pump).await });
        failed
    }

    /// What the service answers, as the body of the response. `failed` comes from [`Life::receive`], if the client sends.
    pub(super) fn replies<S>(self, items: S, failed: Option<oneshot::Receiver<Status>>) -> Replies<S> {
        Replies {
            items,
            failed,
            shutdown: Box::pin(self.shutdown.cancelled_owned()),
            last_words: LAST_WORDS,
            ended: false,
            _receiving: self.stream.drop_guard(),
        }
    }
}

/// The body of a streamed response. tonic drops it when the client is gone; with it goes the service's half.
#[derive(Debug)]
pub(crate) struct Replies<S> {
    items: S,
    failed: Option<oneshot::Receiver<Status>>,
    shutdown: Pin<Box<WaitForCancellationFutureOwned>>,
    /// How many items may still follow the shutdown.
    last_words: u32,
    ended: bool,
    /// Ends the receiving half also while it waits for a service that does not take anything.
    _receiving: DropGuard,
}

impl<S, M> Stream for Replies<S>
where
    S: Stream<Item = Result<M, Status>> + Unpin,
{
    type Item = Result<M, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        if let Some(failed) = &mut this.failed
            && let Poll::Ready(failure) = Pin::new(failed).poll(cx)
        {
            this.failed = None;
            if let Ok(status) = failure {
                this.ended = true;
                return Poll::Ready(Some(Err(status)));
            }
        }
        let stopping = this.last_words == 0 || this.shutdown.as_mut().poll(cx).is_ready();
        // What the service has said already goes out before the end: it may be an outcome, or why there is none.
        if this.last_words > 0 {
            let item = Pin::new(&mut this.items).poll_next(cx);
            if let Poll::Ready(item) = item {
                this.last_words -= u32::from(stopping);
                this.ended = !matches!(item, Some(Ok(_)));
                return Poll::Ready(item);
            }
        }
        if stopping {
            this.ended = true;
            return Poll::Ready(Some(Err(stopped())));
        }
        Poll::Pending
    }
}

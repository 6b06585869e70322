//! A log server behind a network that loses, repeats and delays.

use bifrost_wire::RpcError;
use bifrost_wire::log_server::{
    CallError, CopyState, LogServer, ReadRequest, ReadStream, RepairRequest, SealRequest, SettleRequest, StateRequest,
    StoreReply, StoreRequest, StoreStream, TrimRequest,
};
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::{Duration, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::call::{Failures, Line, Repeat};
use super::connect::Services;
use super::{Route, spawn};

/// Messages of a stream that wait on the way.
const QUEUED: usize = 1024;
/// How long a store that came late waits for its answer before its stream ends.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

const UNREACHABLE: Failures<CallError> =
    Failures { refused: CallError::Rpc(RpcError::Unreachable), lost: CallError::Rpc(RpcError::Unreachable) };

/// Made by [`FaultyConnect`](super::FaultyConnect).
#[derive(Debug)]
pub struct FaultyLogServer {
    route: Route,
    services: Services,
}

impl FaultyLogServer {
    pub(super) const fn new(route: Route, services: Services) -> Self {
        Self { route, services }
    }
}

/// A unary call: its name, whether it may be repeated, and the method.
macro_rules! unary {
    ($self:ident, $repeat:ident, $method:ident, $request:ident) => {{
        let services = $self.services.clone();
        let execute = move |line: Line| -> BoxFuture<'static, Result<CopyState, CallError>> {
            let (services, request) = (services.get(line), Clone::clone(&$request));
            Box::pin(async move {
                let services = services.ok_or(RpcError::Unreachable)?;
                services.log_server.$method(request).await
            })
        };
        Box::pin($self.route.call(stringify!($method), Repeat::$repeat, UNREACHABLE, execute))
    }};
}

impl LogServer for FaultyLogServer {
    fn open_store(&self) -> BoxFuture<'_, Result<StoreStream, RpcError>> {
        Box::pin(async move {
            let failures = Failures { refused: RpcError::Unreachable, lost: RpcError::Unreachable };
            let services = self.services.clone();
            let execute = move |line| open_store(services.clone(), line);
            let StoreStream { requests: out, replies: back } =
                self.route.call("open-store", Repeat::Reads, failures, execute).await?;
            let (requests, queued) = mpsc::channel(QUEUED);
            let (caller, replies) = mpsc::channel(QUEUED);
            let cut = CancellationToken::new();
            let sender = StoreSender { route: self.route.clone(), services: self.services.clone(), out };
            let sending = cut.clone();
            spawn(async move {
                let _ended = sending.run_until_cancelled_owned(sender.run(queued)).await;
            });
            spawn(pass_replies(self.route.clone(), back, caller, cut));
            Ok(StoreStream { requests, replies })
        })
    }

    fn seal(&self, request: SealRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        unary!(self, Idempotent, seal, request)
    }

    fn state(&self, request: StateRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        unary!(self, Reads, state, request)
    }

    fn repair(&self, request: RepairRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        unary!(self, Idempotent, repair, request)
    }

    fn settle(&self, request: SettleRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        unary!(self, Idempotent, settle, request)
    }

    fn trim(&self, request: TrimRequest) -> BoxFuture<'_, Result<CopyState, CallError>> {
        unary!(self, Idempotent, trim, request)
    }

    fn read(&self, request: ReadRequest) -> BoxFuture<'_, Result<ReadStream, CallError>> {
        Box::pin(async move {
            let services = self.services.clone();
            let execute = move |line| -> BoxFuture<'static, Result<ReadStream, CallError>> {
                let services = services.get(line);
                Box::pin(async move {
                    let services = services.ok_or(RpcError::Unreachable)?;
                    services.log_server.read(request).await
                })
            };
            let ReadStream { grants, replies: mut back } =
                self.route.call("read", Repeat::Reads, UNREACHABLE, execute).await?;
            let (caller, replies) = mpsc::channel(QUEUED);
            let route = self.route.clone();
            spawn(async move {
                while let Some(part) = next(back.recv(), &caller).await {
                    let part = if route.loses_reply("read") { Err(UNREACHABLE.lost) } else { part };
                    let ends = part.is_err();
                    if caller.send(part).await.is_err() || ends {
                        return;
                    }
                }
            });
            Ok(ReadStream { grants, replies })
        })
    }
}

fn open_store(services: Services, line: Line) -> BoxFuture<'static, Result<StoreStream, RpcError>> {
    Box::pin(async move {
        let services = services.get(line).ok_or(RpcError::Unreachable)?;
        services.log_server.open_store().await
    })
}

/// What comes next, unless the caller is gone.
pub(super) async fn next<T>(item: impl Future<Output = Option<T>>, caller: &mpsc::Sender<T>) -> Option<T> {
    tokio::select! {
        biased;
        () = caller.closed() => None,
        item = item => item,
    }
}

/// Passes answers on until one gets lost. Ends the other half as well.
async fn pass_replies(
    route: Route,
    mut back: mpsc::Receiver<StoreReply>,
    caller: mpsc::Sender<StoreReply>,
    cut: CancellationToken,
) {
    let _cut = cut.drop_guard();
    while let Some(reply) = next(back.recv(), &caller).await {
        if route.loses_reply("store") || caller.send(reply).await.is_err() {
            return;
        }
    }
}

/// The request half of a store stream.
struct StoreSender {
    route: Route,
    services: Services,
    out: mpsc::Sender<StoreRequest>,
}

impl StoreSender {
    async fn run(self, mut queued: mpsc::Receiver<StoreRequest>) {
        while let Some(request) = queued.recv().await {
            let fate = self.route.draw();
            if let Some(delay) = fate.delay {
                sleep(delay).await;
            }
            // One without batches is not answered, and says only how far the committed tail was.
            if let (Some(after), false) = (fate.late, request.batches.is_empty()) {
                self.send_late(after, request.clone());
            }
            let twice = fate.duplicate.is_some().then(|| request.clone());
            if self.out.send(request).await.is_err() {
                return;
            }
            if let Some(request) = twice {
                self.route.note("store", format_args!("sent twice, at {} {}", request.loglet, request.first_offset));
                if self.out.send(request).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Sends a copy on a stream of its own: whatever opened the present one may be gone by then.
    fn send_late(&self, after: Duration, request: StoreRequest) {
        let (route, services) = (self.route.clone(), self.services.clone());
        let (loglet, first_offset) = (request.loglet, request.first_offset);
        self.route.note("store", format_args!("at {loglet} {first_offset} sent again {after:?} later"));
        self.route.detach(async move {
            sleep(after).await;
            let Ok(mut stream) = open_store(services, Line::Fresh).await else { return };
            route.note("store", format_args!("at {loglet} {first_offset} arrives, sent {after:?} ago"));
            if stream.requests.send(request).await.is_ok() {
                // What it is answered tells nobody anything.
                let _answer = timeout(ANSWER_DEADLINE, stream.replies.recv()).await;
            }
        });
    }
}

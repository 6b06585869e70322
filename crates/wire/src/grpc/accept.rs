//! The door of a listener: accepts sockets up to a limit, and hands those on that begin to speak HTTP/2.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::connection::{Connection, Peer, Place};
use super::greeting::{Greeting, greeting};
use super::limits::ServerLimits;
use super::network::{Listener, Socket};
use crate::account::Answers;
use crate::metrics::{CloseReason, Metrics};

/// Connections that began to speak and that the server has not taken.
pub(super) const ACCEPTED_QUEUED: usize = 16;
/// Pause after the system gave no socket: it has no file descriptors or memory left, and asking at once only costs time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Refusals are logged together, this often at most.
const REPORT_PAUSE: Duration = Duration::from_secs(1);

/// What every connection needs.
pub(super) struct Door<S> {
    pub(super) limits: Arc<ServerLimits>,
    pub(super) answers: Arc<Answers>,
    pub(super) accepted: mpsc::Sender<io::Result<Connection<S>>>,
    pub(super) metrics: Metrics,
    pub(super) stop: CancellationToken,
}

impl<S> Clone for Door<S> {
    fn clone(&self) -> Self {
        Self {
            limits: Arc::clone(&self.limits),
            answers: Arc::clone(&self.answers),
            accepted: self.accepted.clone(),
            metrics: self.metrics.clone(),
            stop: self.stop.clone(),
        }
    }
}

impl<S> fmt::Debug for Door<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl<S: Socket> Door<S> {
    /// Accepts until the token fires; then the listener is closed.
    pub(super) async fn run(self, mut listener: impl Listener<Socket = S>) {
        let places = Arc::new(Semaphore::new(self.limits.connections_max));
        let greeting = TaskTracker::new();
        let mut turned_away = 0_u64;
        let mut report = interval(REPORT_PAUSE);
        report.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                _ = report.tick(), if turned_away > 0 => {
                    warn!(turned_away, connections_max = self.limits.connections_max, "too many connections");
                    turned_away = 0;
                }
                accepted = listener.accept() => match accepted {
                    Ok((socket, address)) => match Arc::clone(&places).try_acquire_owned() {
                        Ok(permit) => drop(greeting.spawn(self.clone().greet(socket, address, permit))),
                        Err(_) => {
                            self.metrics.closed(CloseReason::TooMany);
                            turned_away += 1;
                        }
                    },
                    Err(error) if is_of_one_connection(&error) => {}
                    Err(error) => {
                        warn!(%error, "no connection can be accepted");
                        tokio::select! {
                            biased;
                            () = self.stop.cancelled() => return,
                            () = sleep(ACCEPT_PAUSE) => {}
                        }
                    }
                },
            }
        }
    }

    /// Waits for the peer's first words and hands the connection on, or closes it.
    async fn greet(self, mut socket: S, address: SocketAddr, permit: OwnedSemaphorePermit) {
        let place = Place::new(self.metrics.clone(), permit);
        // Answers are small and must not wait for more; a socket without the option works as well, only slower.
        let _ = socket.set_nodelay(true);
        let heard = tokio::select! {
            biased;
            () = self.stop.cancelled() => return,
            heard = timeout(self.limits.handshake_timeout, greeting(&mut socket)) => heard,
        };
        let begin = match heard {
            Ok(Ok(Greeting::Http2(begin))) => begin,
            Ok(Ok(Greeting::Other)) => {
                self.metrics.closed(CloseReason::OtherProtocol);
                debug!(%address, "a connection does not speak HTTP/2");
                return;
            }
            Ok(Err(error)) => {
                debug!(%address, %error, "a connection ended before it spoke");
                return;
            }
            Err(_) => {
                self.metrics.closed(CloseReason::Silent);
                debug!(%address, "a connection said nothing in time");
                return;
            }
        };
        let peer = Peer {
            account: self.answers.open(address),
            requests: Arc::new(Semaphore::new(self.limits.request_bytes_max / 4)),
        };
        let stall_timeout = self.limits.keepalive_interval + self.limits.keepalive_timeout;
        let connection = Connection::new(socket, begin, peer, stall_timeout, place);
        // Nobody takes it if the server ended meanwhile.
        let _ = self.accepted.send(Ok(connection)).await;
    }
}

/// Whether only the connection that was to be accepted is concerned.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, WouldBlock};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted | WouldBlock)
}

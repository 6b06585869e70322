//! A small TCP proxy in front of each listener of a node, with faults for each directed pair: who asks, and whom. It stands
//! in the node's own network, so that links are cut as without it, and sees by the address who asks.
//!
//! ```text
//!  node 1, clients ══► proxy at node 0's advertised address ──► node 0's listener
//!                 ◄══ late, or lost with its connection ◄──
//! ```
//! A reply is lost as a network loses it: the request was carried out, and the connection breaks before the answer is out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::net::Namespace;

/// What is read at once of a connection.
const PIECE_BYTES: usize = 64 << 10;

/// What happens to the answers of a node to one that asks.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Fault {
    /// Each piece of them is so late.
    pub delay: Duration,
    /// So many of a thousand pieces are lost, each with its connection.
    pub lost_permille: u32,
}

#[derive(Debug)]
struct Rules {
    faults: BTreeMap<IpAddr, Fault>,
    /// Ports where nothing arrives and from where nothing comes.
    closed: BTreeSet<u16>,
    random: StdRng,
    lost: u64,
}

/// The proxies of one node.
#[derive(Debug)]
pub struct Proxy {
    rules: Arc<Mutex<Rules>>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens in that network at the first port of each pair, and leads to the second one.
    pub fn start(namespace: &Namespace, ip: Ipv4Addr, ports: &[(u16, u16)], seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        let rules = Arc::new(Mutex::new(Rules { faults: BTreeMap::new(), closed: BTreeSet::new(), random, lost: 0 }));
        let stop = CancellationToken::new();
        let (listening, listens) = sync_channel(1);
        let serve = {
            let (rules, stop, ports) = (Arc::clone(&rules), stop.clone(), ports.to_vec());
            move || {
                let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
                runtime.block_on(async {
                    for (from, to) in ports {
                        let listener = TcpListener::bind((ip, from)).await.expect("nobody listens there");
                        tokio::spawn(accept(listener, from, SocketAddr::from((ip, to)), Arc::clone(&rules)));
                    }
                    listening.send(()).expect("somebody waits");
                    stop.cancelled().await;
                });
                runtime.shutdown_background();
            }
        };
        let thread = namespace.spawn(serve);
        listens.recv().expect("it listens");
        Self { rules, stop, thread: Some(thread) }
    }

    /// From now on its answers to that one have this fault.
    pub fn set(&self, asking: Ipv4Addr, fault: Fault) {
        self.rules.lock().faults.insert(asking.into(), fault);
    }

    /// From now on nobody gets anything through this port, and connections there break.
    pub fn close(&self, port: u16) {
        self.rules.lock().closed.insert(port);
    }

    /// No faults any more. Tells how many pieces were lost so far.
    pub fn heal(&self) -> u64 {
        let mut rules = self.rules.lock();
        rules.faults.clear();
        rules.closed.clear();
        rules.lost
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, port: u16, to: SocketAddr, rules: Arc<Mutex<Rules>>) {
    while let Ok((near, asking)) = listener.accept().await {
        let rules = Arc::clone(&rules);
        tokio::spawn(async move {
            if is_closed(&rules, port) {
                return;
            }
            // Nobody listens there: the one who asks sees a connection that ends.
            let Ok(far) = TcpStream::connect(to).await else { return };
            let _small_writes = (near.set_nodelay(true), far.set_nodelay(true));
            let ((requests, answered), (answers, asked)) = (near.into_split(), far.into_split());
            tokio::select! {
                biased;
                () = carry(answers, answered, || fault(&rules, port, asking.ip())) => {}
                () = carry(requests, asked, || (!is_closed(&rules, port)).then_some(Duration::ZERO)) => {}
            }
        });
    }
}

fn is_closed(rules: &Mutex<Rules>, port: u16) -> bool {
    rules.lock().closed.contains(&port)
}

/// The delay of the next piece, or `None` if it is lost.
fn fault(rules: &Mutex<Rules>, port: u16, asking: IpAddr) -> Option<Duration> {
    let mut rules = rules.lock();
    if rules.closed.contains(&port) {
        return None;
    }
    let Fault { delay, lost_permille } = rules.faults.get(&asking).copied().unwrap_or_default();
    if lost_permille > 0 && rules.random.random_range(0..1000) < lost_permille {
        rules.lost += 1;
        return None;
    }
    Some(delay)
}

/// Carries what comes on, piece by piece, until either side ends or a piece is lost.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, fault: impl Fn() -> Option<Duration>) {
    let mut piece = vec![0; PIECE_BYTES];
    while let Ok(bytes @ 1..) = from.read(&mut piece).await {
        let Some(delay) = fault() else { return };
        if !delay.is_zero() {
            sleep(delay).await;
        }
        if to.write_all(&piece[..bytes]).await.is_err() {
            return;
        }
    }
}

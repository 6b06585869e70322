//! What a network does to calls that TCP cannot show: replies that get lost after the request was carried out, requests
//! that arrive twice, or so late that their target has restarted and their sender has given up.
//!
//! ```text
//!  caller ─► FaultyLogServer, FaultySequencers, FaultyNode, FaultyMetadata ─► client ═══ simulated network ═══► service
//!                │ asks for each call
//!             Faults: rates of each directed pair of hosts, set while the run goes on
//! ```
//!
//! A stream of stores or appends is one HTTP/2 stream: its messages are never lost, repeated or reordered alone. So a lost
//! reply ends its stream, and a late store arrives on a stream of its own. One store may be sent twice in a row.
//!
//! Reading order: this file (the rates), `call` (what becomes of a unary call), `connect`, `log_server`, `sequencers`,
//! `node`, `metadata` (each a service's trait), `judged` (answers of metadata), `observed` (metadata that is one keyspace, and
//! loses its leadership), `peers` (messages of the members of a group).

mod call;
mod connect;
mod judged;
mod log_server;
mod metadata;
mod node;
mod observed;
mod peers;
mod sequencers;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::Semaphore;

use self::call::Fate;
pub use self::connect::FaultyConnect;
pub use self::judged::Judged;
pub use self::log_server::FaultyLogServer;
pub use self::metadata::FaultyMetadata;
pub use self::node::FaultyNode;
pub use self::observed::ObservedMetadata;
pub use self::peers::{FaultyPeers, Votes};
pub use self::sequencers::FaultySequencers;
use crate::history::History;

/// Requests that are on their way after their call ended, at most; more are not made.
const DETACHED_MAX: usize = 1024;

/// How long requests of a stream stall on a connection that loses replies.
const STALL_MAX: Duration = Duration::from_millis(500);

/// How often what happens between two hosts, in a hundred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rates {
    /// The request does not arrive, and the caller is told that it cannot.
    pub refuse: u8,
    /// The request waits before it is sent.
    pub delay: u8,
    /// At most this long.
    pub delay_max: Duration,
    /// The request is carried out and its reply gets lost. A stream ends with the reply that it lost.
    pub lose_reply: u8,
    /// The request is carried out twice, the second time at once or after up to `delay_max`.
    pub duplicate: u8,
    /// The request is carried out after up to `late_max`, on a connection that is made then. Of some of them that is the only
    /// time; of the others it is the second one.
    pub late: u8,
    /// At most this much later.
    pub late_max: Duration,
}

/// What goes wrong between which hosts. Clones share the table.
#[derive(Clone)]
pub struct Faults {
    table: Arc<Mutex<Table>>,
    history: History,
    detached: Arc<Semaphore>,
}

struct Table {
    rng: SmallRng,
    rates: BTreeMap<(String, String), Rates>,
    calls: u64,
    /// Calls at which their hosts die.
    ambushes: Vec<Ambush>,
}

/// A host dies at one of its calls.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ambush {
    number: u64,
    host: String,
    call: &'static str,
    /// Calls of this kind that pass before.
    after: u32,
    /// Whether the call is carried out.
    executed: bool,
    struck: bool,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").field("rates", &self.table.lock().rates).finish_non_exhaustive()
    }
}

impl Faults {
    /// Nothing goes wrong yet. Everything random comes from `seed`.
    pub fn new(seed: u64, history: History) -> Self {
        let table =
            Table { rng: SmallRng::seed_from_u64(seed), rates: BTreeMap::new(), calls: 0, ambushes: Vec::new() };
        Self { table: Arc::new(Mutex::new(table)), history, detached: Arc::new(Semaphore::new(DETACHED_MAX)) }
    }

    /// Calls of `from` to `to` fare like this from now on. Hosts are named as nodes are in their records.
    pub fn set(&self, from: &str, to: &str, rates: Rates) {
        self.table.lock().rates.insert((from.to_owned(), to.to_owned()), rates);
    }

    /// The rates of calls of `from` to `to`.
    pub fn rates(&self, from: &str, to: &str) -> Rates {
        let table = self.table.lock();
        table.rates.get(&(from.to_owned(), to.to_owned())).copied().unwrap_or_default()
    }

    /// Nothing goes wrong from now on. What is late arrives all the same.
    pub fn clear(&self) {
        self.table.lock().rates.clear();
    }

    /// The host `host` dies at its next call of this kind, after so many others. Whoever drives the faults asks
    /// [`struck`](Self::struck), takes it down, and ends it by [`disarm`](Self::disarm).
    pub fn ambush(&self, number: u64, host: &str, call: &'static str, (after, executed): (u32, bool)) {
        let ambush = Ambush { number, host: host.to_owned(), call, after, executed, struck: false };
        self.table.lock().ambushes.push(ambush);
    }

    /// Whether the host of this ambush is to be taken down.
    pub fn struck(&self, number: u64) -> bool {
        self.table.lock().ambushes.iter().any(|ambush| ambush.number == number && ambush.struck)
    }

    /// Ends an ambush, whether it struck or not.
    pub fn disarm(&self, number: u64) {
        self.table.lock().ambushes.retain(|ambush| ambush.number != number);
    }

    /// How many calls to services were made so far; a stream counts when it is opened.
    pub fn calls(&self) -> u64 {
        self.table.lock().calls
    }

    /// The way of calls of `from` to `to`.
    pub(crate) fn route(&self, from: &str, to: &str) -> Route {
        Route { faults: self.clone(), from: from.to_owned(), to: to.to_owned(), counted: true }
    }
}

/// The way of the calls of one host to another one.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    faults: Faults,
    from: String,
    to: String,
    counted: bool,
}

impl Route {
    /// A way of calls that go on for ever, also in an idle cluster: [`Faults::calls`] leaves them out.
    pub(crate) fn uncounted(self) -> Self {
        Self { counted: false, ..self }
    }

    fn note(&self, call: &str, what: fmt::Arguments<'_>) {
        self.faults.history.note(format!("{call} of {} to {}: {what}", self.from, self.to));
    }

    /// What becomes of the next call.
    fn draw(&self) -> Fate {
        let rates = self.faults.rates(&self.from, &self.to);
        let mut table = self.faults.table.lock();
        table.calls += u64::from(self.counted);
        let rng = &mut table.rng;
        Fate {
            refuse: happens(rng, rates.refuse),
            delay: happens(rng, rates.delay).then(|| up_to(rng, rates.delay_max)),
            lose_reply: happens(rng, rates.lose_reply),
            duplicate: happens(rng, rates.duplicate).then(|| {
                let at_once = rng.random_bool(0.5);
                if at_once { Duration::ZERO } else { up_to(rng, rates.delay_max) }
            }),
            late: happens(rng, rates.late).then(|| up_to(rng, rates.late_max)),
            coin: rates != Rates::default() && rng.random_bool(0.5),
        }
    }

    /// Whether the caller dies at this call, and whether the call is carried out before.
    fn strikes(&self, call: &str) -> Option<bool> {
        let mut table = self.faults.table.lock();
        let waiting = |ambush: &&mut Ambush| !ambush.struck && ambush.host == self.from && ambush.call == call;
        let ambush = table.ambushes.iter_mut().find(waiting)?;
        if ambush.after > 0 {
            ambush.after -= 1;
            return None;
        }
        ambush.struck = true;
        Some(ambush.executed)
    }

    /// How long the next request of a stream waits on its way, and all that follow it. What a broken connection still
    /// carries may arrive after its sender has opened another one.
    fn stalls(&self) -> Option<Duration> {
        let rates = self.faults.rates(&self.from, &self.to);
        let rng = &mut self.faults.table.lock().rng;
        let late = happens(rng, rates.late).then(|| up_to(rng, rates.late_max));
        late.or_else(|| happens(rng, rates.lose_reply).then(|| up_to(rng, STALL_MAX)))
    }

    /// Whether the next reply of a stream gets lost, and the stream with it.
    fn loses_reply(&self, stream: &str) -> bool {
        let rates = self.faults.rates(&self.from, &self.to);
        let lost = happens(&mut self.faults.table.lock().rng, rates.lose_reply);
        if lost {
            self.note(stream, format_args!("a reply is lost, the stream ends"));
        }
        lost
    }

    /// Runs what goes on after its call ended. It ends with the host that it runs on.
    fn detach(&self, work: impl Future<Output = ()> + Send + 'static) {
        let Ok(permit) = Arc::clone(&self.faults.detached).try_acquire_owned() else { return };
        spawn(async move {
            work.await;
            drop(permit);
        });
    }
}

fn happens(rng: &mut SmallRng, percent: u8) -> bool {
    percent > 0 && rng.random_range(0..100) < percent
}

fn up_to(rng: &mut SmallRng, most: Duration) -> Duration {
    if most.is_zero() { most } else { rng.random_range(Duration::ZERO..=most) }
}

#[expect(clippy::disallowed_methods, reason = "stands for messages on their way; ends with the simulated host")]
fn spawn(work: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(work);
}

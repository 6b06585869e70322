//! Memory of answers: what one listener holds for peers that have not taken it, counted to the byte and bounded.
//!
//! Every answer that leaves a service is counted with the account of its connection from the moment that it exists until
//! its last byte went to the socket or was given up. Three gates use the count, and each is asked before anything is made:
//!
//! ```text
//!  gate                                  who asks it                         passes while
//!  listener   answer_bytes_max           every stream                        all accounts hold less than three quarters
//!  fair part  a quarter of it, evenly    streams of small accounts           this one holds less than its part, all less than the bound
//!  connection a quarter of it            every stream                        this one holds less
//! ```
//!
//! What a service made ready for a stream is counted, and leaves memory only as that stream's answer: taking it makes nothing,
//! so it passes without room. Otherwise streams with something ready, enough of them to use up all room, would wait for each
//! other for ever.
//!
//! So peers that take nothing are stopped by the first and the third gate, and a peer that does take its answers goes on
//! through the second one, however many others stand still. What is counted never exceeds the bound by more than what is
//! being made at that moment: one message for each worker thread of the runtime, and one chunk for each read turn of the
//! log server.
//!
//! The count is right whatever the HTTP/2 library does with the bytes, because it hangs on their lifetime: an answer is
//! handed out as a [`Bytes`] whose owner gives the count back when it is dropped, be that after a write to the socket, a
//! reset of the stream or the end of the connection.
//!
//! Waiting peers alone cannot free memory. So when all gates have been shut for a whole interval, [`Answers::look`] names
//! the accounts whose connections must end: those that took nothing at all, else the one that holds most.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio_util::sync::CancellationToken;

/// The sum of all accounts of one listener, and its bound.
#[derive(Debug)]
pub(crate) struct Answers {
    /// Hard bound, in bytes.
    bytes_max: u64,
    /// Below this every account may hold more; from here on only those below their fair part.
    common: u64,
    /// What each account may hold while others have used up the common part.
    fair_part: u64,
    held: AtomicU64,
    accounts: Mutex<Accounts>,
}

#[derive(Debug, Default)]
struct Accounts {
    next: u64,
    open: BTreeMap<u64, Weak<Account>>,
    /// The common part was used up at the last look.
    full: bool,
}

/// What one connection holds.
#[derive(Debug)]
pub(crate) struct Account {
    number: u64,
    peer: SocketAddr,
    answers: Arc<Answers>,
    held: AtomicU64,
    /// Bytes given back since the last look.
    taken: AtomicU64,
    freed: Arc<Notify>,
    closing: CancellationToken,
}

impl Answers {
    /// Nothing is held; at most `connections_max` accounts will be open at once.
    pub(crate) fn new(bytes_max: u64, connections_max: usize) -> Arc<Self> {
        let common = bytes_max - bytes_max / 4;
        let fair_part = ((bytes_max - common) / (connections_max.max(1) as u64)).max(1);
        Arc::new(Self { bytes_max, common, fair_part, held: AtomicU64::new(0), accounts: Mutex::default() })
    }

    /// The account of a new connection.
    pub(crate) fn open(self: &Arc<Self>, peer: SocketAddr) -> Arc<Account> {
        let mut accounts = self.accounts.lock();
        let number = accounts.next;
        accounts.next += 1;
        let account = Arc::new(Account {
            number,
            peer,
            answers: Arc::clone(self),
            held: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            freed: Arc::default(),
            closing: CancellationToken::new(),
        });
        accounts.open.insert(number, Arc::downgrade(&account));
        account
    }

    /// Bytes that all accounts hold.
    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Ends connections if peers have held on to memory that others wait for since the last look; call it at intervals.
    /// Returns how many were told to end, and what they held.
    pub(crate) fn look(&self) -> Vec<(SocketAddr, u64)> {
        let full = self.held() >= self.common;
        let was_full = std::mem::replace(&mut self.accounts.lock().full, full);
        let open = self.all();
        // Reset with each look, so that it counts what was taken since the one before.
        let looked: Vec<_> =
            open.into_iter().map(|account| (account.taken.swap(0, Ordering::Relaxed), account)).collect();
        if !full || !was_full {
            return Vec::new();
        }
        let stays = |account: &Account| account.held() > 0 && !account.closing.is_cancelled();
        let holding = || looked.iter().filter(|(_, account)| stays(account));
        let mut ended: Vec<_> = holding().filter(|(taken, _)| *taken == 0).collect();
        if ended.is_empty() {
            // Everybody takes something. Whoever turns over less than it holds keeps the others waiting longest.
            let slow = holding().filter(|(taken, account)| *taken < account.held());
            ended.extend(slow.max_by_key(|(_, account)| account.held()));
        }
        ended
            .into_iter()
            .map(|(_, account)| {
                account.closing.cancel();
                (account.peer, account.held())
            })
            .collect()
    }

    fn all(&self) -> Vec<Arc<Account>> {
        self.accounts.lock().open.values().filter_map(Weak::upgrade).collect()
    }
}

impl Account {
    /// Bytes that this connection holds.
    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Fires when the connection must end because of what it holds.
    pub(crate) const fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// Whether one more answer may be made: the three gates.
    pub(crate) fn has_room(&self) -> bool {
        let (all, own) = (self.answers.held(), self.held());
        let small = own < self.answers.fair_part && all < self.answers.bytes_max;
        own < self.answers.bytes_max / 4 && (all < self.answers.common || small)
    }

    /// Becomes ready when there may be room again. Check [`has_room`](Self::has_room) after this was made, not before.
    pub(crate) fn freed(&self) -> OwnedNotified {
        Arc::clone(&self.freed).notified_owned()
    }

    /// Wakes one more of those who wait for room, if there is any. Whoever was woken calls this, so that one release does
    /// not wake thousands at once.
    pub(crate) fn pass_on(&self) {
        if self.has_room() {
            self.freed.notify_one();
        }
    }

    /// Counts bytes for as long as what is returned lives.
    pub(crate) fn hold(self: &Arc<Self>, bytes: u64) -> Held {
        self.add(bytes);
        Held { account: Arc::clone(self), bytes }
    }

    /// The same bytes, counted until the last slice of them is dropped.
    pub(crate) fn hold_bytes(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        let held = self.hold(bytes.len() as u64);
        Bytes::from_owner(HeldBytes { bytes, _held: held })
    }

    fn add(&self, bytes: u64) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
        self.answers.held.fetch_add(bytes, Ordering::Relaxed);
    }

    fn give_back(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        let before = self.answers.held.fetch_sub(bytes, Ordering::Relaxed);
        self.pass_on();
        // Others waited for the common part only: they need to know once, when it opens.
        let opened = |bound| before >= bound && before - bytes < bound;
        if opened(self.answers.common) || opened(self.answers.bytes_max) {
            for account in self.answers.all() {
                account.pass_on();
            }
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.answers.accounts.lock().open.remove(&self.number);
    }
}

/// Bytes that are counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    account: Arc<Account>,
    bytes: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.account.give_back(self.bytes);
    }
}

struct HeldBytes {
    bytes: Bytes,
    _held: Held,
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// What a service has ready for one stream and its peer has not taken: counted with the account of the connection, so
/// that a service that works ahead of a peer stops when the memory for answers is used up. The service says what it
/// [puts](Self::put) into its channel, the adapter takes it out. Cheap to clone; what was put and not taken is given back
/// with the last clone.
#[derive(Clone, Default)]
pub struct Ahead {
    counted: Option<Arc<Counted>>,
}

struct Counted {
    account: Arc<Account>,
    bytes: AtomicU64,
    /// The answer that takes it.
    taker: AtomicWaker,
}

impl Ahead {
    /// For a caller in the same process, whose own limits bound what it asks for.
    pub const fn uncounted() -> Self {
        Self { counted: None }
    }

    /// For one stream of a connection.
    pub(crate) fn of(account: &Arc<Account>) -> Self {
        let counted = Counted { account: Arc::clone(account), bytes: AtomicU64::new(0), taker: AtomicWaker::new() };
        Self { counted: Some(Arc::new(counted)) }
    }

    /// Whether more may be made ready now.
    pub fn has_room(&self) -> bool {
        self.counted.as_ref().is_none_or(|counted| counted.account.has_room())
    }

    /// Waits until more may be made ready. Another stream may be faster: check [`has_room`](Self::has_room) again after
    /// anything else was waited for.
    ///
    /// # Cancel safety
    /// Safe: nothing is taken.
    pub async fn room(&self) {
        let Some(counted) = &self.counted else { return };
        loop {
            let freed = counted.account.freed();
            if counted.account.has_room() {
                counted.account.pass_on();
                return;
            }
            freed.await;
        }
    }

    /// Counts bytes that were made ready.
    pub fn put(&self, bytes: u64) {
        if let Some(counted) = &self.counted {
            counted.account.add(bytes);
            counted.bytes.fetch_add(bytes, Ordering::Relaxed);
            counted.taker.wake();
        }
    }

    /// Becomes ready while there is something that was put and not taken. For one task at a time.
    pub(crate) fn poll_ready(&self, cx: &Context<'_>) -> Poll<()> {
        let Some(counted) = &self.counted else { return Poll::Pending };
        counted.taker.register(cx.waker());
        if counted.bytes.load(Ordering::Relaxed) > 0 { Poll::Ready(()) } else { Poll::Pending }
    }

    /// They were taken, and are counted by whoever has them now. What a service did not count is not given back: one that
    /// only passes reads on puts nothing.
    pub(crate) fn took(&self, bytes: u64) {
        if let Some(counted) = &self.counted {
            let less = |put: u64| Some(put.saturating_sub(bytes));
            let put = match counted.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less) {
                Ok(put) | Err(put) => put,
            };
            counted.account.give_back(put.min(bytes));
        }
    }
}

impl fmt::Debug for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.counted.as_ref().map(|counted| counted.bytes.load(Ordering::Relaxed));
        f.debug_struct("Ahead").field("bytes", &bytes).finish()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let left = *self.bytes.get_mut();
        if left > 0 {
            self.account.give_back(left);
        }
    }
}

//! How fast the next file is made: along with what goes into the one before it.
//!
//! The disk is shared with the groups. Zeros for a whole file at once hold up each fsync for as long as that takes; in small
//! pieces, as many as the groups need, they are not noticed.

use std::io;

use parking_lot::{Condvar, Mutex};

/// What the maker of a file waits for. Held by the thread that makes it and by the one that appends.
#[derive(Debug, Default)]
pub struct Pace {
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes of the file that may be there by now.
    allowed: u64,
    /// The maker waits until so many are allowed.
    awaited: Option<u64>,
    given_up: bool,
}

impl Pace {
    /// As fast as it can be.
    pub fn unlimited() -> Self {
        let pace = Self::default();
        pace.allow(u64::MAX);
        pace
    }

    /// Blocks until a file of `bytes` may be there.
    ///
    /// # Errors
    /// [`io::ErrorKind::Interrupted`] when nobody needs it any more.
    pub fn wait(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        while state.allowed < bytes && !state.given_up {
            state.awaited = Some(bytes);
            self.moved.wait(&mut state);
        }
        state.awaited = None;
        if state.given_up { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }

    /// A new file: nothing of it is allowed yet.
    pub(crate) fn begin(&self) {
        self.state.lock().allowed = 0;
    }

    /// So many bytes of it may be there.
    pub(crate) fn allow(&self, bytes: u64) {
        let mut state = self.state.lock();
        state.allowed = bytes;
        if state.awaited.is_some_and(|awaited| awaited <= bytes) {
            self.moved.notify_one();
        }
    }

    /// Nobody needs the file.
    pub(crate) fn give_up(&self) {
        self.state.lock().given_up = true;
        self.moved.notify_one();
    }
}

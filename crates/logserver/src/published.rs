//! The durable state of every copy, for whoever reads or asks. The writer publishes, nobody else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bifrost_types::{LogletId, LogletOffset};
use bifrost_wire::log_server::CopyState;
use bifrost_wire::node::DiskSpace;
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::copy::CopyCore;
use crate::space::Fullness;

/// What is shown of a loglet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shown {
    /// To anybody.
    pub(crate) state: CopyState,
    /// Within this process: see [`CopyCore::whole_tail`].
    pub(crate) whole_tail: LogletOffset,
}

impl From<&CopyCore> for Shown {
    fn from(core: &CopyCore) -> Self {
        Self { state: core.state(), whole_tail: core.whole_tail() }
    }
}

/// One value to watch per loglet. A loglet that only readers know has one for as long as they look.
#[derive(Debug, Default)]
pub(crate) struct Published {
    /// How full the disk is.
    pub(crate) fullness: watch::Sender<Fullness>,
    /// The same in numbers, as of the last look.
    pub(crate) space: watch::Sender<Option<DiskSpace>>,
    /// Loglets that the writer has a promise about.
    pub(crate) promised: AtomicU64,
    /// Bytes of batches that became durable.
    pub(crate) stored_bytes: AtomicU64,
    loglets: RwLock<BTreeMap<LogletId, Arc<watch::Sender<Shown>>>>,
}

impl Published {
    /// Where the writer publishes a loglet's state.
    pub(crate) fn sender(&self, loglet: LogletId) -> Arc<watch::Sender<Shown>> {
        Arc::clone(self.loglets.write().entry(loglet).or_insert_with(|| Arc::new(watch::Sender::new(empty()))))
    }

    /// The state now; empty for an unknown loglet, which is not created.
    pub(crate) fn state(&self, loglet: LogletId) -> CopyState {
        self.shown(loglet).state
    }

    /// The same, and what is shown within this process only.
    pub(crate) fn shown(&self, loglet: LogletId) -> Shown {
        self.loglets.read().get(&loglet).map_or_else(empty, |sender| *sender.borrow())
    }

    /// Follows a loglet, known or not. [`forget`](Self::forget) must follow when the receiver was dropped.
    pub(crate) fn watch(&self, loglet: LogletId) -> watch::Receiver<Shown> {
        self.loglets.write().entry(loglet).or_insert_with(|| Arc::new(watch::Sender::new(empty()))).subscribe()
    }

    /// Gives back the place of a loglet that neither the writer nor a reader holds.
    pub(crate) fn forget(&self, loglet: LogletId) {
        let mut loglets = self.loglets.write();
        let unused = |sender: &Arc<watch::Sender<Shown>>| Arc::strong_count(sender) == 1 && sender.is_closed();
        if loglets.get(&loglet).is_some_and(unused) {
            loglets.remove(&loglet);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.loglets.read().len()
    }
}

fn empty() -> Shown {
    Shown::from(&CopyCore::default())
}

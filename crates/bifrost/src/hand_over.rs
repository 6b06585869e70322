//! A node that stops in good order hands its sequencers over first: it closes the open segments that it sequences, and
//! others open the next ones elsewhere. Appenders meet the seal and go on; nobody waits for a detector.
//!
//! It is bounded in time, and nothing depends on its end: what is left is found by the detector, by whoever appends, or by
//! a controller. A node that is alone keeps what it has.

use std::num::NonZeroUsize;
use std::time::Duration;

use bifrost_types::{Actor, CloseReason, LogId, LogletId, NodeGeneration};
use futures_util::stream::{self, StreamExt};
use thiserror::Error;
use tokio::time::timeout;
use tracing::{debug, info};

use crate::catalog::CatalogError;
use crate::controller::core::LogView;
use crate::handle::Bifrost;
use crate::reconfigure::ReconfigureError;

/// For a look at what there is to hand over, and at who could take it. A cluster that stops as a whole has neither.
const LOOK_DEADLINE: Duration = Duration::from_secs(2);

/// How a node hands over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandOverOptions {
    /// How long a stop may be held up. Default 10 s: some thousand logs.
    pub deadline: Duration,
    /// Logs at once. Default 64.
    pub at_once: NonZeroUsize,
}

impl Default for HandOverOptions {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(10), at_once: const { NonZeroUsize::new(64).expect("not 0") } }
    }
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HandedOver {
    /// Segments that were closed.
    pub closed: usize,
    /// Segments that could not be, or not in time.
    pub left: usize,
}

/// Why one segment was not handed over.
#[derive(Debug, Error)]
enum NotClosed {
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Reconfigure(#[from] ReconfigureError),
}

impl Bifrost {
    /// Closes the open segments that `me` sequences, each with a successor elsewhere. `me` should not be chosen for new ones
    /// any more.
    ///
    /// # Cancel safety
    /// Safe: what was begun is finished by whoever comes next (C4).
    pub async fn hand_over(&self, me: NodeGeneration, options: &HandOverOptions) -> HandedOver {
        let mut done = HandedOver::default();
        let handing = async {
            // What was opened here while the first ones were closed comes in the next round.
            loop {
                let own = match timeout(LOOK_DEADLINE, self.sequenced_by(me)).await {
                    Ok(Ok(own)) if own.is_empty() || !self.others_stay(me).await => break,
                    Ok(Ok(own)) => own,
                    Ok(Err(error)) => {
                        debug!(%error, "what there is to hand over cannot be read");
                        break;
                    }
                    Err(_) => break,
                };
                done.left = own.len();
                let closing = own.into_iter().map(|loglet| self.hand_one_over(loglet, me));
                let mut closing = stream::iter(closing).buffer_unordered(options.at_once.get());
                let mut failed = 0_usize;
                while let Some(closed) = closing.next().await {
                    if closed {
                        done.closed += 1;
                        done.left -= 1;
                    } else {
                        failed += 1;
                    }
                }
                if failed > 0 {
                    break;
                }
            }
        };
        let _late = timeout(options.deadline, handing).await;
        if done != HandedOver::default() {
            info!(node = %me, closed = done.closed, left = done.left, "sequencers were handed over");
        }
        done
    }

    async fn sequenced_by(&self, me: NodeGeneration) -> Result<Vec<LogletId>, CatalogError> {
        let mut own = Vec::new();
        let visit = |stored: crate::catalog::StoredChain| {
            let view = LogView::of(&stored.chain).filter(|view| view.sequencer == me);
            own.extend(view.map(|view| LogletId::new(stored.chain.log, view.segment)));
        };
        self.catalog().visit_chains(visit).await?;
        Ok(own)
    }

    async fn hand_one_over(&self, loglet: LogletId, me: NodeGeneration) -> bool {
        let closed = self.close_as_node(loglet.log, loglet, me).await;
        if let Err(error) = &closed {
            debug!(%loglet, %error, "a sequencer was not handed over");
        }
        closed.is_ok()
    }

    async fn close_as_node(&self, log: LogId, loglet: LogletId, me: NodeGeneration) -> Result<(), NotClosed> {
        let stored = match self.catalog().chain(log).await {
            // It was deleted meanwhile.
            Err(CatalogError::UnknownLog) => return Ok(()),
            stored => stored?,
        };
        let state = self.state(stored.clone());
        Ok(state.close_segment_of(stored, loglet, CloseReason::HandOver, Actor::Node(me)).await?)
    }
}

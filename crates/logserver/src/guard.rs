//! Looks at the disk for the writer, keeps the ballast, and tells how full it is.

use std::sync::Arc;

use tokio::time::{Duration, Instant};

use crate::metrics::Metrics;
use crate::published::Published;
use crate::space::{BallastStep, Demand, Fullness, Marks, SpaceCore};
use crate::store::Space;

/// How often an idle writer looks, and how soon what did not help is tried again.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The driver of [`SpaceCore`].
pub(crate) struct Guard {
    core: SpaceCore,
    marks: Marks,
    published: Arc<Published>,
    metrics: Metrics,
    ballast_tried: Option<Instant>,
    reclaimed: Option<Instant>,
}

impl Guard {
    pub(crate) fn new(space: &dyn Space, published: Arc<Published>, metrics: Metrics) -> Self {
        let marks = space.marks();
        Self { core: SpaceCore::new(marks), marks, published, metrics, ballast_tried: None, reclaimed: None }
    }

    /// Looks at the disk, does what the core wants done about the ballast, and has dropped batches given back while there
    /// is little room.
    pub(crate) fn look(&mut self, space: &dyn Space) {
        let before = self.core.fullness();
        match space.look() {
            Ok(look) => {
                self.metrics.disk_free_bytes.set(look.free_bytes as f64);
                self.published.space.send_replace(self.marks.space(look.free_bytes));
                if let Some(step) = self.core.observe(look) {
                    self.move_ballast(space, step);
                }
            }
            Err(error) => tracing::debug!(%error, "the file system does not say what is free"),
        }
        let fullness = self.core.fullness();
        if fullness != before {
            tracing::warn!(?before, now = ?fullness, "the disk's fullness changed");
        }
        self.metrics.fullness(fullness);
        self.published.fullness.send_if_modified(|published| std::mem::replace(published, fullness) != fullness);
        if fullness > Fullness::Ample && is_due(self.reclaimed) {
            self.reclaim(space);
        }
    }

    /// Something was dropped: with little room left its space is given back at once.
    pub(crate) fn dropped(&mut self, space: &dyn Space) {
        if self.core.fullness() > Fullness::Ample {
            self.reclaim(space);
        }
    }

    /// Whether a request with this many bytes of batches may be written.
    pub(crate) fn admit(&mut self, demand: Demand, bytes: u64) -> bool {
        self.core.admit(demand, bytes)
    }

    fn move_ballast(&mut self, space: &dyn Space, step: BallastStep) {
        if step == BallastStep::Make && !is_due(self.ballast_tried) {
            return;
        }
        self.ballast_tried = Some(Instant::now());
        match space.move_ballast(step) {
            Ok(()) if step == BallastStep::GiveUp => tracing::warn!("the disk is full, the ballast was given up"),
            Ok(()) => tracing::debug!("the ballast is in place"),
            Err(error) => tracing::warn!(%error, ?step, "the ballast could not be moved"),
        }
    }

    fn reclaim(&mut self, space: &dyn Space) {
        self.reclaimed = Some(Instant::now());
        space.reclaim();
    }
}

fn is_due(done: Option<Instant>) -> bool {
    done.is_none_or(|done| done.elapsed() >= LOOK_INTERVAL)
}

//! Which nodes are silent: signs of life, and what the metadata member that leads concludes from them. Over etcd, which has no
//! member of ours, one of the nodes leads.
//!
//! ```text
//!  each node ─► send_beats ══ Beat ══► the member that leads ─► Detector ─► Core::step ─► Verdict ─► its controller
//!               └─► Route: whom to tell       └── not the leader? says who is            ▲
//!                                                          which lives there are, from metadata
//! ```
//!
//! **Nothing here is needed for safety.** A verdict starts a reconfiguration or keeps a node from being chosen, nothing else.
//! That a silent sequencer acknowledges nothing any more follows from the seal on an f-majority (S1) and from its being bound
//! to one life (A6); that a live one that is called silent loses nothing follows from the same. A wrong verdict costs a move.
//!
//! Who leads is Raft's word, or over etcd the word of a lease. A leader that lost the lead without knowing it concludes what it
//! likes: where it cannot reach metadata it cannot announce anything (T1), so nothing is sealed. After a change of the lead the
//! new leader begins with an empty memory and gives everybody one full period, but of the leader before it knows how long it
//! has been silent.
//!
//! Reading order: [`core`] (what is silent), `route` (whom to tell), `beats` (the sender), this file.

mod beats;
pub mod core;
mod route;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bifrost_types::{Generation, NodeGeneration, NodeId};
use bifrost_wire::liveness::Beat;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::info;

use self::core::{Core, Event, Lead, TooManyNodes, Verdict};

pub use self::beats::{Farewell, send_beats};

/// Longest time after which a node counts as silent.
pub const SILENT_AFTER_MAX: Duration = Duration::from_secs(1);

/// When a node counts as silent. All nodes of a cluster should have the same times.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LivenessOptions {
    /// Between two signs of life of a node. Default 100 ms.
    pub beat_interval: Duration,
    /// A node of which nothing was heard for as long is silent, and its logs are moved. Default 600 ms: five beats in a row
    /// may get lost. At least three beats, at most [`SILENT_AFTER_MAX`].
    pub silent_after: Duration,
}

impl Default for LivenessOptions {
    fn default() -> Self {
        Self { beat_interval: Duration::from_millis(100), silent_after: Duration::from_millis(600) }
    }
}

/// Times that contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "a node that sends a sign of life every {beat_interval:?} cannot count as silent after {silent_after:?}: that is at \
     least three signs and at most {SILENT_AFTER_MAX:?}"
)]
pub struct InvalidLiveness {
    /// The time between two signs of life.
    pub beat_interval: Duration,
    /// The time that was to be silence.
    pub silent_after: Duration,
}

impl LivenessOptions {
    /// Checks the times; call it where configuration is read.
    ///
    /// # Errors
    /// [`InvalidLiveness`].
    pub fn validate(&self) -> Result<(), InvalidLiveness> {
        let Self { beat_interval, silent_after } = *self;
        let least = beat_interval.saturating_mul(3);
        if beat_interval.is_zero() || silent_after < least || silent_after > SILENT_AFTER_MAX {
            return Err(InvalidLiveness { beat_interval, silent_after });
        }
        Ok(())
    }

    /// How long a detector goes at most without looking whether somebody fell silent.
    pub fn tick_interval(&self) -> Duration {
        self.beat_interval / 2
    }
}

/// The detector of one metadata member: what it hears goes in, a [`Verdict`] comes out. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Detector {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: LivenessOptions,
    started: Instant,
    core: Mutex<Core>,
    verdict: watch::Sender<Verdict>,
}

impl Detector {
    /// Calls nobody silent before it is told that its member leads.
    pub fn new(options: LivenessOptions) -> Self {
        let core = Mutex::new(Core::new(options.clone()));
        let verdict = watch::Sender::new(Verdict::default());
        Self { inner: Arc::new(Inner { options, started: Instant::now(), core, verdict }) }
    }

    /// Its times.
    pub fn options(&self) -> &LivenessOptions {
        &self.inner.options
    }

    /// Whether its member leads: then beats should come here.
    pub fn leads(&self) -> bool {
        self.inner.core.lock().leads()
    }

    /// Its member leads, or does not lead.
    pub fn lead(&self, lead: Option<Lead>) {
        self.step(Event::Lead { lead });
    }

    /// Call it at the [next look](Self::next_look).
    pub fn tick(&self) {
        self.step(Event::Tick);
    }

    /// When somebody may fall silent next, or a [`tick_interval`](LivenessOptions::tick_interval) from now if that is sooner.
    pub fn next_look(&self) -> Instant {
        let Inner { started, core, .. } = &*self.inner;
        let core = core.lock();
        *started + core.next_look(started.elapsed())
    }

    /// A node gave a sign of life.
    ///
    /// # Errors
    /// [`TooManyNodes`]; it was not taken note of.
    pub fn beat(&self, beat: Beat) -> Result<(), TooManyNodes> {
        self.inner.core.lock().has_room_for(beat.node)?;
        self.step(Event::Beat { beat });
        Ok(())
    }

    /// The lives that sequencers may have, by metadata: one that never gives a sign is found silent too.
    pub fn know(&self, lives: BTreeMap<NodeId, Generation>) {
        self.step(Event::Known { lives });
    }

    /// What it concludes, whenever that changes.
    pub fn verdict(&self) -> watch::Receiver<Verdict> {
        self.inner.verdict.subscribe()
    }

    /// Tells it of the time, and of the lead as `lead` reads it from what is known of that, until nobody tells any more; run it as a
    /// task.
    ///
    /// # Cancel safety
    /// Safe: a detector that is told nothing concludes nothing new.
    pub async fn follow<T>(self, mut known: watch::Receiver<T>, lead: impl Fn(&T) -> Option<Lead>) {
        loop {
            let now = lead(&known.borrow_and_update());
            self.lead(now);
            tokio::select! {
                biased;
                changed = known.changed() => if changed.is_err() {
                    return self.lead(None);
                },
                () = sleep_until(self.next_look()) => self.tick(),
            }
        }
    }

    fn step(&self, event: Event) {
        let mut core = self.inner.core.lock();
        let now = self.inner.started.elapsed();
        core.step(now, event);
        let verdict = core.verdict(now);
        let fell_silent = |(node, generation): &(&NodeId, &Generation)| {
            !self.inner.verdict.borrow().is_silent(NodeGeneration::new(**node, **generation))
        };
        for (node, generation) in verdict.silent.iter().filter(fell_silent) {
            let life = NodeGeneration::new(*node, *generation);
            info!(node = %life, silence = ?core.silence(*node, now), "a node is silent, or said that it stops");
        }
        // Under the lock, so that a later verdict is never replaced by an earlier one.
        self.inner.verdict.send_if_modified(|known| {
            let differs = *known != verdict;
            *known = verdict;
            differs
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_contradictions_are_refused() {
        assert_eq!(LivenessOptions::default().validate(), Ok(()));
        let millis = Duration::from_millis;
        for (beat, silent) in [(0, 600), (100, 299), (100, 1001), (400, 1000)] {
            let options = LivenessOptions { beat_interval: millis(beat), silent_after: millis(silent) };
            assert!(options.validate().is_err(), "{options:?}");
        }
    }
}

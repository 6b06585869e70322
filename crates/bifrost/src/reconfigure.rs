//! A reconfiguration: close the last segment and open the next, resumable by anybody after any interruption (DESIGN §5).
//!
//! The core, [`Intent`], looks at a chain and says the next step; it keeps nothing that a crash could lose. The driver
//! takes the step and looks again. So a lost reply, a conflict, a resumed operation and a second operator are one case:
//! read the chain, see what is there.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bifrost_loglet::close::{CloseError, CloseOptions, CloseProgress, Closed, close_loglet};
use bifrost_loglet::peers::Peers;
use bifrost_loglet::settle::settle_loglet;
use bifrost_types::plant::{self, Plant};
use bifrost_types::{
    Actor, Chain, CloseReason, Finished, LogId, LogletOffset, LogletParams, OpId, Reconfiguration, SegmentIndex,
    Successor, Timings,
};
use bifrost_wire::metadata::MetadataError;
use futures_util::future::BoxFuture;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info};

use crate::back_off::BackOff;
use crate::catalog::{Catalog, CatalogError, Roster, StoredChain};
use crate::chain::{self, Announce, ChainError, Decide, End};
use crate::clock::now_millis;
use crate::cluster::fresh_op;
use crate::placement::PlanError;

/// What somebody wants to do to a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// The operation. The same one again ends in the same result (C4).
    pub op: OpId,
    /// The segment to close.
    pub segment: SegmentIndex,
    /// Who wants it.
    pub actor: Actor,
    /// Why.
    pub reason: CloseReason,
    /// What comes after, or `None` to close the log for good.
    pub successor: Option<Successor>,
}

/// How a reconfiguration ended for the one who asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reconfigured {
    /// Mine was carried out, by me or by somebody who resumed it.
    Done(Finished),
    /// Another one closed the segment that mine was to close.
    Superseded {
        /// The operation that did, with its outcome.
        by: Finished,
        /// The segment that is open now, or `None` if the log was closed for good.
        open: Option<LogletParams>,
    },
}

impl Reconfigured {
    /// The operation that closed the segment, whoever's it was.
    pub const fn finished(&self) -> &Finished {
        match self {
            Self::Done(finished) | Self::Superseded { by: finished, .. } => finished,
        }
    }
}

/// Why a reconfiguration stopped before its end. What was done stays and is picked up by whoever comes next.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReconfigureError {
    /// The chain could not be read or written.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The chain takes no such change.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The loglet could not be closed.
    #[error(transparent)]
    Close(#[from] CloseError),
    /// No set of nodes can take the log now.
    #[error("no set of nodes can hold the log with its replication property now")]
    NoPlacement,
    /// The successor names a node that takes no new segments (any more). Nothing was announced.
    #[error(transparent)]
    NotAdmitted(PlanError),
}

/// The next step, given what the chain says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Commit this chain in place of the one that was looked at, then look again.
    Write(Chain),
    /// The same with the chain that decides (T2), if what it opens can still be opened; otherwise replace the successor
    /// under the same operation first (T1').
    Decide {
        /// What is pending.
        pending: Reconfiguration,
        /// The chain that decides.
        decided: Chain,
    },
    /// Close this loglet under this operation up to its candidate tail, then look again.
    Close {
        /// The operation that is pending; perhaps another one than was asked for.
        op: OpId,
        /// The loglet of the last segment.
        params: LogletParams,
    },
    /// Tell the servers the decided tail; then it is over.
    Tell {
        /// The loglet that was closed, if the chain still names it.
        params: Option<LogletParams>,
        /// How it ended.
        outcome: Reconfigured,
    },
}

/// A candidate tail that was found for the pending operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// For which operation.
    pub op: OpId,
    /// The candidate (S2), on a write quorum (S3), or as much as is left of it.
    pub end: End,
    /// How long it took.
    pub timings: Timings,
}

impl Intent {
    /// The next step of this intent on `chain`; `candidate` is what closing the loglet has led to, if it was done.
    ///
    /// # Errors
    /// [`ChainError`] when the chain takes no such change.
    pub fn next_step(&self, chain: &Chain, candidate: Option<Candidate>, now_millis: u64) -> Result<Step, ChainError> {
        let wanted = Reconfiguration {
            op: self.op,
            segment: self.segment,
            actor: self.actor.clone(),
            reason: self.reason,
            successor: self.successor.clone(),
            attempt: 1,
            opened_at_millis: now_millis,
        };
        match chain::announce(chain, &wanted)? {
            Announce::Write(announced) => Ok(Step::Write(announced)),
            Announce::Pending(pending) => match candidate.filter(|candidate| candidate.op == pending.op) {
                None => {
                    let last = chain.last().ok_or(ChainError::Damaged)?;
                    Ok(Step::Close { op: pending.op, params: last.params.clone() })
                }
                Some(candidate) => match chain::decide(chain, candidate.op, candidate.end, candidate.timings)? {
                    Decide::Write(decided) => Ok(Step::Decide { pending, decided }),
                    Decide::Finished(_) | Decide::Gone => Err(ChainError::Damaged),
                },
            },
            Announce::Finished(finished) => {
                Ok(Step::Tell { params: params_of(chain, &finished), outcome: Reconfigured::Done(finished) })
            }
            Announce::Superseded(by) => {
                let open = chain.last().filter(|last| last.decided_tail().is_none()).map(|last| last.params.clone());
                Ok(Step::Tell { params: params_of(chain, &by), outcome: Reconfigured::Superseded { by, open } })
            }
        }
    }
}

fn params_of(chain: &Chain, finished: &Finished) -> Option<LogletParams> {
    chain.segment(finished.segment).map(|segment| segment.params.clone())
}

/// What a reconfiguration in this process is doing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Progress {
    /// Reading or writing the chain.
    #[default]
    Metadata,
    /// Sealing, finding the tail, repairing.
    Closing {
        /// The operation.
        op: OpId,
        /// How far that is.
        close: CloseProgress,
    },
}

/// The last step: telling the servers where a loglet ended, so that they drop what lies above and readers there need
/// not ask anybody (S5). Best effort and idempotent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settle {
    params: LogletParams,
    op: OpId,
    tail: LogletOffset,
}

impl Settle {
    /// Tells all servers; returns when all answered or after a deadline of a few seconds.
    ///
    /// # Cancel safety
    /// Safe: a server that is not told keeps garbage that nobody reads.
    pub async fn tell(self, peers: Arc<dyn Peers>) {
        settle_loglet(&self.params, self.op, self.tail, peers.as_ref(), SETTLE_DEADLINE).await;
    }
}

const SETTLE_DEADLINE: Duration = Duration::from_secs(5);

/// What a reconfiguration asks of the process that drives it.
pub trait Surroundings: Send + Sync {
    /// Takes note of a chain that was read or written.
    fn seen(&self, stored: &StoredChain);

    /// Another successor for a pending operation whose own has become impossible, for example because its node died;
    /// `None` while it is good. `mine` says that this process chose it a moment ago. Asked before each decision.
    ///
    /// # Errors
    /// [`ReconfigureError::NoPlacement`] when nothing else is possible either; the operation stays pending.
    fn replacement<'a>(
        &'a self,
        chain: &'a Chain,
        pending: &'a Reconfiguration,
        mine: bool,
    ) -> BoxFuture<'a, Result<Option<Successor>, ReconfigureError>>;

    /// Whether all nodes of a successor may take a new segment, as far as this process knows, and under which roster that
    /// is so: the chain that names them is written under it, so that none of them is taken out of service meanwhile.
    /// `None` from who does not choose nodes and finishes only what somebody else announced.
    fn admit(&self, successor: &Successor) -> Option<Result<Roster, PlanError>> {
        let _ = successor;
        None
    }

    /// Up to which segment the servers of this log have given the space of trimmed segments back, as far as this process knows:
    /// those leave with the decision.
    fn returned(&self) -> Option<SegmentIndex> {
        None
    }

    /// Finds out anew which nodes may take new segments: that has changed. If it fails, the next write tells.
    fn nodes_changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// Only looks on: every successor is good.
impl<F: Fn(&StoredChain) + Send + Sync> Surroundings for F {
    fn seen(&self, stored: &StoredChain) {
        self(stored);
    }

    fn replacement<'a>(
        &'a self,
        _: &'a Chain,
        _: &'a Reconfiguration,
        _: bool,
    ) -> BoxFuture<'a, Result<Option<Successor>, ReconfigureError>> {
        Box::pin(async { Ok(None) })
    }
}

/// Drives intents on one log.
#[derive(Clone)]
pub struct Reconfigurer {
    log: LogId,
    catalog: Catalog,
    peers: Arc<dyn Peers>,
    known: Option<StoredChain>,
}

impl fmt::Debug for Reconfigurer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconfigurer").field("log", &self.log).finish_non_exhaustive()
    }
}

impl Reconfigurer {
    /// Drives intents on `log`.
    pub fn new(log: LogId, catalog: Catalog, peers: Arc<dyn Peers>) -> Self {
        Self { log, catalog, peers, known: None }
    }

    /// Begins with a chain that was read a moment ago. If it is old by now, the first write finds out.
    #[must_use]
    pub fn starting_from(self, stored: StoredChain) -> Self {
        Self { known: Some(stored), ..self }
    }

    /// Carries an intent out, or joins the operation that is pending and carries that out. Returns how it ended and what
    /// the servers should be told then; nobody needs to wait for that (S5).
    ///
    /// Waits as long as metadata, an f-majority or a write quorum for repair cannot be reached; `progress` says which.
    ///
    /// # Errors
    /// [`ReconfigureError`] when the chain takes no such change.
    ///
    /// # Cancel safety
    /// Safe at every await: whoever drives the same or any other intent on this log finishes what was begun (C4).
    pub async fn drive(
        &self,
        intent: &Intent,
        progress: &watch::Sender<Progress>,
        surroundings: &dyn Surroundings,
    ) -> Result<(Reconfigured, Option<Settle>), ReconfigureError> {
        let started = Instant::now();
        let mut intent = intent.clone();
        let mut candidate = None;
        let mut back_off = BackOff::new();
        // What was just written is what is there, and if it is not any more, the next write finds out.
        let mut written = self.known.clone();
        loop {
            progress.send_replace(Progress::Metadata);
            let read = match written.take() {
                Some(written) => written,
                None => match self.catalog.chain(self.log).await {
                    Err(error) if error.is_passing() => {
                        debug!(log = %self.log, %error, "reconfiguration waits for metadata");
                        back_off.pause().await;
                        continue;
                    }
                    read => read?,
                },
            };
            surroundings.seen(&read);
            match intent.next_step(&read.chain, candidate, now_millis())? {
                Step::Write(next) => {
                    let admitted = intent.successor.as_ref().and_then(|successor| surroundings.admit(successor));
                    let roster = admitted.transpose().map_err(ReconfigureError::NotAdmitted)?;
                    written = self.write(&read, next, roster, surroundings, &mut back_off).await?.chain();
                }
                Step::Decide { pending, decided } => {
                    let mine = pending.op == intent.op;
                    let replacement = surroundings.replacement(&read.chain, &pending, mine).await?;
                    let opens = replacement.as_ref().or(pending.successor.as_ref());
                    let roster = match opens.and_then(|successor| surroundings.admit(successor)) {
                        None => None,
                        Some(Ok(roster)) => Some(roster),
                        // It changed under our eyes: the next replacement is chosen from what is so now.
                        Some(Err(_)) => {
                            back_off.pause().await;
                            continue;
                        }
                    };
                    let next = match replacement {
                        None => Some(chain::taking_along(decided, surroundings.returned())),
                        Some(successor) => {
                            info!(log = %self.log, op = %pending.op, "the successor is replaced");
                            chain::replace_successor(&read.chain, pending.op, successor)?
                        }
                    };
                    if let Some(next) = next {
                        let told = self.write(&read, next, roster, surroundings, &mut back_off).await?;
                        if plant::is(Plant::LostReplyOpensAnother) && told == Written::NotTold {
                            intent = Intent { op: fresh_op(), segment: read.chain.next_segment, ..intent };
                        }
                        written = told.chain();
                    }
                }
                Step::Close { op, params } => {
                    let closed = match self.close(op, &params, progress).await {
                        // Another operation took over the servers: the chain says which one is to go on.
                        Err(CloseError::Superseded { .. }) => {
                            back_off.pause().await;
                            continue;
                        }
                        closed => closed?,
                    };
                    written = Some(read);
                    candidate = Some(Candidate {
                        op,
                        end: End { tail: closed.candidate_tail, lost_from: closed.lost_from },
                        timings: Timings {
                            seal_micros: micros(closed.seal_time),
                            repair_micros: micros(closed.repair_time),
                            total_micros: micros(started.elapsed()),
                        },
                    });
                }
                Step::Tell { params, outcome } => {
                    info!(
                        log = %self.log,
                        op = %outcome.finished().op,
                        segment = %outcome.finished().segment,
                        tail = %outcome.finished().tail,
                        "segment closed"
                    );
                    let Finished { op, tail, .. } = *outcome.finished();
                    let settle = params.map(|params| Settle { params, op, tail });
                    return Ok((outcome, settle));
                }
            }
        }
    }

    /// A conflict and a lost reply are the same to us: look again (M2). Metadata that refuses, as on a full disk, is given
    /// time.
    async fn write(
        &self,
        read: &StoredChain,
        next: Chain,
        roster: Option<Roster>,
        surroundings: &dyn Surroundings,
        back_off: &mut BackOff,
    ) -> Result<Written, ReconfigureError> {
        let began = Instant::now();
        let written = match roster {
            Some(roster) => self.catalog.replace_under(read, next, roster).await,
            None => self.catalog.replace(read, next).await,
        };
        match written {
            Ok(written) => {
                back_off.reset();
                debug!(log = %self.log, version = written.chain.version, took = ?began.elapsed(), "chain written");
                surroundings.seen(&written);
                return Ok(Written::Yes(Box::new(written)));
            }
            Err(error @ CatalogError::Metadata(MetadataError::Unavailable)) => {
                debug!(log = %self.log, %error, "chain not written");
                back_off.pause().await;
            }
            Err(error @ CatalogError::NodesChanged) => {
                debug!(log = %self.log, %error, "chain not written");
                surroundings.nodes_changed().await;
            }
            Err(error) if error.is_passing() => {
                debug!(log = %self.log, %error, "chain not written");
                if error == CatalogError::Metadata(MetadataError::Unknown) {
                    return Ok(Written::NotTold);
                }
            }
            Err(error) => return Err(error.into()),
        }
        Ok(Written::No)
    }

    async fn close(
        &self,
        op: OpId,
        params: &LogletParams,
        progress: &watch::Sender<Progress>,
    ) -> Result<Closed, CloseError> {
        let (close, mut changed) = watch::channel(CloseProgress::default());
        let closing = close_loglet(params, op, self.peers.as_ref(), CloseOptions::default(), &close);
        tokio::pin!(closing);
        loop {
            tokio::select! {
                biased;
                closed = &mut closing => return closed,
                Ok(()) = changed.changed() => {
                    let close = changed.borrow_and_update().clone();
                    progress.send_replace(Progress::Closing { op, close });
                }
            }
        }
    }
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Written {
    /// This is the chain now.
    Yes(Box<StoredChain>),
    /// The chain is another one, or cannot be written now.
    No,
    /// The reply was lost.
    NotTold,
}

impl Written {
    fn chain(self) -> Option<StoredChain> {
        match self {
            Self::Yes(stored) => Some(*stored),
            Self::No | Self::NotTold => None,
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;

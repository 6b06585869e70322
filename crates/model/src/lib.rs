//! The protocol cores, explored exhaustively.
//!
//! Nothing of the protocol is written again here. A model moves messages about; whatever decides is the code that the
//! product runs: [`CopyCore`](bifrost_logserver::copy::CopyCore), [`Core`](bifrost_sequencer::core::Core) of the
//! sequencer, [`CloseLoglet`](bifrost_loglet::close::CloseLoglet), [`ConfirmOpen`](bifrost_loglet::tail::ConfirmOpen),
//! the transitions in [`bifrost::chain`] and [`Intent::next_step`](bifrost::reconfigure::Intent::next_step). Every
//! state that can be reached is looked at, in each of them every rule, with the words and ids of `docs/PROTOCOL.md`.
//!
//! ```text
//!  segment   sequencer ══ stores, answers ══► copies ◄══ seals, reads, repairs ══ finders ──► decided tail ──► settle
//!            and readers (R1), and whoever asks for the linearizable tail (R4)
//!  chain     actors ── look, next step, compare-and-set ──► one versioned chain
//! ```
//!
//! # What is explored
//!
//! *Order.* Each thing under way may arrive before or after each other one. A message that is lost is one that never
//! arrives, and a process that dies is one that takes no further step: both are in every scope.
//!
//! *Faults.* What the others notice costs a budget, which the name of a scope tells: a caller that hears nothing while
//! its request is still under way (so lost requests, lost replies and late requests), a request carried out twice, a
//! connection that breaks with a store or an append under way, a server that comes back with what was durable, a disk that comes
//! back empty, a full disk, strangers that store, lost replies of metadata, dead actors.
//!
//! *Topologies.* Three servers with two copies; four with three copies, where an f-majority is smaller than a write
//! quorum; five in two zones with a copy in each.
//!
//! # What is left out
//!
//! Time: a back-off is over whenever one likes. Bytes: a batch is one record, and a record is one byte. A disk is the
//! records and the state of one copy; with `groups` it has a group that is not durable, without them each request is
//! durable at once. Servers of a zone differ by name only, so states that differ by names only count once (the digest
//! of a state is told in `segment/canonical.rs`); of several equal copies that could be read, which one is read does
//! not count either. Where a scope does not say otherwise, reads between copies and answers to finders arrive at once;
//! answers to the sequencer do so only where a scope says it.
//! Answers of a copy to its sequencer that wait together arrive as one, as a group commit sends them.
//!
//! In chain scopes closing a loglet is one step that returns one of several candidates. Drivers, retries and
//! connections are explored by the simulator, not here.
//!
//! # Reading a counterexample
//!
//! [`Violation::property`] names the rule; [`Violation::path`] has a line for each step from the empty log on, what
//! happened and, after an arrow, what it changed. A violation without a path says `sometimes:`: nothing is wrong except
//! that something that a scope is for never happened, so its passing would prove nothing. Paths are as short as memory
//! allows; states and unique states of a scope are the same on each run.

mod chain;
mod digest;
mod explore;
mod hunt;
mod segment;
mod witness;

use crate::explore::Explored;
pub use crate::explore::{ScopeReport, Violation};
pub use crate::hunt::{Finding, Hunt, hunt, hunt_only};

/// Which scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// Those of every test run.
    Quick,
    /// All.
    Full,
}

/// Explores the selected scopes on that many threads; `report` hears of each as it ends.
pub fn run(selection: Selection, threads: usize, report: &mut dyn FnMut(&ScopeReport)) -> Vec<ScopeReport> {
    run_only(selection, "", threads, report)
}

/// The same for scopes whose name contains `part`.
pub fn run_only(
    selection: Selection,
    part: &str,
    threads: usize,
    report: &mut dyn FnMut(&ScopeReport),
) -> Vec<ScopeReport> {
    let wanted = |quick: bool, name: &str| (quick || selection == Selection::Full) && name.contains(part);
    let mut reports = Vec::new();
    let mut keep = |done: ScopeReport| {
        report(&done);
        reports.push(done);
    };
    for model in chain::scopes().iter().filter(|model| wanted(model.is_quick(), model.name())) {
        keep(explore::explore(model, threads));
    }
    for model in segment::scopes().iter().filter(|model| wanted(model.is_quick(), model.name())) {
        keep(explore::explore(model, threads));
    }
    reports
}

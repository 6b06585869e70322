//! Looks for a violation when it is known that there may be one: for a process that carries a planted bug.
//!
//! Most bugs show early in a scope that is made for them, and late or never in the others. So the hunt goes over all
//! scopes, again and again, and looks further into each every time. What it finds, and how many states it takes, is the
//! same on each run and with any number of threads: a slice of one scope is searched by one thread, and of several
//! slices that find something the first in order counts.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::explore::{self, Explored, Slice, Violation};
use crate::{chain, segment};

/// What a hunt came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Hunt {
    /// Different states that were looked at before it ended, counted anew in each slice.
    pub states: usize,
    /// How long it took, without the time for a shorter path.
    pub seconds: f64,
    /// What it found. Otherwise time is up, or there is nothing.
    pub finding: Option<Finding>,
}

/// A scope with a violation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The scope.
    pub scope: &'static str,
    /// The rule, and a short path.
    pub violation: Violation,
}

/// Hunts in all scopes on that many threads. The budget is looked at between slices.
pub fn hunt(threads: usize, budget: Duration) -> Hunt {
    hunt_only("", threads, budget)
}

/// The same in scopes whose name contains `part`.
pub fn hunt_only(part: &str, threads: usize, budget: Duration) -> Hunt {
    #[allow(clippy::disallowed_methods)] // a limit for a person who waits, not a part of any decision
    let started = Instant::now();
    let is_over = || started.elapsed() >= budget;
    let (chains, segments) = (chain::scopes(), segment::scopes());
    let chains = chains.iter().map(|model| model as &dyn Ground);
    let segments = segments.iter().map(|model| model as &dyn Ground);
    let mut grounds: Vec<&dyn Ground> = chains.chain(segments).filter(|ground| ground.name().contains(part)).collect();
    let mut states = 0;
    let mut steps_max = STEPS_FIRST;
    while !grounds.is_empty() {
        let mut unfinished = Vec::new();
        for (ground, slice) in grounds.iter().zip(search(&grounds, steps_max, threads, &is_over)) {
            let Some(slice) = slice else {
                return Hunt { states, seconds: started.elapsed().as_secs_f64(), finding: None };
            };
            states += slice.states;
            if let Some(violation) = slice.violation {
                let seconds = started.elapsed().as_secs_f64();
                let violation = ground.shortest().unwrap_or(violation);
                return Hunt { states, seconds, finding: Some(Finding { scope: ground.name(), violation }) };
            }
            if !slice.is_whole {
                unfinished.push(*ground);
            }
        }
        grounds = unfinished;
        steps_max = steps_max.saturating_mul(STEPS_GROWTH);
    }
    Hunt { states, seconds: started.elapsed().as_secs_f64(), finding: None }
}

/// Steps in each scope in the first round. As little as is searched at once.
const STEPS_FIRST: usize = 1_500;
/// How much further each round looks.
const STEPS_GROWTH: usize = 8;

/// A scope of any kind.
trait Ground: Sync {
    fn name(&self) -> &'static str;
    fn slice(&self, steps_max: usize) -> Slice;
    fn shortest(&self) -> Option<Violation>;
}

impl<M> Ground for M
where
    M: Explored,
    M::State: Clone + std::hash::Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + std::fmt::Debug + PartialEq + Send + Sync,
{
    fn name(&self) -> &'static str {
        Explored::name(self)
    }

    fn slice(&self, steps_max: usize) -> Slice {
        explore::slice(self, steps_max)
    }

    fn shortest(&self) -> Option<Violation> {
        explore::shortest(self)
    }
}

/// One slice of each, in order. `None` from where on time was up; what follows a violation may be missing as well.
fn search(
    grounds: &[&dyn Ground],
    steps_max: usize,
    threads: usize,
    is_over: &(dyn Fn() -> bool + Sync),
) -> Vec<Option<Slice>> {
    let next = AtomicUsize::new(0);
    let found = AtomicUsize::new(usize::MAX);
    let work = || {
        let mut done = Vec::new();
        loop {
            let place = next.fetch_add(1, Ordering::SeqCst);
            let Some(ground) = grounds.get(place) else { return done };
            // Slices are taken in order, so whatever comes before a violation is searched to its end.
            if place > found.load(Ordering::SeqCst) || is_over() {
                return done;
            }
            let slice = ground.slice(steps_max);
            if slice.violation.is_some() {
                found.fetch_min(place, Ordering::SeqCst);
            }
            done.push((place, slice));
        }
    };
    let mut slices: Vec<Option<Slice>> = grounds.iter().map(|_| None).collect();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            for (place, slice) in worker.join().expect("what cores assert is caught where they step") {
                if let Some(slot) = slices.get_mut(place) {
                    *slot = Some(slice);
                }
            }
        }
    });
    slices
}

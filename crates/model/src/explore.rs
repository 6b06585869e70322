//! Runs one scope: explores all of its states, and makes a violation short and readable.

use std::fmt::Debug;
use std::hash::Hash;
use std::time::Instant;

use stateright::{Checker, Expectation, HasDiscoveries, Model, Path};

/// A rule that does not hold, and how to get there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The rule, with the id of its invariant.
    pub property: String,
    /// One line for each step from the beginning. Empty for a witness that was never seen.
    pub path: Vec<String>,
}

/// What one scope came to.
#[derive(Debug, Clone, PartialEq)]
pub struct ScopeReport {
    /// The scope.
    pub name: &'static str,
    /// States that were generated, repeats included.
    pub states: usize,
    /// Different states; servers that differ by name only count as one.
    pub unique: usize,
    /// Steps of the longest path. Depends on the order of the search when there are several threads.
    pub depth: usize,
    /// How long it took.
    pub seconds: f64,
    /// The first rule that does not hold.
    pub violation: Option<Violation>,
}

/// A model that can be told to people, and that knows what it must have shown.
pub(crate) trait Explored: Model + Clone + Send + Sync + 'static
where
    Self::State: Clone + Hash + PartialEq + Send + Sync + 'static,
    Self::Action: Clone + Debug + PartialEq + Send + Sync,
{
    /// Its name.
    fn name(&self) -> &'static str;

    /// Whether it is part of the quick selection.
    fn is_quick(&self) -> bool;

    /// One step in words.
    fn tell(&self, before: &Self::State, action: &Self::Action, after: &Self::State) -> String;

    /// What the last state of a counterexample adds, or nothing.
    fn verdict(&self, last: &Self::State) -> Option<String>;

    /// What should have happened in some run, and never did: then passing proves nothing.
    fn unseen(&self) -> Option<&'static str>;
}

/// States that a search for a short path may generate.
const SHORT_STATES_MAX: usize = 1_000_000;

/// Explores everything. A violation ends it.
pub(crate) fn explore<M>(model: &M, threads: usize) -> ScopeReport
where
    M: Explored,
    M::State: Clone + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    #[allow(clippy::disallowed_methods)] // how long a run took is told to people, nothing else
    let started = Instant::now();
    let builder = model.clone().checker().threads(threads.max(1)).finish_when(HasDiscoveries::AnyFailures);
    let checker = builder.spawn_dfs().join();
    let mut violation = first_violation(&checker);
    if violation.is_some() {
        violation = shortest(model).or(violation);
    } else if let Some(unseen) = checker.model().unseen() {
        violation = Some(Violation { property: format!("sometimes: {unseen}"), path: Vec::new() });
    }
    ScopeReport {
        name: model.name(),
        states: checker.state_count(),
        unique: checker.unique_state_count(),
        depth: checker.max_depth(),
        seconds: started.elapsed().as_secs_f64(),
        violation,
    }
}

/// What a search that is not to the end came to.
#[derive(Debug)]
pub(crate) struct Slice {
    /// Different states.
    pub(crate) states: usize,
    /// There are no others.
    pub(crate) is_whole: bool,
    /// The first rule that does not hold. A witness that was not seen is no violation here: a bug may well keep things
    /// from happening.
    pub(crate) violation: Option<Violation>,
}

/// Searches on one thread until a violation, or until about so many steps were taken: the same on each run. Once into
/// the depth and once, if that ended early, in breadth: a violation is far from the beginning or it is near.
pub(crate) fn slice<M>(model: &M, steps_max: usize) -> Slice
where
    M: Explored,
    M::State: Clone + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    let builder = || {
        let builder = model.clone().checker().threads(1).finish_when(HasDiscoveries::AnyFailures);
        builder.target_state_count(steps_max)
    };
    let deep = slice_of(&builder().spawn_dfs().join(), steps_max);
    if deep.is_whole || deep.violation.is_some() {
        return deep;
    }
    let wide = slice_of(&builder().spawn_bfs().join(), steps_max);
    Slice { states: deep.states + wide.states, ..wide }
}

fn slice_of<M>(checker: &impl Checker<M>, steps_max: usize) -> Slice
where
    M: Explored,
    M::State: Clone + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    Slice {
        states: checker.unique_state_count(),
        is_whole: checker.state_count() < steps_max,
        violation: first_violation(checker),
    }
}

/// Looks for a shortest violation, as far as memory allows.
pub(crate) fn shortest<M>(model: &M) -> Option<Violation>
where
    M: Explored,
    M::State: Clone + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    let builder = model.clone().checker().threads(1).finish_when(HasDiscoveries::AnyFailures);
    first_violation(&builder.target_state_count(SHORT_STATES_MAX).spawn_bfs().join())
}

fn first_violation<M>(checker: &impl Checker<M>) -> Option<Violation>
where
    M: Explored,
    M::State: Clone + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    let model = checker.model();
    let fails = |name: &str| {
        let properties = model.properties();
        properties.iter().any(|property| property.name == name && property.expectation != Expectation::Sometimes)
    };
    let found = checker.discoveries().into_iter().filter(|(name, _)| fails(name));
    let (name, path) = found.min_by_key(|(name, path)| (path.clone().into_states().len(), *name))?;
    Some(tell(model, name, path))
}

fn tell<M>(model: &M, name: &str, path: Path<M::State, M::Action>) -> Violation
where
    M: Explored,
    M::State: Clone + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    let steps = path.into_vec();
    let mut lines = Vec::new();
    for pair in steps.windows(2) {
        if let [(before, Some(action)), (after, _)] = pair {
            lines.push(format!("{:>3}. {}", lines.len() + 1, model.tell(before, action, after)));
        }
    }
    let verdict = steps.last().and_then(|(last, _)| model.verdict(last));
    let property = match verdict {
        Some(verdict) => format!("{name}: {verdict}"),
        None => name.to_owned(),
    };
    Violation { property, path: lines }
}

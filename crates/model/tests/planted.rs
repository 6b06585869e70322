//! A process of its own, because a planted bug stays: what the models are for is seen, and told step by step.
#![cfg(bifrost_plant)]
#![allow(clippy::print_stderr)]

use std::time::Duration;

use bifrost_types::plant::{self, Plant};

#[test]
fn a_bug_in_a_core_is_found_and_told_step_by_step() {
    plant::set(Plant::TailIsMinimum);
    // Asserts of cores are findings here, many of them, and told by the path.
    std::panic::set_hook(Box::new(|_| {}));
    let found = bifrost_model::hunt(2, Duration::from_secs(120));
    let again = bifrost_model::hunt(1, Duration::from_secs(120));
    let same = (found.states, &found.finding) == (again.states, &again.finding);
    let violation = found.finding.expect("a bug that drops acknowledged records").violation;
    let acknowledged = violation.path.iter().any(|line| line.contains("acknowledged below 2"));
    let told = violation.property.contains("S2") && acknowledged && (5..20).contains(&violation.path.len());
    // The hook is silent, so the reason goes with the exit.
    if !told || !same {
        eprintln!("{violation:#?}");
    }
    assert!(told, "the rule, and a short path");
    assert!(same, "a hunt finds the same with any number of threads");
}

//! A process of its own, because a planted bug stays: what the models are for is seen, and told step by step.
#![cfg(bifrost_plant)]

use std::time::Duration;

use bifrost_types::plant::{self, Plant};

#[test]
fn a_bug_in_a_core_is_found_and_told_step_by_step() {
    plant::set(Plant::TailIsMinimum);
    let found = bifrost_model::hunt(1, Duration::from_secs(120)).expect("a bug that drops acknowledged records");
    let violation = found.violation.expect("what was found");
    assert!(violation.property.starts_with("S2"), "{violation:?}");
    let acknowledged = violation.path.iter().any(|line| line.contains("acknowledged below 2"));
    assert!(acknowledged && violation.path.len() < 20, "{violation:#?}");
}

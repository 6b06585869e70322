//! The quick scopes, and that exploring is the same on each run.
#![allow(clippy::print_stdout)]

use std::time::Duration;

use bifrost_model::{ScopeReport, Selection, hunt_only, run, run_only};

#[test]
fn every_state_of_the_quick_scopes_keeps_every_rule() {
    let reports = run(Selection::Quick, 2, &mut |report| {
        println!("{:>9} states {:>10} steps {:>6.1} s  {}", report.unique, report.states, report.seconds, report.name);
    });
    let unique: usize = reports.iter().map(|report| report.unique).sum();
    println!("{} scopes, {unique} different states", reports.len());
    for ScopeReport { name, violation, .. } in &reports {
        assert_eq!(*violation, None, "{name}");
    }
    assert!(reports.len() >= 10, "the selection is not empty by mistake");
}

#[test]
fn exploring_covers_the_same_states_on_each_run() {
    let covered = |threads| {
        let reports = run_only(Selection::Quick, "copies with holes", threads, &mut |_| {});
        reports.iter().map(|report| (report.unique, report.states)).collect::<Vec<_>>()
    };
    assert_eq!(covered(1), covered(2));
}

#[test]
fn a_hunt_without_a_bug_ends_with_nothing() {
    let one = "2 records, copies with holes";
    let hunt = hunt_only(one, 2, Duration::from_secs(120));
    assert_eq!(hunt.finding, None);
    let scope = run_only(Selection::Full, one, 2, &mut |_| {});
    let unique: usize = scope.iter().map(|report| report.unique).sum();
    assert!(hunt.states >= unique, "it looked at everything: {} of {unique}", hunt.states);
}

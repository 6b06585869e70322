//! The quick scopes, and that exploring is the same on each run.
#![allow(clippy::print_stdout)]

use bifrost_model::{ScopeReport, Selection, run, run_only};

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

//! For every rule histories that break it and are found by it, and beside each one that almost does and is fine.

#![allow(clippy::unwrap_used)]

mod chains;
mod clients;
mod copies;
mod progress;
mod random;

use std::collections::BTreeSet;

use crate::testing::Play;
use crate::{Checker, Rule};

/// A breach of one rule, and its near-miss.
struct Case {
    rule: Rule,
    name: &'static str,
    breaks: fn(&mut Play),
    fine: fn(&mut Play),
}

fn cases() -> impl Iterator<Item = &'static Case> {
    clients::CASES.iter().chain(chains::CASES).chain(copies::CASES).chain(progress::CASES)
}

fn played(play: fn(&mut Play)) -> Play {
    let mut history = Play::new();
    play(&mut history);
    history
}

#[test]
fn every_breach_is_found_by_its_rule() {
    for Case { rule, name, breaks, .. } in cases() {
        let history = played(*breaks);
        assert!(history.broken().contains(rule), "{rule}, {name}: found {:?}", history.broken());
        let breach = history.checker.breaches().iter().find(|breach| breach.rule == *rule).unwrap();
        assert!(!breach.text.is_empty() && breach.events.is_sorted(), "{rule}, {name}: {breach}");
    }
}

#[test]
fn every_near_miss_is_fine() {
    for Case { rule, name, fine, .. } in cases() {
        let history = played(*fine);
        assert_eq!(history.checker.breaches(), [], "{rule}, {name}");
        assert_eq!(history.checker.breach_count(), 0, "{rule}, {name}");
        assert!(history.checker.tally(*rule).checked > 0, "{rule} was not checked by {name}");
    }
}

#[test]
fn every_rule_has_a_breach_and_a_near_miss() {
    let covered: BTreeSet<Rule> = cases().map(|case| case.rule).collect();
    let missing: Vec<&Rule> = Rule::ALL.iter().filter(|rule| !covered.contains(rule)).collect();
    assert_eq!(missing, [] as [&Rule; 0]);
}

#[test]
fn the_same_history_is_judged_the_same() {
    for Case { breaks, .. } in cases() {
        let (one, two) = (played(*breaks), played(*breaks));
        assert_eq!(one.checker.breaches(), two.checker.breaches());
        assert_eq!(one.checker.summary(), two.checker.summary());
    }
}

#[test]
fn all_breaches_are_counted_and_the_first_few_are_told() {
    let mut play = Play::new();
    play.open(1, 1);
    for at in 1..=100 {
        play.give(1, at, at);
    }
    assert_eq!(play.checker.breach_count(), 100);
    assert_eq!(play.checker.tally(Rule::SomebodyAppended).broken, 100);
    assert!(play.checker.breaches().len() < 10);
    assert_eq!(play.checker.breaches()[0].events, [1]);
    assert_eq!(
        play.checker.breaches()[0].to_string(),
        "R2 at 0.000002: value 1 is at 1 of log 1, and nobody appended it there (events [1])"
    );
}

#[test]
fn what_was_never_checked_is_said() {
    let summary = Checker::new().summary();
    assert_eq!(summary.never_checked().count(), Rule::ALL.len());
    let mut play = Play::new();
    play.append(1, 1);
    play.read(1, [1]);
    let summary = play.checker.summary();
    let never: Vec<Rule> = summary.never_checked().collect();
    assert!(!never.contains(&Rule::AcknowledgedStays) && never.contains(&Rule::AcknowledgedIsDurable), "{never:?}");
    assert!(summary.to_string().contains("never checked: P2, P3,"), "{summary}");
}

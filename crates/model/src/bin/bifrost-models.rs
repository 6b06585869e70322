//! Explores the models from the command line.
//!
//! `bifrost-models [--quick] [--only PART] [--threads N]` explores and prints a line for each scope.
//! `bifrost-models --plant NAME [--only PART] [--seconds N]` gives the process a bug first, and prints how it shows.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;
use std::time::Duration;

use bifrost_model::{ScopeReport, Selection, Violation};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |flag: &str| {
        let place = arguments.iter().position(|argument| argument == flag)?;
        arguments.get(place + 1).map(String::as_str)
    };
    let number = |flag: &str, default: u64| value(flag).and_then(|value| value.parse().ok()).unwrap_or(default);
    let threads = number("--threads", 2) as usize;
    // A core that asserts is a finding, and told as one.
    std::panic::set_hook(Box::new(|_| {}));
    if let Some(name) = value("--plant") {
        return hunt(name, value("--only").unwrap_or(""), threads, Duration::from_secs(number("--seconds", 300)));
    }
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let selection = if quick { Selection::Quick } else { Selection::Full };
    let reports = bifrost_model::run_only(selection, value("--only").unwrap_or(""), threads, &mut print);
    let seconds: f64 = reports.iter().map(|report| report.seconds).sum();
    let unique: usize = reports.iter().map(|report| report.unique).sum();
    println!("{} scopes, {unique} different states, {seconds:.0} s", reports.len());
    ExitCode::from(u8::from(reports.iter().any(|report| report.violation.is_some())))
}

fn print(report: &ScopeReport) {
    let ScopeReport { name, states, unique, depth, seconds, violation } = report;
    println!("{unique:>9} states {states:>10} steps {depth:>3} deep {seconds:>6.1} s  {name}");
    if let Some(violation) = violation {
        print_violation(violation);
    }
}

fn print_violation(violation: &Violation) {
    println!("    {}", violation.property);
    for line in &violation.path {
        println!("    {line}");
    }
}

#[cfg(bifrost_plant)]
fn hunt(name: &str, part: &str, threads: usize, budget: Duration) -> ExitCode {
    use bifrost_model::{Finding, Hunt};
    use bifrost_types::plant::{self, Plant};

    let Some(plant) = Plant::ALL.iter().find(|plant| plant.name() == name) else {
        eprintln!("no plant is called {name}");
        return ExitCode::from(2);
    };
    plant::set(*plant);
    let Hunt { states, seconds, finding } = bifrost_model::hunt_only(part, threads, budget);
    match finding {
        Some(Finding { scope, violation }) => {
            println!("{states:>9} states {seconds:>6.1} s  {scope}");
            print_violation(&violation);
            ExitCode::SUCCESS
        }
        None => {
            println!("{name} was not found in {states} states, {seconds:.0} s");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(bifrost_plant))]
fn hunt(name: &str, _: &str, _: usize, _: Duration) -> ExitCode {
    eprintln!("this build carries no bug, so not {name} either: it wants --cfg bifrost_plant");
    ExitCode::from(2)
}

//! The tour of the README, line by line, as a new user types it, against a real `bifrost dev`. What the commands print is
//! compared with what the README shows, except for numbers, times and ids.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::tool::{Dev, command, run};

/// A comment in front of a block that somebody else carries out: the build, and `bifrost dev` itself.
const NOT_HERE: &str = "<!-- not in the test -->";

/// A command and the lines that the README shows below it.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    command: String,
    shown: Vec<String>,
}

/// The console blocks of the section with this title.
fn steps(readme: &str, title: &str) -> Vec<Step> {
    let section = readme.split("\n## ").find(|section| section.starts_with(title)).expect("the README has the section");
    let mut steps: Vec<Step> = Vec::new();
    let (mut inside, mut skipped) = (false, false);
    for line in section.lines() {
        match line {
            NOT_HERE => skipped = true,
            "```console" => inside = !skipped,
            "```" => (inside, skipped) = (false, false),
            _ if !inside => {}
            _ => match line.strip_prefix("$ ") {
                Some(command) => {
                    // What is behind a wide gap explains the command.
                    let command = command.split("    #").next().unwrap_or_default().trim_end().to_owned();
                    steps.push(Step { command, shown: Vec::new() });
                }
                None => steps.last_mut().expect("output follows a command").shown.push(line.to_owned()),
            },
        }
    }
    steps
}

/// A line without what differs from run to run.
fn form(line: &str) -> String {
    let words = line.split_whitespace().map(|word| {
        let core = word.trim_matches(|letter: char| !letter.is_ascii_alphanumeric());
        let is_id =
            core.len() == 26 && core.chars().all(|letter| letter.is_ascii_uppercase() || letter.is_ascii_digit());
        if is_id {
            return word.replace(core, "ID");
        }
        let mut form = String::new();
        for letter in word.chars() {
            match letter {
                '0'..='9' if form.ends_with('0') => {}
                '0'..='9' => form.push('0'),
                '.' if form.ends_with('0') && word.parse::<f64>().is_ok() => {}
                _ => form.push(letter),
            }
        }
        if matches!(form.as_str(), "ms" | "µs" | "s") { "TIME".to_owned() } else { form }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn every_command_of_the_tour_does_what_the_readme_shows() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).expect("the README");
    let steps = steps(&readme, "Five minutes");
    assert!(steps.len() >= 10, "the tour is a tour: {steps:?}");
    let directory = tempfile::tempdir().expect("a directory");
    let bin = directory.path().join("bin");
    fs::create_dir(&bin).expect("made");
    symlink(command([""]).get_program(), bin.join("bifrost")).expect("linked");
    let dev = Dev::start([""; 0]);
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").expect("a path"));
    for Step { command, shown } in steps {
        let mut shell = Command::new("sh");
        shell.args(["-c", &command]).current_dir(directory.path());
        // Nothing of whoever runs the tests, and this cluster instead of the default address.
        for (name, value) in dev.command([""; 0]).get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        shell.env("PATH", &path).stdout(Stdio::piped()).stderr(Stdio::piped());
        let ended = run(&mut shell, b"");
        assert_eq!(ended.code, 0, "$ {command}\n{ended:?}");
        let printed: Vec<String> = ended.stdout.lines().chain(ended.stderr.lines()).map(form).collect();
        let expected: Vec<String> = shown.iter().map(|line| form(line)).collect();
        assert_eq!(printed, expected, "$ {command}\nprinted:\n{}{}", ended.stdout, ended.stderr);
    }
}

#[test]
fn forms_leave_out_numbers_times_and_ids() {
    assert_eq!(form("  1  17  12.5 ms"), form("1 4 900.25 µs"));
    assert_eq!(form("by 01JDA3V7GPX2M7C6TQ4Z0ABCDE"), form("by 01JDA3V7GPX2M7C6TQ4Z0ZZZZZ"));
    assert_ne!(form("sealed"), form("open"));
}

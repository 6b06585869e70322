//! Runs the protocol scripts under `testdata/`: commands, `----`, and what they must print. `UPDATE=1` rewrites the
//! expectations; that diff is reviewed like code.

#![allow(clippy::panic)]

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

/// One line of a script: a word, then `key=value` or `key=(a,b)`.
pub(crate) struct Command {
    line: String,
    pub(crate) name: String,
    arguments: BTreeMap<String, String>,
}

impl Command {
    fn parse(line: &str) -> Self {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap_or_default().to_owned();
        let arguments = words
            .map(|word| word.split_once('=').unwrap_or_else(|| panic!("expected key=value, not {word}: {line}")))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        Self { line: line.to_owned(), name, arguments }
    }

    pub(crate) fn optional<T: FromStr>(&self, key: &str) -> Option<T> {
        let value = self.arguments.get(key)?;
        Some(value.parse().unwrap_or_else(|_| panic!("cannot read {key}={value}: {}", self.line)))
    }

    pub(crate) fn get<T: FromStr>(&self, key: &str) -> T {
        self.optional(key).unwrap_or_else(|| panic!("{key} is missing: {}", self.line))
    }

    pub(crate) fn list(&self, key: &str) -> Vec<String> {
        let value: String = self.optional(key).unwrap_or_default();
        let inner = value.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).unwrap_or(&value);
        inner.split(',').filter(|item| !item.is_empty()).map(str::to_owned).collect()
    }
}

/// One command outside of a script.
pub(crate) fn command(line: &str) -> Command {
    Command::parse(line)
}

/// Runs every block of every script in `testdata/<folder>`. Each script begins with a new `S`.
pub(crate) fn run<S: Default>(folder: &str, mut execute: impl FnMut(&mut S, &Command) -> Vec<String>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(folder);
    let mut paths: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("a readable folder").path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no script in {}", folder.display());
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("a readable script");
        let mut state = S::default();
        let blocks: Vec<String> =
            text.trim_end().split("\n\n").map(|block| run_block(&mut state, block, &mut execute)).collect();
        let actual = blocks.join("\n\n") + "\n";
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, actual).expect("a writable script");
        } else {
            assert_eq!(actual, text, "{}: run with UPDATE=1 and review the diff", path.display());
        }
    }
}

fn run_block<S>(state: &mut S, block: &str, execute: &mut impl FnMut(&mut S, &Command) -> Vec<String>) -> String {
    let input = block.split("\n----").next().unwrap_or_default();
    let commands: Vec<&str> = input.lines().filter(|line| !line.starts_with('#')).collect();
    if commands.is_empty() {
        return block.to_owned();
    }
    let output: Vec<String> = commands.iter().flat_map(|line| execute(state, &Command::parse(line))).collect();
    let output = if output.is_empty() { "nothing".to_owned() } else { output.join("\n") };
    format!("{input}\n----\n{output}")
}

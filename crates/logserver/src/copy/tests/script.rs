//! Rules of one copy as a script, `testdata/copy.txt`; `UPDATE=1` rewrites the answers.
//!
//! A line is one request; the answer is the decision, and the state once it is durable. `stored=` in a store or repair
//! names what is on the disk (`first+records`, `!` for other bytes) where the copy asks for it.

use std::fmt::Write;
use std::path::PathBuf;

use super::*;

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("not a number: {text}"))
}

/// `1+2,3+1!`
fn batches(text: &str) -> Vec<PlacedBatch> {
    let one = |text: &str| {
        let (text, extra) = text.strip_suffix('!').map_or((text, ""), |text| (text, "!"));
        let (first_offset, records) = text.split_once('+').unwrap();
        placed_with(number(first_offset), number(records), extra)
    };
    text.split(',').filter(|text| !text.is_empty()).map(one).collect()
}

/// The words of a line: `command name=value ...`.
struct Line<'a> {
    command: &'a str,
    arguments: Vec<(&'a str, &'a str)>,
}

impl<'a> Line<'a> {
    fn new(line: &'a str) -> Self {
        let mut words = line.split_whitespace();
        let command = words.next().unwrap();
        Self { command, arguments: words.map(|word| word.split_once('=').unwrap()).collect() }
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.arguments.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }

    fn number(&self, name: &str) -> u64 {
        number(self.get(name).unwrap_or_else(|| panic!("{} needs {name}=", self.command)))
    }

    fn op(&self) -> OpId {
        op(self.number("op").into())
    }
}

fn decide(core: &mut CopyCore, line: &Line<'_>, chunk: Option<&Chunk>) -> Result<Decision, CopyError> {
    let committed_tail = at(line.get("committed").map_or(1, number));
    let batches = batches(line.get("batches").unwrap_or_default());
    if line.command == "repair" {
        return core.repair(RepairFacts { op: line.op(), committed_tail }, &batches, chunk);
    }
    let sequencer = sequencer(line.get("sequencer").map_or(1, |text| number(text) as u32));
    core.store(StoreFacts { sequencer, committed_tail }, &batches, chunk)
}

fn outcome(core: &mut CopyCore, line: &Line<'_>) -> Result<String, CopyError> {
    Ok(match line.command {
        "store" | "repair" => match decide(core, line, None)? {
            Decision::Compare { from, until } => {
                let stored = batches(line.get("stored").expect("the copy asks for what is stored"));
                let parts = stored.into_iter().map(Stored::Batch).collect();
                let decision = decide(core, line, Some(&Chunk { parts, covered_until: until }))?;
                format!("compared [{from},{until}), {decision:?}")
            }
            decision => format!("{decision:?}"),
        },
        "seal" => format!("{:?}", core.seal(line.op())),
        "settle" => format!("{:?}", core.settle(line.op(), at(line.number("decided")))?),
        "trim" => format!("{:?}", core.trim(at(line.number("point")))?),
        other => panic!("unknown command {other}"),
    })
}

fn step(core: &mut CopyCore, line: &str) -> String {
    let outcome = outcome(core, &Line::new(line)).unwrap_or_else(|error| format!("refused: {error}"));
    core.check();
    core.on_durable();
    let state = core.state();
    let mut text = format!("{outcome} | local={} committed={}", state.local_tail, state.committed_tail);
    for (name, value) in [
        ("sealed", state.sealed.map(OpId::get)),
        ("decided", state.decided_tail.map(|tail| tail.get().into())),
        ("trimmed", state.trim_point.map(|point| point.get().into())),
    ] {
        if let Some(value) = value {
            write!(text, " {name}={value}").unwrap();
        }
    }
    text
}

/// Runs a script: comments and blank lines are kept, `reset` starts with a new copy, answers start with `  ->`.
fn run(script: &str) -> String {
    let mut core = CopyCore::default();
    let mut output = String::new();
    for line in script.lines().filter(|line| !line.starts_with("  ->")) {
        writeln!(output, "{line}").unwrap();
        if line == "reset" {
            core = CopyCore::default();
        } else if !line.is_empty() && !line.starts_with('#') {
            writeln!(output, "  -> {}", step(&mut core, line)).unwrap();
        }
    }
    output
}

#[test]
fn scripts() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/copy.txt");
    let script = std::fs::read_to_string(&path).unwrap();
    let output = run(&script);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &output).unwrap();
    }
    assert_eq!(output, std::fs::read_to_string(&path).unwrap());
}

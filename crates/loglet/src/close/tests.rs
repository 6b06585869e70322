//! Scripts of single schedules, and random schedules of the core over a model of servers.

#![allow(clippy::panic)]

mod model;

use bifrost_types::DiskId;

use super::*;
use crate::fake::{offset, op, params};
use crate::script::{self, Command};

#[derive(Default)]
struct Finder {
    core: Option<(LogletParams, CloseLoglet)>,
    now: Duration,
}

#[test]
fn closing_follows_its_scripts() {
    script::run("close", |finder: &mut Finder, command| {
        if let Some(millis) = command.optional("at") {
            finder.now = Duration::from_millis(millis);
        }
        if command.name == "loglet" {
            let params = params(&command.list("nodes"), &command.get::<String>("replication"));
            match CloseLoglet::new(&params, op(1)) {
                Ok(core) => finder.core = Some((params, core)),
                Err(error) => return vec![error.to_string()],
            }
        }
        let (params, core) = finder.core.as_mut().expect("a script begins with loglet");
        let mut effects = Vec::new();
        core.step(finder.now, event(params, command), &mut effects);
        effects.iter().map(|effect| print(params, effect)).collect()
    });
}

fn index(params: &LogletParams, command: &Command, key: &str) -> NodeIndex {
    params.nodeset.index_of(command.get(key)).expect("a member")
}

fn event(params: &LogletParams, command: &Command) -> Event {
    match command.name.as_str() {
        "loglet" | "due" => Event::RetryDue,
        "sealed" => Event::Sealed { index: index(params, command, "n"), state: state(command, Some(op(1))) },
        "not-sealed" => Event::Sealed { index: index(params, command, "n"), state: state(command, None) },
        "seal-failed" => Event::SealFailed { index: index(params, command, "n"), error: error(command) },
        "read" => Event::Read {
            target: index(params, command, "for"),
            source: index(params, command, "n"),
            from: command.get("from"),
            chunk: Chunk {
                first_offset: command.optional("first").unwrap_or_else(|| command.get("from")),
                end: command.get("end"),
                batches: vec![Bytes::from_static(b"batch")],
            },
        },
        "read-failed" => Event::ReadFailed {
            target: index(params, command, "for"),
            source: index(params, command, "n"),
            from: command.get("from"),
            failure: match command.optional("absent") {
                Some(end) => ReadFailure::Absent { end },
                None => ReadFailure::Member(error(command)),
            },
        },
        "repaired" => Event::Repaired { target: index(params, command, "n"), state: state(command, Some(op(1))) },
        "lost" => {
            let member = |name: String| params.nodeset.index_of(name.parse().expect("a node")).expect("a member");
            Event::DeclaredLost(Some(command.list("nodes").into_iter().map(member).collect()))
        }
        "lost-unknown" => Event::DeclaredLost(None),
        "sequencer-ended" => Event::SequencerEnded(command.optional("committed")),
        "repair-failed" => Event::RepairFailed { target: index(params, command, "n"), error: error(command) },
        other => panic!("no command {other}"),
    }
}

fn state(command: &Command, sealed: Option<OpId>) -> CopyState {
    CopyState {
        local_tail: command.get("local"),
        committed_tail: command.optional("committed").unwrap_or(LogletOffset::FIRST),
        sealed,
        decided_tail: command.optional("decided"),
        trim_point: None,
    }
}

fn error(command: &Command) -> MemberError {
    match command.get::<String>("error").as_str() {
        "no-address" => MemberError::AddressUnknown,
        "unreachable" => RpcError::Unreachable.into(),
        "deadline" => RpcError::DeadlinePassed.into(),
        "wrong-disk" => {
            let actual = DiskId::try_from(99).expect("non-zero");
            MemberError::Call(CopyError::WrongDisk { actual }.into())
        }
        "not-sealed" => MemberError::Call(CopyError::NotSealed.into()),
        "disk-full" => MemberError::Call(CopyError::DiskFull.into()),
        other => panic!("no error {other}"),
    }
}

fn print(params: &LogletParams, effect: &Effect) -> String {
    let name = |index: &NodeIndex| params.nodeset.member(*index).expect("a member").node;
    match effect {
        Effect::Seal { index } => format!("seal {}", name(index)),
        Effect::Read { target, source, from, until } => {
            format!("read [{from},{until}) from {} for {}", name(source), name(target))
        }
        Effect::Repair { target, committed_tail, chunk } => {
            format!("repair {} [{},{}) committed={committed_tail}", name(target), chunk.first_offset, chunk.end)
        }
        Effect::RetryAt { at } => format!("retry at={}", at.as_millis()),
        Effect::Blocked(blocked) => format!("blocked: {blocked}"),
        Effect::AskWhoIsLost => "who is lost?".to_owned(),
        Effect::EndSequencer => "end the sequencer".to_owned(),
        Effect::Done(closed) => {
            let sealed: Vec<String> = closed.sealed.iter().map(|index| name(&index).to_string()).collect();
            let decided = closed.decided_tail.map(|tail| format!(" decided={tail}")).unwrap_or_default();
            let lost = closed.lost_from.map(|from| format!(" lost-from={from}")).unwrap_or_default();
            format!(
                "done candidate={}{lost} committed={}{decided} sealed=({}) seal={}ms repair={}ms bytes={}",
                closed.candidate_tail,
                closed.committed_tail,
                sealed.join(","),
                closed.seal_time.as_millis(),
                closed.repair_time.as_millis(),
                closed.repaired_bytes
            )
        }
        Effect::Failed(error) => format!("failed: {error}"),
    }
}

#[test]
fn every_event_may_come_in_every_state() {
    // L6 for the finder: nothing here may panic, also when a peer contradicts itself.
    let lines = [
        "sealed n=1 local=9 committed=12",
        "not-sealed n=2 local=3",
        "seal-failed n=3 error=unreachable",
        "read for=2 n=1 from=5 end=4",
        "read for=2 n=1 from=3 end=9",
        "read-failed for=2 n=1 from=3 absent=1",
        "repaired n=2 local=1",
        "repair-failed n=3 error=not-sealed",
        "sealed n=2 local=5 decided=7",
        "lost nodes=(2,3)",
        "due",
    ];
    let params = params(&["1".to_owned(), "2".to_owned(), "3".to_owned()], "2");
    for first in lines {
        for second in lines {
            for third in lines {
                let mut core = CloseLoglet::new(&params, op(1)).expect("three nodes hold two copies");
                let mut effects = Vec::new();
                core.step(Duration::ZERO, Event::RetryDue, &mut effects);
                for line in [first, second, third] {
                    core.step(Duration::ZERO, event(&params, &script::command(line)), &mut effects);
                    let _ = core.progress();
                }
            }
        }
    }
}

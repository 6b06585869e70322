//! A step in words.

use super::action::Action;
use super::call::{Answer, Call, Stage as CallStage, What};
use super::server::Server;
use super::{Life, State};

/// One step, and what it changed.
pub(super) fn step(before: &State, action: &Action, after: &State) -> String {
    let call_at = |server: &usize, call: &usize| {
        let known = before.servers.get(*server).and_then(|server| server.calls.get(*call));
        known.map(|call| in_words(call, *server)).unwrap_or_default()
    };
    let what = match action {
        Action::Append => format!("the writer appends record {}", after.appended),
        Action::StreamBreaks => {
            format!("the writer's stream breaks with record {} under way, it opens another one", after.appended + 1)
        }
        Action::LateAppend => "what the writer's older stream carried comes to the sequencer".to_owned(),
        Action::StreamEnds => "the sequencer hears that the writer's older stream ended".to_owned(),
        Action::Store { server } => format!("the sequencer's next store comes to N{}", server + 1),
        Action::StoreLost { server } => {
            format!("the connection to N{} breaks with a store under way, another one is made", server + 1)
        }
        Action::LateStore { server, .. } => format!("a store of a broken connection comes to N{}", server + 1),
        Action::Answer { server } => {
            let answer = before.servers.get(*server).and_then(|server| server.answers.first());
            let words = match answer {
                Some((_, Ok(state))) => format!("local tail {}", state.local_tail),
                Some((_, Err(error))) => error.to_string(),
                None => String::new(),
            };
            format!("the sequencer hears from N{}: {words}", server + 1)
        }
        Action::SequencerDies => "the sequencer is gone".to_owned(),
        Action::LastWord { finder } => format!("the sequencer ends, and finder {} hears its last word", finder + 1),
        Action::Retry { finder } => format!("the clock of finder {} rings", finder + 1),
        Action::Call { server, call } => format!("{} arrives", call_at(server, call)),
        Action::Double { server, call } => format!("{} arrives, and will arrive again", call_at(server, call)),
        Action::Reply { server, call } => format!("the answer to {} arrives", call_at(server, call)),
        Action::GiveUp { server, call } => format!("the finder gives up on {}", call_at(server, call)),
        Action::Decide { finder } => {
            let life = before.finders.get(*finder).map(|finder| finder.life);
            match life {
                Some(Life::Candidate(tail)) => format!("finder {} proposes tail {tail}", finder + 1),
                _ => format!("finder {} proposes", finder + 1),
            }
        }
        Action::Settle { server } => format!("N{} is told the decided tail", server + 1),
        Action::Commit { server } => format!("the group of N{} becomes durable", server + 1),
        Action::Crash { server } => format!("N{} stops and comes back with what is durable", server + 1),
        Action::LoseDisk { server } => format!("N{} comes back with an empty disk", server + 1),
        Action::ForeignStore { server } => format!("a store of another sequencer comes to N{}", server + 1),
        Action::OtherBytes { server } => format!("a store with other bytes comes to N{}", server + 1),
        Action::Full { server } => format!("the disk of N{} is full, its group is refused", server + 1),
        Action::Trim { server, trim_point } => format!("N{} is asked to trim up to {trim_point}", server + 1),
        Action::AskTail => "somebody asks for the linearizable tail".to_owned(),
        Action::TailState { server } => format!("N{} tells its state to whoever asks for the tail", server + 1),
        Action::TailSequencer => "the sequencer tells its committed tail to whoever asks for the tail".to_owned(),
        Action::SuccessorAppends => "the next segment acknowledges a record".to_owned(),
    };
    let changes: Vec<String> = changes(before, after).collect();
    if changes.is_empty() { what } else { format!("{what} → {}", changes.join(", ")) }
}

fn changes<'a>(before: &'a State, after: &'a State) -> impl Iterator<Item = String> + 'a {
    let servers = before.servers.iter().zip(&after.servers).enumerate();
    let servers = servers.flat_map(|(number, (before, after))| server_changes(number + 1, before, after));
    let finders = before.finders.iter().zip(&after.finders).enumerate();
    let finders = finders.filter(|(_, (before, after))| before.life != after.life).map(|(number, (_, after))| {
        let number = number + 1;
        match after.life {
            Life::Working => format!("finder {number} works"),
            Life::Candidate(tail) => format!("finder {number} has candidate {tail}"),
            Life::Over => format!("finder {number} is done"),
            Life::Superseded => format!("finder {number} is superseded"),
        }
    });
    let acknowledged =
        (before.acknowledged < after.acknowledged).then(|| format!("acknowledged below {}", after.acknowledged));
    let shown = (before.shown < after.shown).then(|| format!("readers see up to {}", after.shown));
    let decided = (before.decided != after.decided).then_some(after.decided).flatten();
    let ended = (before.sequencer.is_some() && after.sequencer.is_none()).then(|| "the sequencer ends".to_owned());
    let checked = match (&before.probe, &after.probe) {
        (Some(before), Some(after)) if before.check != after.check => after.check.map(|check| format!("{check:?}")),
        _ => None,
    };
    servers
        .chain(finders)
        .chain(acknowledged)
        .chain(shown)
        .chain(decided.map(|decided| format!("decided tail {}", decided.tail)))
        .chain(ended)
        .chain(checked)
}

fn server_changes(number: usize, before: &Server, after: &Server) -> impl Iterator<Item = String> {
    let local = (before.durable.local_tail != after.durable.local_tail)
        .then(|| format!("N{number} has all below {}", after.durable.local_tail));
    let staged = (before.staged != after.staged && after.dirty).then(|| format!("N{number} stages records"));
    let sealed = (before.durable.seal != after.durable.seal)
        .then_some(after.durable.seal)
        .flatten()
        .map(|seal| format!("N{number} is sealed by {}", seal.repair.get()));
    local.into_iter().chain(staged).chain(sealed)
}

fn in_words(call: &Call, server: usize) -> String {
    let who = call.finder.map_or_else(|| "nobody".to_owned(), |finder| format!("finder {}", finder + 1));
    let server = server + 1;
    let what = match &call.what {
        What::Seal => format!("the seal of {who} at N{server}"),
        What::Read { source, from, until } => {
            format!("the read of {who} of [{from}, {until}) at N{} for N{server}", source.get() + 1)
        }
        What::Repair { committed_tail, records } => {
            let offsets: Vec<String> = records.iter().map(|(offset, _)| offset.to_string()).collect();
            format!("the repair of {who} at N{server} (committed {committed_tail}, offsets {})", offsets.join(" "))
        }
    };
    match &call.stage {
        CallStage::Answered(Answer::State(Ok(state))) => {
            format!("{what} (local tail {}, committed {})", state.local_tail, state.committed_tail)
        }
        CallStage::Answered(Answer::State(Err(error))) => format!("{what} ({error})"),
        CallStage::Sent | CallStage::InGroup | CallStage::Answered(_) => what,
    }
}

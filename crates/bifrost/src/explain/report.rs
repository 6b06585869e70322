//! An explanation in words.

use std::fmt;

use bifrost_loglet::peers::MemberError;
use bifrost_types::{NodeId, NodeRecord, Reconfiguration};
use bifrost_wire::RpcError;
use bifrost_wire::log_server::{CallError, CopyError, CopyState};
use bifrost_wire::sequencer::{SequencerCallError, SequencerError};

use super::{
    Diagnosis, Evidence, Explanation, Lack, MemberView, MetadataView, QuorumKind, ReconfigurationStep, SequencerView,
};
use crate::chain::spent;

/// One line of evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What it is about: `sequencer`, `N3`, ...
    pub label: String,
    /// What was found.
    pub text: String,
}

/// A node as people read it: `N3`, or `N3 (removed)` when the cluster does not know it any more.
pub fn node_label(nodes: &[NodeRecord], node: NodeId) -> String {
    if nodes.iter().any(|record| record.id.node == node) { node.to_string() } else { format!("{node} (removed)") }
}

impl Explanation {
    /// What the log is doing or waits for.
    pub fn sentence(&self) -> String {
        let log = &self.asked;
        let said = |text: String| format!("log `{log}` {text}.");
        match &self.diagnosis {
            Diagnosis::Healthy { tail, silent } => {
                said(format!("takes appends; its tail is {tail}{}", self.although(silent)))
            }
            Diagnosis::Idle { tail, silent } => said(format!(
                "takes appends, and nothing was appended to its last segment yet; its tail is {tail}{}",
                self.although(silent)
            )),
            Diagnosis::Reconfiguring { for_good, step, lacks, actor, reason, .. } => {
                let what = if *for_good { "is being closed for good" } else { "is being reconfigured" };
                let waits = match lacks {
                    Some(lack) => format!("waits for {}", self.lack(lack)),
                    None => "lacks nothing: whoever drives it, or comes next, can finish it".to_owned(),
                };
                said(format!("{what} ({reason}, by {actor}): the operation {} and {waits}", self.step(step)))
            }
            Diagnosis::OrphanedSeal { op, sealed, fenced, lacks } => {
                let effect = if *fenced { "nothing can be acknowledged" } else { "appends may fail" };
                let sealed = self.nodes(sealed);
                let then = match lacks {
                    Some(lack) => format!("closing it waits for {}", self.lack(lack)),
                    None => "the next append finishes it".to_owned(),
                };
                said(format!(
                    "was sealed on {sealed} by operation {op}, of which its chain knows nothing: {effect}, and {then}"
                ))
            }
            Diagnosis::SequencerGone { sequencer, lacks } => {
                let then = match lacks {
                    Some(lack) => format!("closing the segment waits for {}", self.lack(lack)),
                    None => "the next append moves the log to another one".to_owned(),
                };
                said(format!("has lost its sequencer {sequencer}: {then}"))
            }
            Diagnosis::NoWriteQuorum { lacks } => {
                said(format!("cannot acknowledge appends: it waits for {}", self.lack(lacks)))
            }
            Diagnosis::SequencerBusy { sequencer, error } => {
                said(format!("takes no appends now: its sequencer {sequencer} says that {}", sequencer_says(*error)))
            }
            Diagnosis::ClosedForGood { tail, actor, reason, .. } => {
                said(format!("was closed for good ({reason}, by {actor}); it ends before {tail} and can be read"))
            }
            Diagnosis::BeingDeleted { lacks, .. } => {
                let then = match lacks {
                    Some(lack) => format!("closing it waits for {}", self.lack(lack)),
                    None => "nothing stands in the way: whoever deletes it, or any node, finishes that".to_owned(),
                };
                said(format!("is being deleted: {then}"))
            }
            Diagnosis::Deleted { owing, .. } if owing.is_empty() => {
                said("was deleted, and its servers have given its space back".to_owned())
            }
            Diagnosis::Deleted { owing, .. } => {
                said(format!("was deleted; its space is still to be given back by {}", self.nodes(owing)))
            }
            Diagnosis::NoSuchLog => format!("there is no log `{log}`."),
            Diagnosis::NoMetadata => {
                format!("the cluster's metadata does not answer, so nothing can be said about log `{log}`.")
            }
            Diagnosis::Damaged => said("has a chain that contradicts itself: a person must look".to_owned()),
        }
    }

    /// What to do next.
    pub fn next(&self) -> String {
        let log = &self.asked;
        let again = format!("then `bifrost explain {log}`");
        match &self.diagnosis {
            Diagnosis::Healthy { silent, .. } | Diagnosis::Idle { silent, .. } if !silent.is_empty() => {
                format!("start {}, {again}", self.addresses(silent))
            }
            Diagnosis::Healthy { .. } => format!("nothing to do; `bifrost tail {log}` asks for the tail"),
            Diagnosis::Idle { .. } => format!("nothing to do; `bifrost append {log}` appends lines of stdin"),
            Diagnosis::Reconfiguring { lacks: Some(lack), .. }
            | Diagnosis::OrphanedSeal { lacks: Some(lack), .. }
            | Diagnosis::SequencerGone { lacks: Some(lack), .. }
            | Diagnosis::BeingDeleted { lacks: Some(lack), .. }
            | Diagnosis::NoWriteQuorum { lacks: lack } => format!(
                "start {}, {again}; a disk that is lost for good is given up with `bifrost node set-state NODE data-loss`",
                self.addresses(&lack.of)
            ),
            Diagnosis::Reconfiguring { .. } | Diagnosis::OrphanedSeal { .. } | Diagnosis::SequencerGone { .. } => {
                format!("`bifrost reconfigure {log}` finishes it now")
            }
            Diagnosis::SequencerBusy { error: SequencerCallError::Refused(SequencerError::DiskFull), .. } => {
                format!("make room: `bifrost trim {log}`, or larger disks; appends go on by themselves")
            }
            Diagnosis::SequencerBusy { .. } => format!("wait, {again}"),
            Diagnosis::ClosedForGood { .. } => format!("`bifrost read {log}` reads what is in it"),
            Diagnosis::BeingDeleted { .. } => format!("`bifrost log delete {log} --yes` finishes it now"),
            Diagnosis::Deleted { owing, .. } if !owing.is_empty() => match self.silent_of(owing) {
                silent if silent.is_empty() => "nothing to do: the nodes see to it within a minute".to_owned(),
                silent => format!("start {}, or leave it: it is asked again and again", self.addresses(&silent)),
            },
            Diagnosis::Deleted { .. } | Diagnosis::NoSuchLog => "`bifrost log list` shows all logs".to_owned(),
            Diagnosis::NoMetadata => "start a node of the cluster, or name one that runs with --address".to_owned(),
            Diagnosis::Damaged => "keep the metadata and the servers' logs, and report it".to_owned(),
        }
    }

    /// Why that is believed: metadata, the sequencer, each server.
    pub fn lines(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        let evidence = &self.evidence;
        let mut line = |label: &str, text: String| lines.push(Line { label: label.to_owned(), text });
        match &evidence.metadata {
            MetadataView::Chain(_) => {}
            MetadataView::Deleting { tombstone, .. } | MetadataView::Removed(tombstone) => {
                let since = ago(evidence, tombstone.opened_at_millis);
                line("deletion", format!("operation {}, begun {since}", tombstone.op));
            }
            MetadataView::NoSuchLog => line("metadata", "answers, and knows no such log".to_owned()),
            MetadataView::NoAnswer { error, tried, .. } => {
                line("metadata", error.to_string());
                for (address, reason) in tried {
                    line(address, reason.clone());
                }
            }
        }
        if let Some(chain) = evidence.metadata.chain()
            && let Some(last) = chain.last()
        {
            let count = chain.segments.len();
            let state = if last.decided_tail().is_some() { "closed" } else { "open" };
            let quorum = format!("replication {}", last.params.replication);
            line("segment", format!("{} ({state}), the last of {count}; {quorum}", last.params.id));
            if let Some(trimmed) = spent(chain).last() {
                let text = "in the chain until every server that is not given up has dropped them";
                line("trimmed", format!("segments up to {}, {text}", trimmed.params.id));
            }
            if let Some(pending) = &chain.pending {
                line("pending", self.pending(pending));
            }
            if let Some(view) = evidence.sequencer {
                line("sequencer", format!("{} {}", last.params.sequencer, sequencer(view)));
            }
            if let Some(pin) = evidence.pin {
                line("pin", pinned(pin, last.params.sequencer.node));
            }
        }
        for member in &evidence.members {
            line(&node_label(&evidence.nodes, member.node), member_text(member));
        }
        for member in &evidence.successor {
            if let Err(error) = member.answer {
                let label = format!("next {}", node_label(&evidence.nodes, member.node));
                line(&label, format!("is to hold the next segment, and {}", failure(error)));
            }
        }
        lines
    }

    fn pending(&self, pending: &Reconfiguration) -> String {
        let Reconfiguration { op, actor, reason, attempt, opened_at_millis, successor, .. } = pending;
        let next = match successor {
            Some(successor) => format!("next sequencer {}", successor.sequencer),
            None => "no next segment".to_owned(),
        };
        let since = ago(&self.evidence, *opened_at_millis);
        format!("operation {op} by {actor} ({reason}), announced {since}, attempt {attempt}, {next}")
    }

    fn step(&self, step: &ReconfigurationStep) -> String {
        match step {
            ReconfigurationStep::Announced => "is announced".to_owned(),
            ReconfigurationStep::Sealing { sealed } => format!("has sealed {}", self.nodes(sealed)),
            ReconfigurationStep::Repairing { from, until } => {
                format!("is sealed, has to copy offsets {from} to {until}")
            }
            ReconfigurationStep::Deciding { .. } => "is sealed and stored, has to be decided".to_owned(),
        }
    }

    fn lack(&self, lack: &Lack) -> String {
        let quorum = match lack.quorum {
            QuorumKind::FMajority => "an f-majority",
            QuorumKind::Write => "a write quorum",
        };
        format!("{} of {} (for {quorum})", lack.at_least, self.nodes(&lack.of))
    }

    fn although(&self, silent: &[NodeId]) -> String {
        if silent.is_empty() { String::new() } else { format!(", although {} gave no answer", self.nodes(silent)) }
    }

    fn nodes(&self, nodes: &[NodeId]) -> String {
        let labels: Vec<String> = nodes.iter().map(|node| node_label(&self.evidence.nodes, *node)).collect();
        labels.join(", ")
    }

    /// Those that gave no answer.
    fn silent_of(&self, nodes: &[NodeId]) -> Vec<NodeId> {
        let members = self.evidence.members.iter();
        let silent = members.filter(|member| member.answer.is_err() && nodes.contains(&member.node));
        silent.map(|member| member.node).collect()
    }

    /// Where to find nodes that are to be started.
    fn addresses(&self, nodes: &[NodeId]) -> String {
        let label = |node: &NodeId| {
            let record = self.evidence.nodes.iter().find(|record| record.id.node == *node);
            match record {
                Some(record) if record.address.is_empty() => format!("{node} (`{}`)", record.name),
                Some(record) => format!("{node} (`{}`, {})", record.name, record.address),
                None => format!("{node} (removed)"),
            }
        };
        nodes.iter().map(label).collect::<Vec<_>>().join(" or ")
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.sentence())?;
        let lines = self.lines();
        let width = lines.iter().map(|line| line.label.len()).max().unwrap_or_default();
        for Line { label, text } in &lines {
            writeln!(f, "  {label:width$}  {text}")?;
        }
        write!(f, "next: {}", self.next())
    }
}

fn ago(evidence: &Evidence, then_millis: u64) -> String {
    match evidence.taken_at_millis.saturating_sub(then_millis) / 1_000 {
        seconds @ 0..120 => format!("{seconds} s ago"),
        seconds @ 120..7_200 => format!("{} min ago", seconds / 60),
        seconds => format!("{} h ago", seconds / 3_600),
    }
}

fn member_text(member: &MemberView) -> String {
    match member.answer {
        Ok(CopyState { local_tail, committed_tail, sealed, decided_tail, trim_point }) => {
            let mut text = match sealed {
                Some(op) => format!("sealed by {op}"),
                None => "open".to_owned(),
            };
            text.push_str(&format!(", has offsets below {local_tail}, knows {committed_tail} as committed tail"));
            if let Some(decided) = decided_tail {
                text.push_str(&format!(", ended at {decided}"));
            }
            if let Some(point) = trim_point {
                text.push_str(&format!(", trimmed up to {point}"));
            }
            text
        }
        Err(error) => failure(error),
    }
}

/// Why a server did not answer, as a predicate.
fn failure(error: MemberError) -> String {
    match error {
        MemberError::AddressUnknown => "has no known address".to_owned(),
        MemberError::Call(CallError::Rpc(error)) => rpc(error),
        MemberError::Call(CallError::Copy(CopyError::WrongDisk { actual })) => {
            format!("has another disk now ({actual}); the wanted one is not there")
        }
        MemberError::Call(CallError::Copy(CopyError::DiskFull)) => "says that its disk is full".to_owned(),
        MemberError::Call(CallError::Copy(error)) => format!("refuses: {error}"),
    }
}

fn rpc(error: RpcError) -> String {
    match error {
        RpcError::Unreachable => "cannot be reached".to_owned(),
        RpcError::DeadlinePassed => "did not answer in time".to_owned(),
        RpcError::Overloaded => "is overloaded".to_owned(),
        RpcError::ShuttingDown => "is shutting down".to_owned(),
        error => format!("gave no answer: {error}"),
    }
}

/// Where an operator wants the sequencer, and why it may not be there.
fn pinned(pin: NodeId, sequencer: NodeId) -> String {
    if pin == sequencer {
        return format!("to {pin}, which numbers the appends");
    }
    format!(
        "to {pin}, and {sequencer} numbers the appends: {pin} was not there when the segment was opened, or was pinned \
         later; a reconfiguration goes there when it answers"
    )
}

fn sequencer(view: SequencerView) -> String {
    match view {
        SequencerView::Answered(tails) => {
            format!("runs: committed tail {}, next offset {}", tails.committed_tail, tails.next_offset)
        }
        SequencerView::LaterLife { now } => format!("is gone: its node lives as {now}"),
        SequencerView::Removed => "is gone: its node was removed".to_owned(),
        SequencerView::Failed(SequencerCallError::Rpc(error)) => rpc(error),
        SequencerView::Failed(SequencerCallError::Refused(error)) => format!("refuses: {error}"),
    }
}

fn sequencer_says(error: SequencerCallError) -> String {
    match error {
        SequencerCallError::Rpc(error) => error.to_string(),
        SequencerCallError::Refused(error) => error.to_string(),
    }
}

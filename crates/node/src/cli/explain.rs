//! `bifrost explain`.

use std::time::Duration;

use bifrost::catalog::CatalogError;
use bifrost::explain::{
    Asked, Diagnosis, Explanation, Lack, MemberView, MetadataView, QuorumKind, ReconfigurationStep,
};
use bifrost_wire::metadata::MetadataError;
use serde::Serialize;
use tokio::time::timeout;

use super::context::{Context, Output, Style};
use super::error::{CliError, ErrorCode, printable};
use super::exit::Exit;
use super::failures::probe;
use super::log_ref::LogRef;

/// How long the cluster has to let us in: whoever asks this is not in the mood to wait.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(crate) struct ExplainArgs {
    /// The log, by name or number
    log: LogRef,
}

/// The explanation, as JSON.
#[derive(Debug, Serialize)]
struct ExplainReport {
    asked: String,
    log: Option<u64>,
    state: &'static str,
    sentence: String,
    next: String,
    /// `announced`, `sealing`, `repairing` or `deciding`, while a reconfiguration is pending.
    step: Option<&'static str>,
    lacks: Option<LackReport>,
    pending: Option<PendingReport>,
    servers: Vec<ServerReport>,
    evidence: Vec<LineReport>,
}

#[derive(Debug, Serialize)]
struct LackReport {
    /// `f-majority` or `write-quorum`.
    quorum: &'static str,
    at_least: usize,
    of: Vec<String>,
}

#[derive(Debug, Serialize)]
struct PendingReport {
    op: String,
    actor: String,
    reason: String,
    opened_at_millis: u64,
    attempt: u32,
    for_good: bool,
}

#[derive(Debug, Serialize)]
struct ServerReport {
    node: String,
    removed: bool,
    disk: String,
    /// Why there is no answer.
    error: Option<String>,
    local_tail: Option<u64>,
    committed_tail: Option<u64>,
    sealed_by: Option<String>,
    decided_tail: Option<u64>,
    trim_point: Option<u64>,
}

#[derive(Debug, Serialize)]
struct LineReport {
    label: String,
    text: String,
}

pub(crate) async fn run(context: &Context, args: ExplainArgs) -> Result<Exit, CliError> {
    let explanation = explain(context, &args.log).await?;
    if context.output() == Output::Json {
        context.print_json(&report(&explanation))?;
    } else {
        context.print(&text(context, &explanation))?;
    }
    Ok(match explanation.diagnosis {
        Diagnosis::NoSuchLog => Exit::NotFound,
        Diagnosis::NoMetadata => Exit::Unreachable,
        _ => Exit::Done,
    })
}

async fn explain(context: &Context, log: &LogRef) -> Result<Explanation, CliError> {
    let connected = timeout(CONNECT_DEADLINE, context.bifrost()).await;
    let bifrost = match connected {
        Ok(Ok(bifrost)) => bifrost,
        Ok(Err(error)) if !matches!(error.code(), ErrorCode::Unreachable | ErrorCode::TimedOut) => return Err(error),
        Ok(Err(_)) | Err(_) => {
            let asked = match log {
                LogRef::Id(log) => Asked::Id(*log),
                LogRef::Name(name) => Asked::Name(name.clone()),
            };
            let tried = probe(&context.config().client.addresses).await;
            let tried = tried.into_iter().map(|(address, found)| (address, found.to_string())).collect();
            let error = CatalogError::Metadata(MetadataError::Unavailable);
            let metadata = MetadataView::NoAnswer { error, tried, last_seen: None };
            return Ok(Explanation::without_evidence(asked, metadata));
        }
    };
    Ok(match log {
        LogRef::Id(log) => bifrost.explain(*log).await,
        LogRef::Name(name) => bifrost.explain_named(name).await,
    })
}

fn text(context: &Context, explanation: &Explanation) -> String {
    let style = match &explanation.diagnosis {
        Diagnosis::Healthy { silent, .. } | Diagnosis::Idle { silent, .. } if silent.is_empty() => Style::Good,
        Diagnosis::ClosedForGood { .. } | Diagnosis::Deleted { .. } => Style::Strong,
        _ if lack(&explanation.diagnosis).is_some() => Style::Bad,
        Diagnosis::NoSuchLog | Diagnosis::NoMetadata | Diagnosis::Damaged => Style::Bad,
        _ => Style::Warning,
    };
    let mut text = format!("{}\n", context.paint(style, printable(&explanation.sentence())));
    let lines = explanation.lines();
    let width = lines.iter().map(|line| line.label.chars().count()).max().unwrap_or_default();
    for line in &lines {
        text += &format!("  {:width$}  {}\n", printable(&line.label), printable(&line.text));
    }
    text += &format!("{} {}\n", context.paint(Style::Strong, "next:"), printable(&explanation.next()));
    text
}

fn report(explanation: &Explanation) -> ExplainReport {
    let chain = explanation.evidence.metadata.chain();
    let pending = chain.and_then(|chain| chain.pending.as_ref());
    let line = |line: bifrost::explain::Line| LineReport { label: line.label, text: line.text };
    let server = |member: &MemberView| server(explanation, member);
    ExplainReport {
        asked: explanation.asked.to_string(),
        log: chain.map(|chain| chain.log.get()),
        state: state(&explanation.diagnosis),
        sentence: explanation.sentence(),
        next: explanation.next(),
        step: match &explanation.diagnosis {
            Diagnosis::Reconfiguring { step, .. } => Some(match step {
                ReconfigurationStep::Announced => "announced",
                ReconfigurationStep::Sealing { .. } => "sealing",
                ReconfigurationStep::Repairing { .. } => "repairing",
                ReconfigurationStep::Deciding { .. } => "deciding",
            }),
            _ => None,
        },
        lacks: lack(&explanation.diagnosis).map(|lack| LackReport {
            quorum: match lack.quorum {
                QuorumKind::FMajority => "f-majority",
                QuorumKind::Write => "write-quorum",
            },
            at_least: lack.at_least,
            of: lack.of.iter().map(ToString::to_string).collect(),
        }),
        pending: pending.map(|pending| PendingReport {
            op: pending.op.to_string(),
            actor: pending.actor.to_string(),
            reason: pending.reason.to_string(),
            opened_at_millis: pending.opened_at_millis,
            attempt: pending.attempt,
            for_good: pending.successor.is_none(),
        }),
        servers: explanation.evidence.members.iter().map(server).collect(),
        evidence: explanation.lines().into_iter().map(line).collect(),
    }
}

fn server(explanation: &Explanation, member: &MemberView) -> ServerReport {
    let state = member.answer.ok();
    ServerReport {
        node: member.node.to_string(),
        removed: !explanation.evidence.nodes.iter().any(|node| node.id.node == member.node),
        disk: member.disk.to_string(),
        error: member.answer.err().map(|error| error.to_string()),
        local_tail: state.map(|state| state.local_tail.get()),
        committed_tail: state.map(|state| state.committed_tail.get()),
        sealed_by: state.and_then(|state| state.sealed).map(|op| op.to_string()),
        decided_tail: state.and_then(|state| state.decided_tail).map(|tail| tail.get()),
        trim_point: state.and_then(|state| state.trim_point).map(|point| point.get()),
    }
}

const fn lack(diagnosis: &Diagnosis) -> Option<&Lack> {
    match diagnosis {
        Diagnosis::Reconfiguring { lacks, .. }
        | Diagnosis::OrphanedSeal { lacks, .. }
        | Diagnosis::SequencerGone { lacks, .. }
        | Diagnosis::BeingDeleted { lacks, .. } => lacks.as_ref(),
        Diagnosis::NoWriteQuorum { lacks } => Some(lacks),
        Diagnosis::Healthy { .. }
        | Diagnosis::Idle { .. }
        | Diagnosis::SequencerBusy { .. }
        | Diagnosis::ClosedForGood { .. }
        | Diagnosis::Deleted { .. }
        | Diagnosis::NoSuchLog
        | Diagnosis::NoMetadata
        | Diagnosis::Damaged => None,
    }
}

/// Stable names: docs/CLI.md.
const fn state(diagnosis: &Diagnosis) -> &'static str {
    match diagnosis {
        Diagnosis::Healthy { .. } => "healthy",
        Diagnosis::Idle { .. } => "idle",
        Diagnosis::Reconfiguring { .. } => "reconfiguring",
        Diagnosis::OrphanedSeal { .. } => "orphaned-seal",
        Diagnosis::SequencerGone { .. } => "sequencer-gone",
        Diagnosis::NoWriteQuorum { .. } => "no-write-quorum",
        Diagnosis::SequencerBusy { .. } => "sequencer-busy",
        Diagnosis::ClosedForGood { .. } => "closed",
        Diagnosis::BeingDeleted { .. } => "being-deleted",
        Diagnosis::Deleted { .. } => "deleted",
        Diagnosis::NoSuchLog => "no-such-log",
        Diagnosis::NoMetadata => "no-metadata",
        Diagnosis::Damaged => "damaged",
    }
}

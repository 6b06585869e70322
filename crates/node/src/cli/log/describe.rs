//! `bifrost log describe`.

use std::time::Duration;

use bifrost::explain::node_label;
use bifrost::{Chain, Lsn, TailUnknown};
use bifrost_types::{NodeId, NodeRecord, Reconfiguration, Segment, SegmentState};
use serde::Serialize;

use crate::cli::context::{Context, Output, Style};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::failures::{catalog_error, log_error};
use crate::cli::log_ref::LogRef;

/// Segments that are shown without `--all`.
const SHOWN: usize = 10;

#[derive(Debug, clap::Args)]
pub(crate) struct DescribeArgs {
    /// The log, by name or number
    log: LogRef,
    /// Show all segments, not only the last ten (JSON always has all)
    #[arg(long)]
    all: bool,
}

/// The log, as JSON.
#[derive(Debug, Serialize)]
struct DescribeReport {
    log: u64,
    name: Option<String>,
    version: u64,
    tail: Option<u64>,
    tail_unknown: Option<String>,
    trim_point: Option<u64>,
    pin: Option<String>,
    pending: Option<PendingReport>,
    segments: Vec<SegmentReport>,
}

#[derive(Debug, Serialize)]
struct PendingReport {
    op: String,
    actor: String,
    reason: String,
    opened_at_millis: u64,
    attempt: u32,
    for_good: bool,
    next_sequencer: Option<String>,
}

#[derive(Debug, Serialize)]
struct SegmentReport {
    segment: u32,
    loglet: String,
    base_lsn: u64,
    /// First LSN after it; `None` while it is open and its tail is not known.
    tail: Option<u64>,
    state: &'static str,
    replication: String,
    sequencer: String,
    nodeset: Vec<MemberReport>,
    closed: Option<ClosedReport>,
    /// From this LSN to the tail nothing is left; nobody can say how much of it was ever written.
    lost_from: Option<u64>,
}

#[derive(Debug, Serialize)]
struct MemberReport {
    node: String,
    /// The cluster does not know the node any more.
    removed: bool,
    disk: String,
}

#[derive(Debug, Serialize)]
struct ClosedReport {
    op: String,
    actor: String,
    reason: String,
    seal_micros: u64,
    repair_micros: u64,
    total_micros: u64,
}

pub(crate) async fn run(context: &Context, args: DescribeArgs) -> Result<Exit, CliError> {
    let log = context.log(&args.log).await?;
    let described = context.within("reading the chain", log.describe()).await?;
    let chain = described.map_err(|error| log_error(&args.log, error))?;
    let tail = context.within("asking for the tail", log.peek_tail()).await?;
    let bifrost = context.bifrost().await?;
    let pin = context.within("reading the pin", bifrost.catalog().pin(log.id())).await?.map_err(catalog_error)?;
    let nodes = bifrost.nodes();
    if context.output() == Output::Json {
        context.print_json(&report(&chain, &tail, pin, &nodes))?;
    } else {
        context.print(&text(context, &chain, &tail, (pin, &nodes), args.all))?;
    }
    Ok(Exit::Done)
}

fn report(chain: &Chain, tail: &Result<Lsn, TailUnknown>, pin: Option<NodeId>, nodes: &[NodeRecord]) -> DescribeReport {
    DescribeReport {
        log: chain.log.get(),
        name: chain.name.clone(),
        version: chain.version,
        tail: tail.as_ref().ok().map(|tail| tail.get()),
        tail_unknown: tail.as_ref().err().map(ToString::to_string),
        trim_point: chain.trim_point.map(Lsn::get),
        pin: pin.map(|node| node.to_string()),
        pending: chain.pending.as_ref().map(pending_report),
        segments: chain.segments.iter().map(|segment| segment_report(segment, tail, nodes)).collect(),
    }
}

fn pending_report(pending: &Reconfiguration) -> PendingReport {
    PendingReport {
        op: pending.op.to_string(),
        actor: pending.actor.to_string(),
        reason: pending.reason.to_string(),
        opened_at_millis: pending.opened_at_millis,
        attempt: pending.attempt,
        for_good: pending.successor.is_none(),
        next_sequencer: pending.successor.as_ref().map(|successor| successor.sequencer.to_string()),
    }
}

fn segment_report(segment: &Segment, tail: &Result<Lsn, TailUnknown>, nodes: &[NodeRecord]) -> SegmentReport {
    let closed = match &segment.state {
        SegmentState::Open => None,
        SegmentState::Sealed { op, actor, reason, timings, .. } => Some(ClosedReport {
            op: op.to_string(),
            actor: actor.to_string(),
            reason: reason.to_string(),
            seal_micros: timings.seal_micros,
            repair_micros: timings.repair_micros,
            total_micros: timings.total_micros,
        }),
    };
    SegmentReport {
        segment: segment.index().get(),
        loglet: segment.params.id.to_string(),
        base_lsn: segment.base_lsn.get(),
        tail: end(segment, tail).map(Lsn::get),
        state: if closed.is_some() { "closed" } else { "open" },
        replication: segment.params.replication.to_string(),
        sequencer: segment.params.sequencer.to_string(),
        nodeset: segment
            .params
            .nodeset
            .members()
            .iter()
            .map(|member| MemberReport {
                node: member.node.to_string(),
                removed: !nodes.iter().any(|node| node.id.node == member.node),
                disk: member.disk.to_string(),
            })
            .collect(),
        closed,
        lost_from: lost_from(segment).map(Lsn::get),
    }
}

/// First LSN of a segment whose end is lost.
fn lost_from(segment: &Segment) -> Option<Lsn> {
    let SegmentState::Sealed { lost_from, .. } = segment.state else { return None };
    lost_from?.to_lsn(segment.base_lsn).ok()
}

/// First LSN after a segment.
fn end(segment: &Segment, tail: &Result<Lsn, TailUnknown>) -> Option<Lsn> {
    match segment.decided_tail() {
        Some(decided) => decided.to_lsn(segment.base_lsn).ok(),
        None => tail.as_ref().ok().copied(),
    }
}

fn text(
    context: &Context,
    chain: &Chain,
    tail: &Result<Lsn, TailUnknown>,
    (pin, nodes): (Option<NodeId>, &[NodeRecord]),
    all: bool,
) -> String {
    let name = chain.name.as_deref().unwrap_or("(no name)");
    let mut text = format!("{} (number {})\n", context.paint(Style::Strong, name), chain.log);
    let mut line = |label: &str, value: String| text += &format!("  {label:<12} {value}\n");
    match tail {
        Ok(tail) => line("tail", tail.to_string()),
        Err(why) => line("tail", context.paint(Style::Warning, format!("unknown: {why}"))),
    }
    line("trim point", chain.trim_point.map_or_else(|| "nothing is trimmed".to_owned(), |point| point.to_string()));
    if let Some(last) = chain.last() {
        line("replication", last.params.replication.to_string());
    }
    if let Some(pin) = pin {
        line("pinned to", node_label(nodes, pin));
    }
    if let Some(pending) = &chain.pending {
        let what = if pending.successor.is_some() { "reconfiguration" } else { "closing for good" };
        let told = format!("{what} {} by {} ({})", pending.op, pending.actor, pending.reason);
        line("pending", context.paint(Style::Warning, told));
    }
    let hidden = if all { 0 } else { chain.segments.len().saturating_sub(SHOWN) };
    text +=
        &format!("\n{:>8} {:>12} {:>12}  {:<7} {:<10} NODESET\n", "SEGMENT", "BASE LSN", "TAIL", "STATE", "SEQUENCER");
    if hidden > 0 {
        text += &format!("{:>8} {hidden} older segments; --all shows them\n", "...");
    }
    for segment in chain.segments.iter().skip(hidden) {
        let members = segment.params.nodeset.members().iter();
        let members: Vec<String> = members.map(|member| node_label(nodes, member.node)).collect();
        text += &format!(
            "{:>8} {:>12} {:>12}  {:<7} {:<10} {}\n",
            segment.index().get(),
            segment.base_lsn.get(),
            end(segment, tail).map_or_else(|| "?".to_owned(), |tail| tail.to_string()),
            if segment.decided_tail().is_some() { "closed" } else { "open" },
            segment.params.sequencer.to_string(),
            members.join(", "),
        );
        if let SegmentState::Sealed { op, actor, reason, timings, .. } = &segment.state {
            let times = format!(
                "seal {}, repair {}, total {}",
                micros(timings.seal_micros),
                micros(timings.repair_micros),
                micros(timings.total_micros)
            );
            let closed = format!("{:>8} by {actor} ({reason}), operation {op}: {times}", "closed");
            text += &format!("{}\n", context.paint(Style::Dim, closed));
        }
        if let Some(from) = lost_from(segment) {
            let told =
                "nothing is left from there to the tail; too many disks were declared lost to know where it ended";
            let told = format!("{:>8} from LSN {from}: {told}", "lost");
            text += &format!("{}\n", context.paint(Style::Warning, told));
        }
    }
    text
}

fn micros(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} us"),
        1_000..10_000_000 => format!("{:.1} ms", Duration::from_micros(micros).as_secs_f64() * 1e3),
        _ => format!("{:.1} s", Duration::from_micros(micros).as_secs_f64()),
    }
}

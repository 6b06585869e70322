//! `bifrost reconfigure`.

use bifrost::explain::node_label;
use bifrost::reconfigure::Reconfigured;
use bifrost::{Bifrost, Plan, ReconfigureOptions, ReplicationProperty};
use bifrost_types::{NodeId, Successor};
use serde::Serialize;

use super::context::{Context, Output};
use super::error::{CliError, ErrorCode};
use super::exit::Exit;
use super::failures::log_error;
use super::log_ref::LogRef;
use super::waiting::with_progress;

/// Shown after the options.
pub(crate) const HELP: &str = "\
Closes the last segment and opens the next, elsewhere or otherwise. Appenders and readers go on without noticing. \
Without options the sequencer moves to another node. A reconfiguration that is pending is carried out first, and that is \
reported.";

#[derive(Debug, clap::Args)]
pub(crate) struct ReconfigureArgs {
    /// The log, by name or number
    log: LogRef,
    /// The nodes that may hold the next segment, by id or name: N1,N2,n3 [default: chosen by placement]
    #[arg(long, value_name = "NODE", value_delimiter = ',')]
    nodeset: Option<Vec<String>>,
    /// The replication property from the next segment on: `2`, or `{zone: 2, node: 3}` [default: as it is]
    #[arg(long, value_name = "PROPERTY")]
    replication: Option<ReplicationProperty>,
    /// The node that numbers appends to the next segment, by id or name [default: another one than now]
    #[arg(long, value_name = "NODE")]
    sequencer: Option<String>,
    /// Close the log for good: no segment comes after
    #[arg(long, conflicts_with_all = ["nodeset", "replication", "sequencer"])]
    close: bool,
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask (only `--close` asks)
    #[arg(long, short)]
    yes: bool,
}

/// What would be done, as JSON.
#[derive(Debug, Serialize)]
struct PlanReport {
    log: u64,
    name: Option<String>,
    dry_run: bool,
    closes: u32,
    pending: Option<String>,
    next: Option<NextReport>,
}

#[derive(Debug, Serialize)]
struct NextReport {
    sequencer: String,
    replication: String,
    nodeset: Vec<String>,
}

/// What was done, as JSON.
#[derive(Debug, Serialize)]
struct ReconfigureReport {
    log: u64,
    name: Option<String>,
    /// `done`, or `superseded` when another operation closed the segment.
    outcome: &'static str,
    op: String,
    closed: u32,
    /// First LSN after the closed segment.
    tail: Option<u64>,
    opened: Option<u32>,
    next: Option<NextReport>,
}

pub(crate) async fn run(context: &Context, args: ReconfigureArgs) -> Result<Exit, CliError> {
    let log = context.log(&args.log).await?;
    let bifrost = context.bifrost().await?;
    let nodes = args.nodeset.iter().flatten().map(|node| find_node(bifrost, node)).collect::<Result<Vec<_>, _>>()?;
    let options = ReconfigureOptions {
        nodes: args.nodeset.is_some().then_some(nodes),
        replication: args.replication,
        sequencer: args.sequencer.as_deref().map(|node| find_node(bifrost, node)).transpose()?,
        close: args.close,
        ..ReconfigureOptions::default()
    };
    if args.dry_run {
        let plan = context.within("planning", log.plan_reconfigure(&options)).await?;
        let plan = plan.map_err(|error| log_error(&args.log, error))?;
        show_plan(context, &args.log, &log, bifrost, &plan)?;
        return Ok(Exit::Done);
    }
    if args.close && !args.yes && !context.confirm(&format!("close log {} for good?", args.log))? {
        return Err(CliError::new(ErrorCode::Refused, "not confirmed: nothing was closed"));
    }
    let driving = log.reconfigure(options);
    let outcome = with_progress(context, "reconfiguring", log.progress(), driving).await?;
    let outcome = outcome.map_err(|error| log_error(&args.log, error))?;
    show_outcome(context, &args.log, &log, bifrost, &outcome)?;
    Ok(Exit::Done)
}

/// A node by its id (`N3` or `3`) or by its name.
fn find_node(bifrost: &Bifrost, text: &str) -> Result<NodeId, CliError> {
    if let Some(record) = bifrost.nodes().iter().find(|record| record.name == text) {
        return Ok(record.id.node);
    }
    text.parse().map_err(|_| {
        CliError::new(ErrorCode::InvalidArgument, format!("`{text}` is no node"))
            .with_advice("a node goes by its id, such as N3, or by its name; `bifrost log describe` shows them")
    })
}

fn next_report(bifrost: &Bifrost, successor: &Successor) -> NextReport {
    let nodes = bifrost.nodes();
    NextReport {
        sequencer: successor.sequencer.to_string(),
        replication: successor.replication.to_string(),
        nodeset: successor.nodeset.members().iter().map(|member| node_label(&nodes, member.node)).collect(),
    }
}

fn describe_next(next: &NextReport) -> String {
    format!("sequencer {}, replication {} on {}", next.sequencer, next.replication, next.nodeset.join(", "))
}

fn show_plan(
    context: &Context,
    asked: &LogRef,
    log: &bifrost::Log,
    bifrost: &Bifrost,
    plan: &Plan,
) -> Result<(), CliError> {
    let next = plan.successor.as_ref().map(|successor| next_report(bifrost, successor));
    let pending = plan.pending.as_ref().map(|pending| pending.op.to_string());
    if context.output() == Output::Json {
        let (log, name) = (log.id().get(), log.name());
        return context.print_json(&PlanReport { log, name, dry_run: true, closes: plan.closes.get(), pending, next });
    }
    let mut text = format!("log {asked}: nothing was done; segment {} would be closed", plan.closes);
    match &next {
        Some(next) => text += &format!(", and the next one opened:\n  {}\n", describe_next(next)),
        None => text += " for good\n",
    }
    if let Some(op) = pending {
        text += &format!("  operation {op} is pending and would be carried out instead\n");
    }
    context.print(&text)
}

fn show_outcome(
    context: &Context,
    asked: &LogRef,
    log: &bifrost::Log,
    bifrost: &Bifrost,
    outcome: &Reconfigured,
) -> Result<(), CliError> {
    let finished = outcome.finished();
    let chain = log.chain();
    let closed = chain.segment(finished.segment);
    let tail = closed.and_then(|segment| finished.tail.to_lsn(segment.base_lsn).ok());
    let opened = finished.successor.and_then(|index| chain.segment(index));
    let next = opened.map(|segment| {
        let params = segment.params.clone();
        let (nodeset, replication, sequencer) = (params.nodeset, params.replication, params.sequencer);
        next_report(bifrost, &Successor { nodeset, replication, sequencer })
    });
    let (name, by) = match outcome {
        Reconfigured::Done(_) => ("done", String::new()),
        Reconfigured::Superseded { by, .. } => ("superseded", format!(" by operation {}, which came first", by.op)),
    };
    if context.output() == Output::Json {
        return context.print_json(&ReconfigureReport {
            log: log.id().get(),
            name: log.name(),
            outcome: name,
            op: finished.op.to_string(),
            closed: finished.segment.get(),
            tail: tail.map(bifrost::Lsn::get),
            opened: finished.successor.map(bifrost_types::SegmentIndex::get),
            next,
        });
    }
    let ends = tail.map_or_else(String::new, |tail| format!(" and ends before LSN {tail}"));
    let mut text = format!("log {asked}: segment {} is closed{by}{ends}\n", finished.segment);
    match (&next, finished.successor) {
        (Some(next), Some(index)) => text += &format!("  segment {index} is open: {}\n", describe_next(next)),
        (None, Some(index)) => text += &format!("  segment {index} followed\n"),
        (_, None) => text += "  the log is closed for good; what is in it can be read\n",
    }
    context.print(&text)
}

//! `bifrost node describe`.

mod status;

use bifrost::nodes::{Cost, Need, NodeView, Why};
use bifrost_types::StorageState;
use serde::Serialize;

use self::status::StatusReport;
use crate::cli::context::{Context, Output, Style};
use crate::cli::error::{CliError, printable};
use crate::cli::exit::Exit;
use crate::cli::failures::look_catalog_error;
use crate::cli::nodes::{NodeReport, address, label, location, storage};

/// Needs that are shown without `--all`.
const SHOWN: usize = 10;

#[derive(Debug, clap::Args)]
pub(crate) struct DescribeArgs {
    /// The node, by name or number: n3, N3
    node: String,
    /// Show all segments that need it, not only the first ten (JSON has up to 1000)
    #[arg(long)]
    all: bool,
}

/// The node, as JSON.
#[derive(Debug, Serialize)]
struct DescribeReport {
    #[serde(flatten)]
    node: NodeReport,
    needs: Vec<NeedReport>,
    more_needs: u64,
    status: Option<StatusReport>,
}

/// One segment that needs a node, as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct NeedReport {
    log: u64,
    name: Option<String>,
    segment: u32,
    why: &'static str,
    cost: &'static str,
}

pub(crate) async fn run(context: &Context, args: DescribeArgs) -> Result<Exit, CliError> {
    let bifrost = context.bifrost().await?;
    let view = super::find(context, bifrost, &args.node).await?;
    let needs = context.within("reading the chains", bifrost.node_needs(view.node)).await?;
    let needs = needs.map_err(look_catalog_error)?;
    if context.output() == Output::Json {
        let listed = needs.listed.iter().map(need_report).collect();
        let report = DescribeReport {
            node: NodeReport::new(&view),
            needs: listed,
            more_needs: needs.more,
            status: view.status.as_ref().map(StatusReport::new),
        };
        context.print_json(&report)?;
        return Ok(Exit::Done);
    }
    let mut text = head(context, &view);
    if needs.is_empty() {
        text += "\nno segment needs it\n";
    } else {
        text += &format!("\n{} it:\n", counted(needs.count()));
        let shown = if args.all { needs.listed.len() } else { SHOWN };
        for need in needs.listed.iter().take(shown) {
            text += &format!("  {}\n", sentence(need));
        }
        let hidden = needs.listed.len().saturating_sub(shown);
        if hidden > 0 {
            text += &format!("  ... {hidden} more; --all shows them\n");
        }
        if needs.more > 0 {
            text += &format!("  ... {} that are not listed\n", needs.more);
        }
    }
    context.print(&text)?;
    Ok(Exit::Done)
}

fn head(context: &Context, view: &NodeView) -> String {
    let name = view.record.as_ref().map_or("", |record| record.name.as_str());
    let mut text = format!("{} {}", context.paint(Style::Strong, label(view)), printable(name));
    text.truncate(text.trim_end().len());
    text.push('\n');
    let mut line = |label: &str, value: String| text += &format!("  {label:<10} {value}\n");
    if let Some(record) = &view.record {
        line("state", state(context, view));
        line("address", printable(&address(record)));
        line("location", printable(&location(&record.location)));
        line("storage", storage(record));
        if record.storage == StorageState::DataLoss && !record.declared_lost {
            line(
                "",
                format!("found gone by the node itself; `bifrost node set-state {} data-loss` gives it up", view.node),
            );
        }
        line("disk", record.disk.map_or_else(|| "none yet".to_owned(), |disk| disk.to_string()));
        line("roles", record.roles.to_string());
    }
    if let Some(status) = &view.status {
        for (label, value) in status::lines(status) {
            line(label, value);
        }
    }
    let mentions = &view.mentions;
    line("segments", format!("{} open, {} closed", mentions.open_segments, mentions.closed_segments));
    line("sequences", format!("{} logs", mentions.sequenced_logs));
    text
}

/// Whether the node answers, and what that means for what is shown.
fn state(context: &Context, view: &NodeView) -> String {
    match &view.status {
        None => context.paint(Style::Bad, "does not answer: all that follows is what the cluster knows of it"),
        Some(_) if !view.answers() => context.paint(Style::Bad, "answers, and does not serve its disk"),
        Some(status) if status.leaving => context.paint(Style::Good, "answers, and is about to stop"),
        Some(_) => context.paint(Style::Good, "answers"),
    }
}

/// The beginning of a sentence that ends in "it".
pub(crate) fn counted(needs: u64) -> String {
    if needs == 1 { "1 segment needs".to_owned() } else { format!("{needs} times a segment needs") }
}

pub(crate) fn need_report(need: &Need) -> NeedReport {
    NeedReport {
        log: need.loglet.log.get(),
        name: need.name.clone(),
        segment: need.loglet.segment.get(),
        why: match need.why {
            Why::Sequencer => "sequencer",
            Why::OpenCopy => "open-copy",
            Why::ClosedCopy => "closed-copy",
            Why::Pending => "pending",
        },
        cost: match need.cost {
            Cost::Moves => "moves",
            Cost::FewerCopies => "fewer-copies",
            Cost::NoAppends => "no-appends",
            Cost::MayLoseRecords => "may-lose-records",
        },
    }
}

/// One need in a few words.
pub(crate) fn short(need: &Need) -> String {
    let why = match need.why {
        Why::Sequencer => "numbers its appends",
        Why::OpenCopy => "open, holds a copy",
        Why::ClosedCopy => "closed, holds a copy",
        Why::Pending => "the next one is to lie there",
    };
    let log = need.name.clone().unwrap_or_else(|| need.loglet.log.to_string());
    format!("log {log} segment {} ({why})", need.loglet.segment)
}

/// One need in words.
pub(crate) fn sentence(need: &Need) -> String {
    let log = match &need.name {
        Some(name) => format!("log {name} (number {})", need.loglet.log),
        None => format!("log {}", need.loglet.log),
    };
    let why = match need.why {
        Why::Sequencer => "the node numbers its appends",
        Why::OpenCopy => "it is open, and the node holds a copy",
        Why::ClosedCopy => "it is closed, and the node may hold records of it",
        Why::Pending => "it is closing, and the next one is to lie on the node",
    };
    let cost = match (need.cost, need.why) {
        (Cost::Moves, Why::Pending) => "the next one must lie elsewhere",
        (Cost::Moves, _) => "another node must take over",
        (Cost::FewerCopies, _) => "without it every record has another copy, some of them one too few",
        (Cost::NoAppends, _) => "without it there are no appends until a reconfiguration",
        (Cost::MayLoseRecords, _) => "without it records may be lost",
    };
    format!("{}, segment {}: {why}; {cost}", printable(&log), need.loglet.segment)
}

//! `bifrost node remove`.

use bifrost::nodes::{Needs, RemoveNodeError};
use serde::Serialize;

use super::describe::{NeedReport, counted, need_report, sentence};
use crate::cli::context::{Context, Output};
use crate::cli::error::{CliError, ErrorCode, printable};
use crate::cli::exit::Exit;
use crate::cli::failures::{catalog_error, look_catalog_error};

/// Shown after the options.
pub(crate) const HELP: &str = "\
A node in service, or one that a segment needs, is refused: `bifrost node describe` lists what needs it. Its name is free \
afterwards, its number is not, and the history of logs shows it as removed.";

/// Costs that are told before it is asked.
const TOLD: usize = 20;

#[derive(Debug, clap::Args)]
pub(crate) struct RemoveArgs {
    /// The node, by name or number: n3, N3
    node: String,
    /// Remove it although it is in service or needed; says first what that costs, and asks
    #[arg(long)]
    force: bool,
    /// Do not ask (only `--force` asks)
    #[arg(long, short)]
    yes: bool,
}

/// The result, as JSON.
#[derive(Debug, Serialize)]
struct RemoveReport {
    node: String,
    /// `null` when it had been removed before.
    name: Option<String>,
    removed: bool,
    /// The segments that needed it.
    needs: Vec<NeedReport>,
    more_needs: u64,
}

pub(crate) async fn run(context: &Context, args: RemoveArgs) -> Result<Exit, CliError> {
    let bifrost = context.bifrost().await?;
    let node = super::find_number(context, bifrost, &args.node).await?;
    if args.force && !args.yes {
        let needs = context.within("reading the chains", bifrost.node_needs(node)).await?;
        tell_cost(context, &needs.map_err(look_catalog_error)?);
        if !context.confirm(&format!("remove {node} by force?"))? {
            return Err(CliError::new(ErrorCode::Refused, "not confirmed: nothing was removed"));
        }
    }
    let removing = context.within("removing the node", bifrost.remove_node(node, args.force)).await?;
    let removed = removing.map_err(failure)?;
    let name = removed.record.map(|record| record.name);
    if context.output() == Output::Json {
        let needs = removed.needs.listed.iter().map(need_report).collect();
        let report =
            RemoveReport { node: node.to_string(), name, removed: true, needs, more_needs: removed.needs.more };
        context.print_json(&report)?;
        return Ok(Exit::Done);
    }
    match name {
        Some(name) => context.print(&format!("{node} is removed; the name {} is free\n", printable(&name)))?,
        None => context.print(&format!("{node} was removed before\n"))?,
    }
    if !removed.needs.is_empty() {
        context.say(&format!("{} it: `bifrost node describe {node}` lists them", counted(removed.needs.count())));
    }
    Ok(Exit::Done)
}

fn tell_cost(context: &Context, needs: &Needs) {
    if needs.is_empty() {
        return context.say("no segment needs it");
    }
    context.say(&format!("{} it:", counted(needs.count())));
    for need in needs.listed.iter().take(TOLD) {
        context.say(&format!("  {}", sentence(need)));
    }
    let hidden = needs.count().saturating_sub(u64::try_from(TOLD).unwrap_or(u64::MAX));
    if hidden > 0 {
        context.say(&format!("  ... {hidden} more"));
    }
}

fn failure(error: RemoveNodeError) -> CliError {
    match error {
        RemoveNodeError::Catalog(error) => catalog_error(error),
        RemoveNodeError::UnknownNode { .. } => super::unknown(error.to_string()),
        RemoveNodeError::Needed { node, needs } => super::needed(node, &needs),
        RemoveNodeError::InService { node, .. } => CliError::new(ErrorCode::Refused, error.to_string())
            .with_cause("a segment may be put on it the next moment")
            .with_advice(format!("`bifrost node set-state {node} read-only`, then `retired`, then remove it")),
    }
}

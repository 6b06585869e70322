//! `bifrost log list`.

use bifrost::Chain;
use comfy_table::Cell;
use serde::Serialize;

use crate::cli::context::{Context, Output};
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::failures::catalog_error;

/// Chains are read so many at a time.
const PAGE: usize = 100;

/// One log, as JSON.
#[derive(Debug, Serialize)]
struct ListEntry {
    log: u64,
    name: Option<String>,
    state: &'static str,
    segments: usize,
    replication: Option<String>,
    sequencer: Option<String>,
    trim_point: Option<u64>,
}

pub(crate) async fn run(context: &Context) -> Result<Exit, CliError> {
    let catalog = context.bifrost().await?.catalog();
    let mut table = context.table();
    table.set_header(["NUMBER", "NAME", "STATE", "SEGMENTS", "REPLICATION", "SEQUENCER"]);
    let mut after = None;
    let mut logs = 0_usize;
    loop {
        let page = context.within("listing logs", catalog.logs(after, PAGE)).await?.map_err(catalog_error)?;
        for stored in &page {
            let entry = entry(&stored.chain);
            if context.output() == Output::Json {
                context.print_json(&entry)?;
            } else {
                table.add_row([
                    Cell::new(entry.log),
                    Cell::new(entry.name.as_deref().unwrap_or("-")),
                    Cell::new(entry.state),
                    Cell::new(entry.segments),
                    Cell::new(entry.replication.as_deref().unwrap_or("-")),
                    Cell::new(entry.sequencer.as_deref().unwrap_or("-")),
                ]);
            }
        }
        logs += page.len();
        // A page also ends at a number of bytes: only an empty one is the end.
        match page.last() {
            Some(last) => after = Some(last.chain.log),
            None => break,
        }
    }
    if context.output() != Output::Json {
        if logs == 0 {
            context.say("there are no logs; `bifrost log create NAME` makes one");
        } else {
            context.print(&format!("{}\n", table.trim_fmt()))?;
        }
    }
    Ok(Exit::Done)
}

fn entry(chain: &Chain) -> ListEntry {
    let last = chain.last();
    let open = last.filter(|last| last.decided_tail().is_none());
    let state = match (open, &chain.pending) {
        (None, _) => "closed",
        (Some(_), Some(_)) => "reconfiguring",
        (Some(_), None) => "open",
    };
    ListEntry {
        log: chain.log.get(),
        name: chain.name.clone(),
        state,
        segments: chain.segments.len(),
        replication: last.map(|last| last.params.replication.to_string()),
        sequencer: open.map(|open| open.params.sequencer.to_string()),
        trim_point: chain.trim_point.map(bifrost::Lsn::get),
    }
}

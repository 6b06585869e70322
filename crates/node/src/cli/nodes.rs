//! `bifrost nodes`.

use bifrost::nodes::NodeView;
use bifrost_types::{Location, NodeRecord, Role};
use bifrost_wire::node::Fullness;
use comfy_table::Cell;
use serde::Serialize;

use super::context::{Context, Output};
use super::error::{CliError, printable};
use super::exit::Exit;
use super::failures::look_catalog_error;

/// One node, as JSON. Everything that the record tells is `null` for a node that was removed.
#[derive(Debug, Serialize)]
pub(crate) struct NodeReport {
    node: String,
    removed: bool,
    name: Option<String>,
    generation: Option<u32>,
    address: Option<String>,
    region: Option<String>,
    zone: Option<String>,
    storage: Option<String>,
    declared_lost: Option<bool>,
    disk: Option<String>,
    fullness: Option<String>,
    roles: Option<Vec<String>>,
    answers: bool,
    open_segments: u64,
    closed_segments: u64,
    sequenced_logs: u64,
}

impl NodeReport {
    pub(crate) fn new(view: &NodeView) -> Self {
        let record = view.record.as_ref();
        Self {
            node: view.node.to_string(),
            removed: record.is_none(),
            name: record.map(|record| record.name.clone()),
            generation: record.map(|record| record.id.generation.get()),
            address: record.map(|record| record.address.clone()),
            region: record.map(|record| record.location.region.to_string()),
            zone: record.map(|record| record.location.zone.to_string()),
            storage: record.map(|record| record.storage.to_string()),
            declared_lost: record.map(|record| record.declared_lost),
            disk: record.and_then(|record| record.disk).map(|disk| disk.to_string()),
            fullness: fullness(view).map(|fullness| fullness.to_string()),
            roles: record.map(|record| record.roles.iter().map(|role| role.to_string()).collect()),
            answers: view.answers(),
            open_segments: view.mentions.open_segments,
            closed_segments: view.mentions.closed_segments,
            sequenced_logs: view.mentions.sequenced_logs,
        }
    }
}

pub(crate) async fn run(context: &Context) -> Result<Exit, CliError> {
    let bifrost = context.bifrost().await?;
    let views = context.within("asking the nodes", bifrost.node_views()).await?.map_err(look_catalog_error)?;
    if context.output() == Output::Json {
        for view in &views {
            context.print_json(&NodeReport::new(view))?;
        }
        return Ok(Exit::Done);
    }
    if views.is_empty() {
        context.say("there are no nodes; `bifrost dev` starts some");
        return Ok(Exit::Done);
    }
    let mut table = context.table();
    table.set_header(["NODE", "NAME", "ADDRESS", "LOCATION", "STORAGE", "ANSWERS", "OPEN", "CLOSED", "SEQUENCES"]);
    for view in &views {
        let text = |of: fn(&NodeRecord) -> String| view.record.as_ref().map_or_else(|| "-".to_owned(), of);
        let answers = if view.answers() { "yes" } else { "no" };
        table.add_row([
            Cell::new(label(view)),
            Cell::new(printable(&text(|record| record.name.clone()))),
            Cell::new(printable(&text(address))),
            Cell::new(printable(&text(|record| location(&record.location)))),
            Cell::new(storage_and_room(view)),
            Cell::new(if view.record.is_some() { answers } else { "-" }),
            Cell::new(view.mentions.open_segments),
            Cell::new(view.mentions.closed_segments),
            Cell::new(view.mentions.sequenced_logs),
        ]);
    }
    context.print(&format!("{}\n", table.trim_fmt()))?;
    Ok(Exit::Done)
}

/// The node and its present life, or that it is gone.
pub(crate) fn label(view: &NodeView) -> String {
    match &view.record {
        Some(record) => record.id.to_string(),
        None => format!("{} (removed)", view.node),
    }
}

/// The state of its disk, if it is to have one.
pub(crate) fn storage(record: &NodeRecord) -> String {
    if record.disk.is_none() && !record.roles.has(Role::LogServer) {
        "-".to_owned()
    } else {
        record.storage.to_string()
    }
}

/// How full its disk is, of a node that answers and has one.
fn fullness(view: &NodeView) -> Option<Fullness> {
    let disk = view.status.as_ref()?.disk?;
    view.answers().then_some(disk.fullness)
}

/// What may be done with its disk, and what keeps it from that.
fn storage_and_room(view: &NodeView) -> String {
    let Some(record) = &view.record else { return "-".to_owned() };
    match fullness(view) {
        None | Some(Fullness::Ample) => storage(record),
        Some(fullness) => format!("{}, disk {fullness}", storage(record)),
    }
}

pub(crate) fn address(record: &NodeRecord) -> String {
    if record.address.is_empty() { "-".to_owned() } else { record.address.clone() }
}

pub(crate) fn location(location: &Location) -> String {
    if *location == Location::default() { "-".to_owned() } else { location.to_string() }
}

//! `bifrost node set-state`.

use bifrost::nodes::{SetStorageError, TransitionRefused};
use bifrost_types::{NodeRecord, StorageState};
use clap::ValueEnum;
use serde::Serialize;

use crate::cli::context::{Context, Output};
use crate::cli::error::{CliError, ErrorCode};
use crate::cli::exit::Exit;
use crate::cli::failures::catalog_error;

/// Shown after the options.
pub(crate) const HELP: &str = "\
read-write and read-only lead to each other; read-only leads to retired once no segment needs the node. data-loss and \
retired are for ever, and ask. A state that holds already is success.";

#[derive(Debug, clap::Args)]
pub(crate) struct SetStateArgs {
    /// The node, by name or number: n3, N3
    node: String,
    /// The state of its disk
    state: State,
    /// Do not ask (only `data-loss` and `retired` ask)
    #[arg(long, short)]
    yes: bool,
}

/// What an operator can make of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum State {
    /// Takes new segments
    ReadWrite,
    /// Serves what it has, and takes no new segments
    ReadOnly,
    /// The disk is lost: its copies do not count, and readers do not wait for it, for ever
    DataLoss,
    /// Nothing needs the disk, and nothing will
    Retired,
}

impl From<State> for StorageState {
    fn from(state: State) -> Self {
        match state {
            State::ReadWrite => Self::ReadWrite,
            State::ReadOnly => Self::ReadOnly,
            State::DataLoss => Self::DataLoss,
            State::Retired => Self::Retired,
        }
    }
}

/// The result, as JSON.
#[derive(Debug, Serialize)]
struct SetStateReport {
    node: String,
    before: String,
    storage: String,
}

pub(crate) async fn run(context: &Context, args: SetStateArgs) -> Result<Exit, CliError> {
    let bifrost = context.bifrost().await?;
    let view = super::find(context, bifrost, &args.node).await?;
    let (node, desired) = (view.node, StorageState::from(args.state));
    // A node that found its disk gone wrote the state itself: that an operator says it, too, is a change.
    let holds =
        |record: NodeRecord| record.storage == desired && (args.state != State::DataLoss || record.declared_lost);
    let holds = view.record.is_some_and(holds);
    if matches!(args.state, State::DataLoss | State::Retired) && !holds && !args.yes {
        let question = format!("make the disk of {node} {desired}, for ever?");
        if !context.confirm(&question)? {
            return Err(CliError::new(ErrorCode::Refused, "not confirmed: nothing was changed"));
        }
    }
    let changed = context.within("setting the state", bifrost.set_storage_state(node, desired)).await?;
    let changed = changed.map_err(failure)?;
    if context.output() == Output::Json {
        context.print_json(&SetStateReport {
            node: node.to_string(),
            before: changed.before.to_string(),
            storage: changed.now.to_string(),
        })?;
    } else if changed.before == changed.now && !holds {
        context
            .print(&format!("the disk of {node} was {} by its own word, and is declared lost now\n", changed.before))?;
    } else if changed.before == changed.now {
        context.print(&format!("the disk of {node} is {} already\n", changed.now))?;
    } else {
        context.print(&format!("the disk of {node} is {} now; it was {}\n", changed.now, changed.before))?;
    }
    Ok(Exit::Done)
}

fn failure(error: SetStorageError) -> CliError {
    let told = CliError::new(ErrorCode::Refused, error.to_string());
    match error {
        SetStorageError::Catalog(error) => catalog_error(error),
        SetStorageError::UnknownNode { .. } => super::unknown(error.to_string()),
        SetStorageError::Needed { node, needs } => super::needed(node, &needs),
        SetStorageError::Refused(TransitionRefused::NoDisk { node }) => {
            told.with_advice(format!("start it, or take it away with `bifrost node remove {node}`"))
        }
        SetStorageError::Refused(TransitionRefused::TakesNewSegments { node }) => {
            told.with_advice(format!("`bifrost node set-state {node} read-only`"))
        }
        SetStorageError::Refused(TransitionRefused::OutOfService { node, .. }) => {
            told.with_advice(format!("`bifrost node remove {node}` takes the old one away"))
        }
        SetStorageError::Refused(TransitionRefused::NotABeginning { .. }) => told,
    }
}

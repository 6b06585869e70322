//! Making logs. Each takes the next id from one counter, so two that are made at the same time would be in each other's way:
//! of a hundred transactions one succeeded and the others began anew. So one task of the process makes them, as many at once
//! as one transaction takes.
//!
//! ```text
//!  create(name) ─► is there one of this name? ─► queue ─► task: take ids, one transaction for up to 31 logs ─► each is told
//!                            ▲                                    │ the name was taken meanwhile
//!                            └────────────────────────────────────┘
//! ```

use bifrost_types::limits::METADATA_TXN_ITEMS_MAX;
use bifrost_types::{OpId, Successor};
use bifrost_wire::metadata::MetadataError;
use tokio::sync::{mpsc, oneshot};

use crate::catalog::{Catalog, CatalogError, NewLog, Roster, StoredChain, Together};

/// Logs that wait for their turn; whoever wants one more waits to wait.
const QUEUE: usize = 1024;
/// Logs of one transaction: chain and name of each, each demanded and written, beside the counter and the roster.
pub(crate) const TOGETHER_MAX: usize = (METADATA_TXN_ITEMS_MAX - 3) / 4;

/// Who wants a log, and which.
#[derive(Debug)]
struct Wanted {
    new: NewLog,
    roster: Roster,
    told: oneshot::Sender<Result<Made, CatalogError>>,
}

/// What became of it.
#[derive(Debug)]
pub(crate) enum Made {
    Log(Box<StoredChain>),
    /// Somebody has the name by now; perhaps the same operation.
    NameTaken,
}

/// Hands logs to the task that makes them.
#[derive(Debug)]
pub(crate) struct Creator {
    wanted: mpsc::Sender<Wanted>,
}

impl Creator {
    /// With the future that makes them, until nobody can want any; run that as a task.
    pub(crate) fn new(catalog: Catalog) -> (Self, impl Future<Output = ()> + Send) {
        let (wanted, queue) = mpsc::channel(QUEUE);
        (Self { wanted }, make_all(catalog, queue))
    }

    /// Makes a log, or finds the one that this same operation made before.
    ///
    /// # Errors
    /// See [`Catalog::create_log`]; [`CatalogError::NodesChanged`] when the roster is not as it was read.
    pub(crate) async fn create(
        &self,
        catalog: &Catalog,
        name: Option<&str>,
        op: OpId,
        first: &Successor,
        roster: Roster,
    ) -> Result<StoredChain, CatalogError> {
        loop {
            if let Some(name) = name
                && let Some(stored) = catalog.named_by(name, op).await?
            {
                return Ok(stored);
            }
            let (told, outcome) = oneshot::channel();
            let new = NewLog { name: name.map(str::to_owned), op, first: first.clone() };
            // Whoever makes them ends with the process's handle of the cluster; what it had in hand is not known.
            let ended = CatalogError::Metadata(MetadataError::Unknown);
            self.wanted.send(Wanted { new, roster, told }).await.map_err(|_| ended)?;
            match outcome.await.map_err(|_| ended)?? {
                Made::Log(stored) => return Ok(*stored),
                Made::NameTaken => {}
            }
        }
    }
}

async fn make_all(catalog: Catalog, mut queue: mpsc::Receiver<Wanted>) {
    let mut waiting = Vec::new();
    loop {
        if waiting.is_empty() && queue.recv_many(&mut waiting, TOGETHER_MAX).await == 0 {
            return;
        }
        while waiting.len() < TOGETHER_MAX
            && let Ok(wanted) = queue.try_recv()
        {
            waiting.push(wanted);
        }
        let (together, later) = choose(std::mem::take(&mut waiting));
        waiting = later;
        make(&catalog, together).await;
    }
}

/// Those that one transaction can make: under one roster, and no two of one name. The first is always among them.
fn choose(waiting: Vec<Wanted>) -> (Vec<Wanted>, Vec<Wanted>) {
    let (mut together, mut later) = (Vec::<Wanted>::new(), Vec::new());
    for wanted in waiting {
        let fits = together.iter().all(|other| {
            other.roster == wanted.roster && (wanted.new.name.is_none() || other.new.name != wanted.new.name)
        });
        if fits && together.len() < TOGETHER_MAX { together.push(wanted) } else { later.push(wanted) }
    }
    (together, later)
}

/// Makes them, and tells each what became of it.
async fn make(catalog: &Catalog, mut together: Vec<Wanted>) {
    while let Some(first) = together.first() {
        let roster = first.roster;
        let new: Vec<&NewLog> = together.iter().map(|wanted| &wanted.new).collect();
        match catalog.create_together(&new, Some(roster)).await {
            Ok(Together::Made(made)) => {
                for (wanted, stored) in together.drain(..).zip(made) {
                    // Who went away finds it by its name.
                    let _gone = wanted.told.send(Ok(Made::Log(Box::new(stored))));
                }
            }
            // The others are tried again without them, with the next ids.
            Ok(Together::Taken(taken)) => {
                let (left, out): (Vec<Wanted>, Vec<Wanted>) = together
                    .into_iter()
                    .partition(|wanted| wanted.new.name.as_ref().is_none_or(|name| !taken.contains(name)));
                for wanted in out {
                    let _gone = wanted.told.send(Ok(Made::NameTaken));
                }
                together = left;
            }
            Err(error) => {
                for wanted in together.drain(..) {
                    let _gone = wanted.told.send(Err(error));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;

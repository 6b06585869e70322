//! Saying whom a reconfiguration waits for while it waits.

use std::future::Future;

use bifrost::reconfigure::Progress;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::context::Context;
use super::error::{CliError, printable};
use super::failures::timed_out;

/// Waits for work that closes a segment. On a terminal a line tells what it is doing; elsewhere a line is written when
/// it begins to wait for servers. Gives up when nothing moved for as long as `--timeout` says.
///
/// # Errors
/// Timed out; what was begun is finished by whoever comes next.
pub(crate) async fn with_progress<T>(
    context: &Context,
    doing: &str,
    mut progress: watch::Receiver<Progress>,
    work: impl Future<Output = T>,
) -> Result<T, CliError> {
    let patience = context.config().client.timeout;
    let bar = if context.terminal().stderr {
        let style =
            ProgressStyle::with_template("{spinner} {wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
        ProgressBar::new_spinner().with_style(style)
    } else {
        ProgressBar::hidden()
    };
    let mut told = None;
    let mut moved = Instant::now();
    let mut last = told_of(&progress.borrow_and_update());
    tokio::pin!(work);
    let outcome = loop {
        tokio::select! {
            biased;
            outcome = &mut work => break Ok(outcome),
            Ok(()) = progress.changed() => {
                let now = told_of(&progress.borrow_and_update());
                if now.moves != last.moves {
                    moved = Instant::now();
                }
                bar.set_message(format!("{doing}: {}", now.text));
                bar.tick();
                if let Some(waits) = &now.waits
                    && bar.is_hidden()
                    && told.as_ref() != Some(waits)
                {
                    context.say(&format!("{doing}: {}", printable(waits)));
                    told = Some(waits.clone());
                }
                last = now;
            }
            () = sleep_until(moved + patience) => {
                let error = timed_out(doing, patience);
                break Err(match last.waits {
                    Some(waits) => error.with_cause(waits),
                    None => error,
                });
            }
        }
    };
    bar.finish_and_clear();
    outcome
}

/// What a progress says.
struct Told {
    text: String,
    /// What it cannot go on without.
    waits: Option<String>,
    /// Changes when something was achieved.
    moves: (bool, usize, u64, u64),
}

fn told_of(progress: &Progress) -> Told {
    match progress {
        Progress::Metadata => {
            Told { text: "reading and writing the chain".to_owned(), waits: None, moves: (false, 0, 0, 0) }
        }
        Progress::Closing { close, .. } => {
            let sealed = close.sealed.count();
            let waits = close.blocked.as_ref().map(ToString::to_string);
            let text = match (&waits, close.candidate_tail) {
                (Some(waits), _) => waits.clone(),
                (None, None) => format!("{sealed} servers are sealed"),
                (None, Some(_)) => {
                    format!("copying, {} bytes done, {} records left", close.repaired_bytes, close.records_left)
                }
            };
            Told { text, waits, moves: (true, sealed, close.repaired_bytes, close.records_left) }
        }
    }
}

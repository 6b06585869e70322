//! The logs of one run.

use bifrost::{Log, LogOptions};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::LogsArgs;
use crate::cli::context::Context;
use crate::cli::error::{CliError, ErrorCode};
use crate::cli::failures::log_error;
use crate::cli::log_ref::LogRef;

/// Logs that are made or deleted at the same time.
const AT_ONCE: usize = 32;

/// What is measured on.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) logs: Vec<Log>,
    pub(super) payload: Bytes,
    keep: bool,
}

impl Ground {
    /// Makes the logs.
    pub(super) async fn make(context: &Context, args: &LogsArgs) -> Result<Self, CliError> {
        let bifrost = context.bifrost().await?;
        #[expect(clippy::disallowed_methods, reason = "names must not meet those of another run")]
        let run: u32 = rand::random();
        let make = |number: u32| async move {
            let name = format!("bench-{run:08x}-{number}");
            let options = LogOptions { replication: args.replication.clone(), ..LogOptions::default() };
            let made = context.within("making a log", bifrost.create_log(&name, options)).await?;
            made.map_err(|error| log_error(&LogRef::Name(name), error))
        };
        let making = stream::iter((0..args.logs.get()).map(make)).buffered(AT_ONCE).try_collect();
        let logs = tokio::select! {
            biased;
            () = context.stop().cancelled() => return Err(CliError::interrupted()),
            logs = making => logs?,
        };
        Ok(Self { logs, payload: noise(args.size), keep: args.keep })
    }

    /// Deletes the logs, whatever became of the run. What the run led to goes before a log that cannot be deleted.
    pub(super) async fn clear<T>(self, context: &Context, outcome: Result<T, CliError>) -> Result<T, CliError> {
        if self.keep {
            return outcome;
        }
        let bifrost = context.bifrost().await?;
        let delete = |log: Log| async move {
            let deleted = context.within("deleting a log", bifrost.delete_log(log.id())).await?;
            deleted.map_err(|error| log_error(&LogRef::Id(log.id()), error))
        };
        let deleted: Result<(), CliError> = stream::iter(self.logs.into_iter().map(delete))
            .buffer_unordered(AT_ONCE)
            .try_for_each(|()| async { Ok(()) })
            .await;
        let outcome = outcome?;
        deleted.map(|()| outcome)
    }
}

/// A payload of this size that does not compress.
fn noise(bytes: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(bytes).collect()
}

/// A run that something stopped.
pub(super) fn failed(doing: &str, error: &(dyn std::error::Error + 'static)) -> CliError {
    CliError::new(ErrorCode::Failed, format!("{doing} failed, so there is nothing to compare"))
        .because(error)
        .with_advice("`bifrost nodes` shows who answers, and whose disk is full")
}

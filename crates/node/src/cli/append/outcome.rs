//! How appends ended, and what a person or a script is told of it.

use bifrost::{AppendError, AppendId, Lsn, NotAppended};
use serde::Serialize;

use super::super::context::{Context, Output, json_line};
use super::super::error::{CliError, ErrorCode, chain};
use super::super::log_ref::LogRef;
use super::input::InputError;

/// One record, as JSON.
#[derive(Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
enum RecordReport {
    Committed {
        line: u64,
        lsn: u64,
    },
    /// It is not in the log and never will be.
    NotAppended {
        line: u64,
        cause: String,
    },
    /// It may be in the log: `bifrost resolve` tells. `index` is its place in the append.
    Unknown {
        line: u64,
        append_id: String,
        index: u64,
    },
}

/// Everything that was heard so far.
#[derive(Debug)]
pub(super) struct Outcomes {
    log: LogRef,
    pub(super) committed: u64,
    last: Option<Lsn>,
    unknown: Option<Unknown>,
    refused: Option<Refused>,
}

/// The first append whose outcome is unknown, and how many records they are together.
#[derive(Debug)]
struct Unknown {
    id: AppendId,
    records: u64,
}

/// The first append that was not made.
#[derive(Debug)]
struct Refused {
    line: u64,
    error: AppendError,
}

impl Outcomes {
    pub(super) const fn new(log: LogRef) -> Self {
        Self { log, committed: 0, last: None, unknown: None, refused: None }
    }

    /// Whether every append so far was acknowledged.
    pub(super) const fn all_well(&self) -> bool {
        self.unknown.is_none() && self.refused.is_none()
    }

    /// Takes note of one append of `records` records from line `first` on, and prints it.
    pub(super) fn ended(
        &mut self,
        context: &Context,
        first: u64,
        records: u64,
        outcome: Result<Lsn, AppendError>,
    ) -> Result<(), CliError> {
        match outcome {
            Ok(lsn) => {
                self.committed += records;
                self.last = records.checked_sub(1).and_then(|more| lsn.advance(more).ok());
                print_each(context, records, |index| RecordReport::Committed {
                    line: first + index,
                    lsn: lsn.get().saturating_add(index),
                })
            }
            Err(AppendError::Unknown { id }) => {
                self.unknown.get_or_insert(Unknown { id, records: 0 }).records += records;
                if context.output() != Output::Json {
                    context.say(&format!("{}: outcome unknown, append id {id}", lines(first, records)));
                }
                print_each(context, records, |index| RecordReport::Unknown {
                    line: first + index,
                    append_id: id.to_string(),
                    index,
                })
            }
            Err(error) => {
                self.refused.get_or_insert(Refused { line: first, error });
                let cause = chain(&error);
                print_each(context, records, |index| RecordReport::NotAppended {
                    line: first + index,
                    cause: cause.clone(),
                })
            }
        }
    }

    /// One line for people.
    pub(super) fn summary(&self) -> String {
        let records = if self.committed == 1 { "record" } else { "records" };
        match self.last {
            Some(last) => format!("{} {records} appended, the last at LSN {last}", self.committed),
            None => "nothing appended".to_owned(),
        }
    }

    /// How all of it ended. What is unknown is told first, for it needs somebody's care.
    pub(super) fn verdict(&self, input: Option<&InputError>, interrupted: bool) -> Result<(), CliError> {
        let log = &self.log;
        if let Some(Unknown { id, records }) = &self.unknown {
            let plural = if *records == 1 { "record" } else { "records" };
            let told = format!("{records} {plural} may be in the log or not; {}", self.summary());
            return Err(CliError::new(ErrorCode::OutcomeUnknown, told)
                .with_cause("the connection to the sequencer broke before it answered")
                .with_advice(format!("`bifrost resolve {log} {id}` tells; a blind repetition may append twice")));
        }
        if let Some(Refused { line, error }) = &self.refused {
            let told = format!("line {line} and what follows was not appended; {}", self.summary());
            return Err(self.partly(refusal_code(error), told).because(error).with_advice(refusal_advice(log, error)));
        }
        if let Some(error) = input {
            let told = format!("{error}; {}", self.summary());
            let failed = self.partly(ErrorCode::InvalidInput, told);
            let failed = match std::error::Error::source(error) {
                Some(source) => failed.with_cause(chain(source)),
                None => failed,
            };
            return Err(failed.with_advice("mend the input, and append what follows the last LSN that was printed"));
        }
        if interrupted {
            return Err(CliError::new(ErrorCode::Interrupted, format!("interrupted; {}", self.summary())));
        }
        Ok(())
    }

    fn partly(&self, code: ErrorCode, told: String) -> CliError {
        CliError::new(if self.committed > 0 { ErrorCode::PartlyDone } else { code }, told)
    }
}

const fn refusal_code(error: &AppendError) -> ErrorCode {
    match error {
        AppendError::NotAppended { cause } => match cause {
            NotAppended::NoProgress => ErrorCode::TimedOut,
            NotAppended::Encode(_) | NotAppended::BeyondReservation { .. } => ErrorCode::InvalidInput,
            NotAppended::Deleted => ErrorCode::UnknownLog,
            NotAppended::DiskFull => ErrorCode::DiskFull,
            NotAppended::Exhausted | NotAppended::ShutDown => ErrorCode::Failed,
        },
        AppendError::Unknown { .. } => ErrorCode::OutcomeUnknown,
        AppendError::Closed { .. } => ErrorCode::LogClosed,
    }
}

fn refusal_advice(log: &LogRef, error: &AppendError) -> String {
    match error {
        AppendError::Closed { .. } => "what is in it can still be read".to_owned(),
        AppendError::NotAppended { cause: NotAppended::NoProgress } => {
            format!("`bifrost explain {log}` tells what it waits for; then append the rest again")
        }
        AppendError::NotAppended { cause: NotAppended::DiskFull } => {
            "free space at the log servers, for example with `bifrost trim`; then append the rest again".to_owned()
        }
        AppendError::NotAppended { .. } | AppendError::Unknown { .. } => "append the rest again".to_owned(),
    }
}

fn print_each(context: &Context, records: u64, report: impl Fn(u64) -> RecordReport) -> Result<(), CliError> {
    let mut text = String::new();
    for index in 0..records {
        let report = report(index);
        match (context.output(), &report) {
            (Output::Json, _) => text += &json_line(&report)?,
            (Output::Text | Output::Raw, RecordReport::Committed { lsn, .. }) => text += &format!("{lsn}\n"),
            (Output::Text | Output::Raw, RecordReport::NotAppended { .. } | RecordReport::Unknown { .. }) => {}
        }
    }
    context.print(&text)
}

fn lines(first: u64, records: u64) -> String {
    if records == 1 {
        format!("line {first}")
    } else {
        format!("lines {first} to {}", first + records.saturating_sub(1))
    }
}

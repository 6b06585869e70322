//! Progress of long work, on stderr: only on a terminal, and only when the data goes elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::context::Context;

const PERIOD: Duration = Duration::from_millis(100);

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Bytes,
    Records,
}

/// A bar up to `total`, or a count where nobody knows the end.
pub(crate) fn bar(context: &Context, total: Option<u64>, unit: Unit) -> ProgressBar {
    let terminal = context.terminal();
    if !terminal.stderr || terminal.stdout {
        return ProgressBar::hidden();
    }
    let (bar, template) = match (total, unit) {
        (Some(total), Unit::Bytes) => {
            (ProgressBar::new(total), "{wide_bar} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left")
        }
        (Some(total), Unit::Records) => {
            (ProgressBar::new(total), "{wide_bar} {human_pos}/{human_len} records  {per_sec}  {eta} left")
        }
        (None, Unit::Bytes) => (ProgressBar::no_length(), "{spinner} {bytes}  {bytes_per_sec}"),
        (None, Unit::Records) => (ProgressBar::no_length(), "{spinner} {human_pos} records  {per_sec}"),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(PERIOD);
    bar
}

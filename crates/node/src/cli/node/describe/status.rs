//! What a node says about itself, for people and as JSON.

use std::time::Duration;

use bifrost_wire::node::{CatchUpProgress, DiskSpace, DiskStatus, Fullness, NodeStatus};
use serde::Serialize;

use crate::cli::error::printable;

/// The status of a node, as JSON.
#[derive(Debug, Serialize)]
pub(super) struct StatusReport {
    node: String,
    roles: Vec<String>,
    uptime_millis: u64,
    leaving: bool,
    disk: Option<DiskReport>,
    open_sequencers: u64,
    loglets: u64,
    sequenced_bytes: u64,
    stored_bytes: u64,
    catch_up: Option<CatchUpReport>,
}

/// The disk that a node serves, as JSON.
#[derive(Debug, Serialize)]
struct DiskReport {
    disk: String,
    fullness: String,
    total_bytes: Option<u64>,
    free_bytes: Option<u64>,
    soft_mark_bytes: Option<u64>,
    hard_mark_bytes: Option<u64>,
}

/// How far a node has caught up, as JSON.
#[derive(Debug, Serialize)]
struct CatchUpReport {
    bytes_to_do: u64,
    bytes_done: u64,
    bytes_left: u64,
    percent: u64,
    segments_left: u64,
    since_last_byte_millis: Option<u64>,
    last_error: Option<String>,
}

impl StatusReport {
    pub(super) fn new(status: &NodeStatus) -> Self {
        Self {
            node: status.id.to_string(),
            roles: status.roles.iter().map(|role| role.to_string()).collect(),
            uptime_millis: millis(status.uptime),
            leaving: status.leaving,
            disk: status.disk.as_ref().map(disk_report),
            open_sequencers: status.load.open_sequencers,
            loglets: status.load.loglets,
            sequenced_bytes: status.load.sequenced_bytes,
            stored_bytes: status.load.stored_bytes,
            catch_up: status.catch_up.as_ref().map(catch_up_report),
        }
    }
}

fn disk_report(status: &DiskStatus) -> DiskReport {
    let number = |of: fn(&DiskSpace) -> u64| status.space.as_ref().map(of);
    DiskReport {
        disk: status.disk.to_string(),
        fullness: status.fullness.to_string(),
        total_bytes: number(|space| space.total_bytes),
        free_bytes: number(|space| space.free_bytes),
        soft_mark_bytes: number(|space| space.soft_mark_bytes),
        hard_mark_bytes: number(|space| space.hard_mark_bytes),
    }
}

fn catch_up_report(progress: &CatchUpProgress) -> CatchUpReport {
    CatchUpReport {
        bytes_to_do: progress.bytes_to_do,
        bytes_done: progress.bytes_done,
        bytes_left: left(progress),
        percent: percent(progress),
        segments_left: progress.segments_left,
        since_last_byte_millis: progress.since_last_byte.map(millis),
        last_error: progress.last_error.clone(),
    }
}

/// Lines of text, each a label and what it says.
pub(super) fn lines(status: &NodeStatus) -> Vec<(&'static str, String)> {
    let mut lines = vec![("up", time(status.uptime))];
    if let Some(disk) = &status.disk {
        lines.push(("space", space(disk)));
    }
    let load = &status.load;
    lines.push((
        "load",
        format!(
            "numbers the appends of {}, holds {}",
            counted(load.open_sequencers, "log"),
            counted(load.loglets, "loglet")
        ),
    ));
    let (sequenced, stored) = (size(load.sequenced_bytes), size(load.stored_bytes));
    lines.push(("traffic", format!("{sequenced} numbered and {stored} stored since it is up")));
    if let Some(progress) = &status.catch_up {
        lines.push(("catch-up", catch_up(progress)));
    }
    lines
}

fn space(status: &DiskStatus) -> String {
    let numbers = match &status.space {
        Some(space) => format!("{} of {} free", size(space.free_bytes), size(space.total_bytes)),
        None => "in memory".to_owned(),
    };
    match status.fullness {
        Fullness::Ample => numbers,
        Fullness::Low => format!("{numbers}: low, new segments go elsewhere"),
        Fullness::Full => format!("{numbers}: full, records are refused"),
        Fullness::Scarce => format!("{numbers}: full, records and repairs are refused"),
        Fullness::Exhausted => format!("{numbers}: the reserve is gone too"),
    }
}

fn catch_up(progress: &CatchUpProgress) -> String {
    if progress.segments_left == 0 && progress.last_error.is_none() {
        return format!("done, {} came", size(progress.bytes_done));
    }
    let mut text = format!(
        "{} % of {}, {} to go in {}",
        percent(progress),
        size(progress.bytes_to_do),
        size(left(progress)),
        counted(progress.segments_left, "segment")
    );
    if let Some(since) = progress.since_last_byte {
        text += &format!("; the last byte came {} ago", time(since));
    }
    if let Some(error) = &progress.last_error {
        text += &format!("; {}", printable(error));
    }
    text
}

fn left(progress: &CatchUpProgress) -> u64 {
    progress.bytes_to_do.saturating_sub(progress.bytes_done)
}

/// Nothing to do is all done.
fn percent(progress: &CatchUpProgress) -> u64 {
    let (done, to_do) = (u128::from(progress.bytes_done), u128::from(progress.bytes_to_do));
    (done * 100).checked_div(to_do).and_then(|percent| u64::try_from(percent).ok()).unwrap_or(100)
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A size in the unit that people would choose, rounded down: 1023 B, 1.0 KiB, 12.3 GiB.
fn size(bytes: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = UNITS.into_iter().find(|(_, shift)| bytes >> shift > 0);
    let Some((name, shift)) = unit else { return format!("{bytes} B") };
    let tenths = (u128::from(bytes) * 10) >> shift;
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

/// A time in its two largest units: 0.4 s, 59 s, 3 min 20 s, 5 h 3 min, 4 d 2 h.
fn time(time: Duration) -> String {
    let secs = time.as_secs();
    match secs {
        0..10 => format!("{secs}.{} s", time.subsec_millis() / 100),
        10..60 => format!("{secs} s"),
        60..3600 => format!("{} min {} s", secs / 60, secs % 60),
        3600..86_400 => format!("{} h {} min", secs / 3600, secs % 3600 / 60),
        _ => format!("{} d {} h", secs / 86_400, secs % 86_400 / 3600),
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_have_the_unit_that_people_would_choose() {
        let sizes = [0, 1023, 1024, 1 << 20, (12 << 30) + (3 << 29), u64::MAX].map(size);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.0 MiB", "13.5 GiB", "16777215.9 TiB"]);
        let times = [400, 59_000, 200_000, 18_180_000, 352_800_000].map(|millis| time(Duration::from_millis(millis)));
        assert_eq!(times, ["0.4 s", "59 s", "3 min 20 s", "5 h 3 min", "4 d 2 h"]);
    }

    #[test]
    fn a_catch_up_says_what_is_left_and_why_it_stands() {
        let mut progress =
            CatchUpProgress { bytes_to_do: 4096, bytes_done: 1024, segments_left: 2, ..Default::default() };
        assert_eq!(catch_up(&progress), "25 % of 4.0 KiB, 3.0 KiB to go in 2 segments");
        progress.since_last_byte = Some(Duration::from_secs(61));
        progress.last_error = Some("no copy answers".to_owned());
        let stands = "25 % of 4.0 KiB, 3.0 KiB to go in 2 segments; the last byte came 1 min 1 s ago; no copy answers";
        assert_eq!(catch_up(&progress), stands);
        assert_eq!(catch_up(&CatchUpProgress::default()), "done, 0 B came");
    }
}

//! The report for people.

use std::fmt::Write;

use super::bars::{Side, Verdict};
use super::{Medians, Report, Summary};
use crate::cell::Cell;
use crate::peer::Peer;

pub(super) fn text(report: &Report, summary: &Summary) -> String {
    let mut text = machine(report);
    for cell in Cell::ALL {
        text += &table(summary, cell);
    }
    text += &acknowledgements(report, summary);
    text += &bars(report);
    if !report.skipped.is_empty() {
        text += "\nleft out:\n";
        for skipped in &report.skipped {
            let round = skipped.round.map_or_else(String::new, |round| format!(", round {round}"));
            let cell = skipped.cell.as_ref().map_or_else(String::new, |cell| format!(" {cell}"));
            text += &format!("  {}{cell}{round}: {}\n", skipped.peer, skipped.why.lines().next().unwrap_or_default());
        }
    }
    text
}

fn machine(report: &Report) -> String {
    let machine = &report.machine;
    let device = machine.device.as_ref().map_or_else(
        || "on no block device, so flushes are not counted".to_owned(),
        |device| format!("on {device} (cache: {})", machine.device_cache.as_deref().unwrap_or("unknown")),
    );
    format!(
        "\n{}, {} CPUs, {} MiB; Linux {}; {} {device}; load {} at the beginning\n\
         medians of {} rounds of {} s, after {} s that do not count\n",
        machine.cpu,
        machine.cpus,
        machine.memory_mib,
        machine.kernel,
        machine.file_system,
        machine.load,
        report.rounds,
        report.seconds,
        report.warm_up_seconds,
    )
}

fn table(summary: &Summary, cell: Cell) -> String {
    let rows: Vec<(Peer, &Medians)> =
        Peer::ALL.into_iter().filter_map(|peer| Some((peer, summary.get(peer, cell)?))).collect();
    if rows.is_empty() {
        return String::new();
    }
    let compared = if cell.is_latency() { "p50, Bifrost /" } else { "rate, Bifrost /" };
    let mut text = format!(
        "\n{:<34} {:>11} {:>8} {:>9} {:>9} {:>9} {:>9} {:>16}\n",
        cell.title(),
        "records/s",
        "MB/s",
        "p50 us",
        "p99 us",
        "max us",
        "flushes",
        compared
    );
    for (peer, medians) in rows {
        let number =
            |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |value| format!("{value:.digits$}"));
        let ratio = value(summary.get(Peer::Bifrost, cell), cell).zip(value(Some(medians), cell));
        let ratio = ratio.filter(|_| peer != Peer::Bifrost).map(|(bifrost, peer)| bifrost / peer);
        let noisy = medians.rounds - medians.quiet;
        let _infallible = writeln!(
            text,
            "{:<34} {:>11.0} {:>8.1} {:>9} {:>9} {:>9} {:>9} {:>16}{}",
            peer.title(),
            medians.records_per_second,
            medians.megabytes_per_second,
            number(medians.p50_micros, 0),
            number(medians.p99_micros, 0),
            medians.max_micros.map_or("-".to_owned(), |max| max.to_string()),
            number(medians.flushes_per_record, 3),
            number(ratio, 2),
            if noisy > 0 { format!("  {noisy} of {} not quiet", medians.rounds) } else { String::new() },
        );
        if let Some(append) = medians.append_p50_micros {
            text += &format!("{:<34} {:>11} {:>8} {append:>9.0}\n", "  until the acknowledgement", "", "");
        }
    }
    text
}

fn value(medians: Option<&Medians>, cell: Cell) -> Option<f64> {
    let medians = medians?;
    let value = if cell.is_latency() { medians.p50_micros? } else { medians.records_per_second };
    Some(value).filter(|value| *value > 0.0)
}

/// What each means, and whether the disk was seen to be flushed for it.
fn acknowledgements(report: &Report, summary: &Summary) -> String {
    let mut text = "\nacknowledged means, and flushes of the device for each append with one in flight:\n".to_owned();
    for peer in Peer::ALL {
        let Some(version) = report.versions.get(peer.name()) else { continue };
        let flushes = summary.get(peer, Cell::ALONE).and_then(|medians| medians.flushes_per_record);
        let seen = match flushes {
            None => "not counted".to_owned(),
            Some(flushes) if !peer.syncs() => format!("{flushes:.2}"),
            Some(flushes) if flushes >= 1.0 => format!("{flushes:.2}, an fsync before each acknowledgement"),
            Some(flushes) => {
                format!("{flushes:.2}, FEWER THAN ONE: it does not do what it says, or nothing reaches this device")
            }
        };
        text += &format!("  {} ({version})\n    {}\n    flushes: {seen}\n", peer.title(), peer.acknowledgement());
    }
    text
}

fn bars(report: &Report) -> String {
    let mut text = "\nbars:\n".to_owned();
    for bar in &report.bars {
        let side = match bar.side {
            Side::AtMost => "at most",
            Side::AtLeast => "at least",
        };
        let verdict = match bar.verdict {
            Verdict::Met => "met",
            Verdict::NotMet => "NOT MET",
            Verdict::NotMeasured => "not measured",
        };
        let value = bar.value.map_or("-".to_owned(), |value| format!("{value:.2}"));
        let stretch = if bar.stretch { " (stretch)" } else { "" };
        text += &format!("  {:<44} {side:>8} {:>6.2}   {value:>8}   {verdict}{stretch}\n", bar.what, bar.aim);
    }
    text
}

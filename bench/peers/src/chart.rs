//! The medians as a picture: one panel for each cell, one bar for each peer. SVG, written by hand.

use std::fmt::Write;

use crate::cell::Cell;
use crate::machine::Machine;
use crate::peer::Peer;
use crate::report::{Medians, Summary};

const WIDTH: f64 = 860.0;
const LABELS: f64 = 260.0;
const BARS: f64 = 410.0;
const ROW: f64 = 22.0;
const BAR: f64 = 14.0;
const TITLE: f64 = 40.0;
const MARGIN: f64 = 16.0;

/// A bar, and what stands behind it.
#[derive(Debug)]
struct Row {
    peer: Peer,
    value: f64,
    text: String,
}

/// Draws it.
pub(crate) fn svg(machine: &Machine, rounds: u32, summary: &Summary) -> String {
    let panels: Vec<(Cell, Vec<Row>)> =
        Cell::ALL.into_iter().map(|cell| (cell, rows(summary, cell))).filter(|(_, rows)| !rows.is_empty()).collect();
    let height: f64 =
        2.0 * MARGIN + TITLE + panels.iter().map(|(_, rows)| TITLE + ROW * rows.len() as f64).sum::<f64>();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"12\" fill=\"#1f2430\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    let mut top = MARGIN;
    for (cell, rows) in &panels {
        panel(&mut svg, *cell, rows, top);
        top += TITLE + ROW * rows.len() as f64;
    }
    let notes = [
        format!(
            "Three members on loopback and one client on one machine: {}, {} CPUs, Linux {}, {}.",
            machine.cpu, machine.cpus, machine.kernel, machine.file_system
        ),
        format!("Medians of {rounds} rounds. Light: acknowledged before it is on disk. Grey: what the machine can do."),
    ];
    for (place, note) in notes.iter().enumerate() {
        let y = top + 24.0 + 14.0 * place as f64;
        let _infallible =
            writeln!(svg, "<text x=\"{MARGIN}\" y=\"{y}\" font-size=\"10\" fill=\"#5c6370\">{}</text>", escaped(note));
    }
    svg + "</svg>\n"
}

fn panel(svg: &mut String, cell: Cell, rows: &[Row], top: f64) {
    let better = if cell.is_latency() { "p50, shorter is better" } else { "longer is better" };
    let y = top + TITLE - 14.0;
    let mut put = |line: String| {
        svg.push_str(&line);
        svg.push('\n');
    };
    put(format!(
        "<text x=\"{MARGIN}\" y=\"{y}\" font-size=\"14\" font-weight=\"600\">{} \
         <tspan font-size=\"11\" font-weight=\"400\" fill=\"#5c6370\">{better}</tspan></text>",
        escaped(&cell.title())
    ));
    let largest = rows.iter().map(|row| row.value).fold(f64::MIN_POSITIVE, f64::max);
    for (place, Row { peer, value, text }) in rows.iter().enumerate() {
        let y = top + TITLE + ROW * place as f64;
        let (length, base) = ((BARS * value / largest).max(1.0), y + BAR - 3.0);
        let (labels, after) = (LABELS - 8.0, LABELS + length + 6.0);
        let weight = if *peer == Peer::Bifrost { "600" } else { "400" };
        put(format!(
            "<text x=\"{labels}\" y=\"{base}\" text-anchor=\"end\" font-weight=\"{weight}\">{}</text>\
             <rect x=\"{LABELS}\" y=\"{y}\" width=\"{length:.1}\" height=\"{BAR}\" fill=\"{}\"/>\
             <text x=\"{after:.1}\" y=\"{base}\">{}</text>",
            escaped(peer.title()),
            colour(*peer),
            escaped(text)
        ));
    }
}

fn rows(summary: &Summary, cell: Cell) -> Vec<Row> {
    let of = |peer: Peer| {
        let medians: &Medians = summary.get(peer, cell)?;
        if !cell.is_latency() {
            let (rate, megabytes) = (medians.records_per_second, medians.megabytes_per_second);
            return Some(Row { peer, value: rate, text: format!("{}/s, {megabytes:.0} MB/s", short(rate)) });
        }
        let (p50, p99) = (medians.p50_micros?, medians.p99_micros?);
        Some(Row { peer, value: p50, text: format!("{:.2} ms, p99 {:.2} ms", p50 / 1000.0, p99 / 1000.0) })
    };
    Peer::ALL.into_iter().filter_map(of).collect()
}

fn short(value: f64) -> String {
    if value < 10_000.0 { format!("{value:.0}") } else { format!("{:.0} k", value / 1000.0) }
}

fn colour(peer: Peer) -> &'static str {
    match peer {
        Peer::Floor | Peer::FloorGrowing => "#b8bec9",
        Peer::Bifrost => "#d9480f",
        peer if peer.syncs() => "#3b6ea8",
        _ => "#a9c6e6",
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_break_the_picture() {
        assert_eq!(escaped("a<b & c>d"), "a&lt;b &amp; c&gt;d");
    }

    #[test]
    fn large_numbers_are_short() {
        assert_eq!((short(950.4), short(61_234.0)), ("950".to_owned(), "61 k".to_owned()));
    }
}

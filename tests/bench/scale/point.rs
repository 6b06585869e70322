//! What was measured at one size of a load, and how it grows from one size to the next.

use std::time::Duration;

use serde_json::{Map, Value, json};

/// Figures of one size, in the order in which they are shown. The unit is the last word of a name.
#[derive(Debug, Clone)]
pub struct Point {
    /// What the load is: points of one are compared with each other.
    pub load: &'static str,
    /// How much of it.
    pub size: u64,
    figures: Vec<(&'static str, f64)>,
}

impl Point {
    pub const fn new(load: &'static str, size: u64) -> Self {
        Self { load, size, figures: Vec::new() }
    }

    pub fn add(&mut self, name: &'static str, value: f64) {
        self.figures.push((name, value));
    }

    pub fn figure(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// Percentiles of times, in milliseconds.
    pub fn add_times(&mut self, p50: &'static str, p99: &'static str, mut times: Vec<Duration>) {
        times.sort_unstable();
        for (name, share) in [(p50, 0.5), (p99, 0.99)] {
            let rank = (share * times.len() as f64).ceil() as usize;
            let time = times.get(rank.saturating_sub(1)).copied().unwrap_or_default();
            self.add(name, time.as_secs_f64() * 1e3);
        }
    }

    pub fn json(&self) -> Value {
        let figures: Map<String, Value> =
            self.figures.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        json!({ "load": self.load, "size": self.size, "figures": figures })
    }
}

/// One table for each load: a figure a line, a size a column, and how often the first size is in the last.
pub fn table(points: &[Point]) -> String {
    let mut text = String::new();
    let mut loads: Vec<&str> = points.iter().map(|point| point.load).collect();
    loads.dedup();
    for load in loads {
        let of_load: Vec<&Point> = points.iter().filter(|point| point.load == load).collect();
        let (Some(first), Some(last)) = (of_load.first(), of_load.last()) else { continue };
        text += &format!("\n{load:<34}");
        for point in &of_load {
            text += &format!(" {:>14}", point.size);
        }
        text += &format!(" {:>9}\n", "last/first");
        for (name, value) in &first.figures {
            text += &format!("{name:<34}");
            for point in &of_load {
                let shown = point.figure(name).map_or_else(|| "-".to_owned(), number);
                text += &format!(" {shown:>14}");
            }
            let ratio = last.figure(name).filter(|_| *value > 0.0 && of_load.len() > 1).map(|last| last / value);
            text += &format!(" {:>9}\n", ratio.map_or_else(|| "-".to_owned(), number));
        }
    }
    text
}

fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 1000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

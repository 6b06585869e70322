//! The bars that Bifrost is to clear beside its peers, in ratios of medians of the same run.

use serde::Serialize;

use super::{Medians, Summary};
use crate::cell::Cell;
use crate::peer::Peer;

/// Whether it was cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    Met,
    NotMet,
    /// Something it needs was not measured.
    NotMeasured,
}

/// Which side of the bar is the good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Side {
    AtMost,
    AtLeast,
}

/// A ratio, or megabytes a second, and where it should be.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Bar {
    pub(crate) what: &'static str,
    pub(crate) side: Side,
    pub(crate) aim: f64,
    pub(crate) value: Option<f64>,
    pub(crate) verdict: Verdict,
    /// A further aim, not a bar.
    pub(crate) stretch: bool,
}

/// All of them, in the order of the cells.
pub(crate) fn all(summary: &Summary) -> Vec<Bar> {
    use Cell as C;
    use Peer as P;
    use Side::{AtLeast, AtMost};
    let of = |value: Value, cell: Cell, peer: Peer| value(summary.get(peer, cell)?);
    let ratio = |value: Value, cell: Cell, peer: Peer| Some(of(value, cell, P::Bifrost)? / of(value, cell, peer)?);
    let best_syncing = |cell: Cell| {
        let peers = P::ALL.into_iter().filter(|peer| *peer != P::Bifrost && peer.syncs() && !peer.is_floor());
        let best = peers.filter_map(|peer| of(rate, cell, peer)).max_by(f64::total_cmp)?;
        Some(of(rate, cell, P::Bifrost)? / best)
    };
    let tail = || {
        let medians = summary.get(P::Bifrost, C::Tail)?;
        Some(medians.p50_micros? / medians.append_p50_micros?)
    };
    let bars = [
        ("1 KiB x 1: p50 / NATS always", AtMost, 0.55, ratio(p50, C::ALONE, P::NatsAlways), false),
        ("1 KiB x 1: p50 / floor", AtMost, 2.0, ratio(p50, C::ALONE, P::Floor), false),
        ("1 KiB x 1: p50 / floor", AtMost, 1.35, ratio(p50, C::ALONE, P::Floor), true),
        ("1 KiB x 1: p99 / Redis", AtMost, 1.0, ratio(p99, C::ALONE, P::Redis), false),
        ("1 KiB x 256: rate / NATS always", AtLeast, 4.0, ratio(rate, C::MEDIUM, P::NatsAlways), false),
        ("1 KiB x 256: rate / NATS default", AtLeast, 1.5, ratio(rate, C::MEDIUM, P::Nats), false),
        ("1 KiB x 256: rate / floor", AtLeast, 0.5, ratio(rate, C::MEDIUM, P::Floor), true),
        ("128 B x 256: rate / NATS always", AtLeast, 4.0, ratio(rate, C::SMALL, P::NatsAlways), false),
        ("128 B x 256: rate / NATS default", AtLeast, 1.0, ratio(rate, C::SMALL, P::Nats), false),
        ("128 B x 256: rate / floor", AtLeast, 0.5, ratio(rate, C::SMALL, P::Floor), true),
        ("16 KiB x 256: rate / best peer that fsyncs", AtLeast, 3.0, best_syncing(C::LARGE), false),
        ("16 KiB x 256: rate / floor", AtLeast, 1.0 / 3.0, ratio(rate, C::LARGE, P::Floor), true),
        ("catch-up read: rate / NATS", AtLeast, 2.0, ratio(rate, C::CatchUp, P::Nats), false),
        ("catch-up read: MB/s", AtLeast, 580.0, of(megabytes, C::CatchUp, P::Bifrost), false),
        ("catch-up read: MB/s", AtLeast, 800.0, of(megabytes, C::CatchUp, P::Bifrost), true),
        ("write to read: p50 / the append's p50", AtMost, 1.3, tail(), false),
    ];
    bars.into_iter().map(|(what, side, aim, value, stretch)| Bar::of(what, side, aim, value, stretch)).collect()
}

type Value = fn(&Medians) -> Option<f64>;

fn rate(medians: &Medians) -> Option<f64> {
    Some(medians.records_per_second).filter(|rate| *rate > 0.0)
}

fn megabytes(medians: &Medians) -> Option<f64> {
    Some(medians.megabytes_per_second)
}

fn p50(medians: &Medians) -> Option<f64> {
    medians.p50_micros.filter(|micros| *micros > 0.0)
}

fn p99(medians: &Medians) -> Option<f64> {
    medians.p99_micros.filter(|micros| *micros > 0.0)
}

impl Bar {
    fn of(what: &'static str, side: Side, aim: f64, value: Option<f64>, stretch: bool) -> Self {
        let verdict = match (value, side) {
            (None, _) => Verdict::NotMeasured,
            (Some(value), Side::AtMost) if value <= aim => Verdict::Met,
            (Some(value), Side::AtLeast) if value >= aim => Verdict::Met,
            (Some(_), Side::AtMost | Side::AtLeast) => Verdict::NotMet,
        };
        Self { what, side, aim, value, verdict, stretch }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_has_a_good_side() {
        let verdict = |side, value| Bar::of("", side, 2.0, value, false).verdict;
        assert_eq!(verdict(Side::AtMost, Some(1.9)), Verdict::Met);
        assert_eq!(verdict(Side::AtMost, Some(2.1)), Verdict::NotMet);
        assert_eq!(verdict(Side::AtLeast, Some(2.0)), Verdict::Met);
        assert_eq!(verdict(Side::AtLeast, Some(1.9)), Verdict::NotMet);
        assert_eq!(verdict(Side::AtLeast, None), Verdict::NotMeasured);
    }

    #[test]
    fn without_measures_nothing_is_met() {
        assert!(all(&Summary::default()).iter().all(|bar| bar.verdict == Verdict::NotMeasured));
    }
}

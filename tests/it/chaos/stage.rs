//! A cluster under load, and what happens to it.

use std::path::Path;
use std::time::Duration;

use super::load::{Load, Shape};
use crate::support::cluster::Cluster;

/// What a scenario plays on.
pub struct Stage {
    pub cluster: Cluster,
    pub load: Load,
}

impl Stage {
    /// Three nodes under light load.
    pub fn of_three<T: Send>(play: impl FnOnce(&mut Self) -> T + Send) -> T {
        Self::run(&std::env::temp_dir(), Shape::LIGHT, play)
    }

    /// The same with a proxy in front of each node, whose faults come from the seed.
    pub fn behind_proxies<T: Send>(seed: u64, play: impl FnOnce(&mut Self) -> T + Send) -> T {
        Cluster::run_behind_proxies(3, &std::env::temp_dir(), seed, |cluster| Self::play(cluster, Shape::LIGHT, play))
    }

    /// Three nodes with their data below this directory.
    pub fn run<T: Send>(below: &Path, shape: Shape, play: impl FnOnce(&mut Self) -> T + Send) -> T {
        Cluster::run(3, below, |cluster| Self::play(cluster, shape, play))
    }

    fn play<T>(cluster: Cluster, shape: Shape, play: impl FnOnce(&mut Self) -> T) -> T {
        println!("chaos: three processes serve after {:.1?}", cluster.age());
        let load = Load::start(&cluster, "first", shape);
        let mut stage = Self { cluster, load };
        let played = play(&mut stage);
        stage.end();
        played
    }

    /// Judges what was, and goes on with other logs.
    pub fn next(&mut self, name: &str) {
        let next = Load::start(&self.cluster, name, Shape::LIGHT);
        let before = std::mem::replace(&mut self.load, next);
        let judged = before.finish(&self.cluster);
        self.cluster.check();
        println!("chaos: {judged:?}");
    }

    fn end(self) {
        let Self { mut cluster, load } = self;
        let judged = load.finish(&cluster);
        cluster.check();
        println!("chaos: {judged:?}");
    }

    /// The node that numbers the appends of a log, as far as its writers know.
    pub fn sequencer(&self, log: usize) -> usize {
        let chain = self.load.logs().nth(log).expect("a log under load").chain();
        self.cluster.node(chain.last().expect("a segment").params.sequencer.node)
    }

    /// Something goes wrong, every log takes appends again while it is wrong, and it is put right.
    #[track_caller]
    pub fn fault(
        &mut self,
        what: &str,
        at_least: Duration,
        wrong: impl FnOnce(&mut Cluster),
        right: impl FnOnce(&mut Cluster),
    ) {
        let mark = self.load.mark();
        wrong(&mut self.cluster);
        let begun = self.load.mark();
        let took = self.load.await_progress(&begun, &format!("while: {what}"));
        std::thread::sleep(at_least.saturating_sub(took));
        right(&mut self.cluster);
        let healed = self.load.mark();
        self.load.await_progress(&healed, &format!("after: {what}"));
        println!("chaos: {what}: all logs went on after {took:.0?}, gaps {:.0?}", self.load.gaps(&mark));
    }
}

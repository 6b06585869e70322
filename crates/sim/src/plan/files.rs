//! Which log servers keep their copies in files, as production does.

use clap::ValueEnum;
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

use super::Plan;

/// Blocks of a file: with a frame for nearly each append they are full soon, and are given back in each run.
const FILE_BLOCKS: [u32; 3] = [4, 8, 16];
/// Bytes that stay in memory for readers: of nothing, of some batches, of all.
const RECENT_BYTES: [u32; 3] = [0, 4_000, 16 << 20];

/// Log servers on the engine `files`, over files and an index that crash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// The nodes. The others keep their copies on a model of a disk.
    pub nodes: Vec<String>,
    /// Blocks of 4 KiB in each file, 3 or more.
    pub file_blocks: u32,
    /// Bytes of what was stored last that stay in memory for readers.
    pub recent_bytes: u32,
}

/// What log servers keep their copies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Stores {
    /// What the seed or the plan says.
    #[default]
    Drawn,
    /// Production's engine `files`, over files and an index that crash.
    Files,
    /// A model of a disk.
    Model,
}

impl Stores {
    /// Its name on the command line, unless the seed or the plan says it.
    pub const fn chosen(self) -> Option<&'static str> {
        match self {
            Self::Drawn => None,
            Self::Files => Some("files"),
            Self::Model => Some("model"),
        }
    }

    /// What a run is told of it.
    pub fn arguments(self) -> impl Iterator<Item = String> {
        self.chosen().into_iter().flat_map(|name| ["--store".to_owned(), name.to_owned()])
    }
}

impl Plan {
    /// Says for three of four plans which log servers are on files. Draws from a stream of its own: everything else of a plan
    /// is the same with files and without.
    pub(super) fn draw_files(&mut self) {
        let (files, mut random) = self.all_on_files();
        self.cluster.files = match random.random_range(0..4) {
            0 => None,
            1 => {
                let mut nodes = files.nodes;
                nodes.shuffle(&mut random);
                nodes.truncate(nodes.len().div_ceil(2));
                nodes.sort_unstable();
                Some(Files { nodes, ..files })
            }
            _ => Some(files),
        };
    }

    /// The same plan with other stores.
    #[must_use]
    pub fn with_stores(mut self, stores: Stores) -> Self {
        match stores {
            Stores::Drawn => {}
            Stores::Files => self.cluster.files = Some(self.all_on_files().0),
            Stores::Model => self.cluster.files = None,
        }
        self
    }

    fn all_on_files(&self) -> (Files, SmallRng) {
        let mut random = SmallRng::seed_from_u64(self.seed ^ 0xbb67_ae85_84ca_a73b);
        let files = Files {
            nodes: self.nodes(),
            file_blocks: *FILE_BLOCKS.choose(&mut random).unwrap_or(&8),
            // Whoever reads a record from memory is not told that it is on no disk.
            recent_bytes: RECENT_BYTES.choose(&mut random).copied().filter(|_| !self.cluster.loss).unwrap_or(0),
        };
        (files, random)
    }
}

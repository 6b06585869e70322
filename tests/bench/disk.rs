//! What the disk takes for the least that an append can cost, all the time: 4 KiB and an fdatasync, in a file that was
//! written before, some hundred times a second. A shared disk stalls now and then whatever we do; what a repetition took in
//! such a moment says nothing of the cluster.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const BYTES: usize = 4096;
/// The file is written from its start again behind this.
const BLOCKS: u64 = 1024;
const PAUSE: Duration = Duration::from_millis(3);
/// Writes that are remembered: some minutes of them.
const REMEMBERED: usize = 1 << 16;

/// A write, from its beginning until it was on the disk.
type Write = (Instant, Instant);

/// Watches a disk until it is dropped.
pub struct DiskWatch {
    path: PathBuf,
    writes: Arc<Mutex<VecDeque<Write>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl DiskWatch {
    pub fn start(below: &Path) -> Self {
        let path = below.join("failover-canary");
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path).expect("a file");
        file.write_all_at(&vec![0; BYTES * BLOCKS as usize], 0).and_then(|()| file.sync_all()).expect("a disk");
        let (writes, stop) = (Arc::default(), Arc::default());
        let (seen, stopped) = (Arc::clone(&writes), Arc::clone(&stop));
        let thread = thread::spawn(move || watch(&file, &seen, &stopped));
        Self { path, writes, stop, thread: Some(thread) }
    }

    /// The longest write that touched this time, once all that did have ended.
    pub fn worst(&self, from: Instant, until: Instant) -> Duration {
        loop {
            let writes = self.writes.lock().expect("nobody panics with it");
            if writes.back().is_some_and(|(begun, _)| *begun > until) {
                let touching = writes.iter().filter(|(begun, ended)| *begun < until && *ended > from);
                return touching.map(|(begun, ended)| *ended - *begun).max().unwrap_or_default();
            }
            drop(writes);
            assert!(self.thread.as_ref().is_some_and(|thread| !thread.is_finished()), "the disk watch ended early");
            thread::sleep(PAUSE);
        }
    }
}

fn watch(file: &File, seen: &Mutex<VecDeque<Write>>, stop: &AtomicBool) {
    for block in (0..BLOCKS).cycle() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let begun = Instant::now();
        let written = file.write_all_at(&[0xb1; BYTES], block * BYTES as u64).and_then(|()| file.sync_data());
        written.expect("a disk");
        let mut writes = seen.lock().expect("nobody panics with it");
        writes.push_back((begun, Instant::now()));
        if writes.len() > REMEMBERED {
            writes.pop_front();
        }
        drop(writes);
        thread::sleep(PAUSE);
    }
}

impl Drop for DiskWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(ended.is_none_or(|ended| ended.is_ok()), "the disk watch ended early");
        std::fs::remove_file(&self.path).expect("it was made");
    }
}

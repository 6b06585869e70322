//! A thread that prepares files, so that appends do not wait for that.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::{self, JoinHandle};

use crate::directory::{Directory, Fill, JournalFile};
use crate::frame::{FileId, encode_file_header};
use crate::pace::Pace;
use crate::recovery::{file_name, remove_file, unfinished_name};

/// A file whose header is durable.
#[derive(Debug)]
pub(crate) struct Prepared<F> {
    pub(crate) id: FileId,
    pub(crate) file: F,
    pub(crate) bytes: u64,
}

/// A file that takes no more groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full {
    pub(crate) number: u64,
    pub(crate) bytes: u64,
    /// The last group in it.
    pub(crate) last: Option<u64>,
}

/// Work on files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Makes the next file, out of an old one if there is one, or else a new one.
    Prepare { id: FileId, bytes: u64, old: Option<Full>, fill: Fill },
    /// Removes an old one.
    Remove(Full),
}

/// What came of it.
pub(crate) type Done<F> = io::Result<Option<Prepared<F>>>;

impl Work {
    /// Does it; blocks for as long as the disk takes. After an error it may be done again.
    pub(crate) fn run<D: Directory>(self, directory: &D, pace: &Pace) -> Done<D::File> {
        match self {
            Self::Prepare { id, bytes, old, fill } => {
                prepare(directory, id, bytes, old, |name| directory.create(name, bytes, fill, pace)).map(Some)
            }
            Self::Remove(old) => remove_file(directory, old.number).map(|()| None),
        }
    }
}

fn prepare<D: Directory>(
    directory: &D,
    id: FileId,
    bytes: u64,
    old: Option<Full>,
    create: impl FnOnce(&str) -> io::Result<()>,
) -> io::Result<Prepared<D::File>> {
    let unfinished = unfinished_name(id.number);
    let renamed = match old {
        Some(old) => directory.rename(&file_name(old.number), &unfinished),
        None => Err(io::ErrorKind::NotFound.into()),
    };
    match renamed {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(&unfinished)?,
        Err(error) => return Err(error),
    }
    let file = directory.open(&unfinished)?;
    file.write(&encode_file_header(id), 0)?;
    file.sync()?;
    // Its header is durable before the file counts.
    directory.rename(&unfinished, &file_name(id.number))?;
    Ok(Prepared { id, file, bytes })
}

/// The thread; it ends when this is dropped, and gives up a file that it makes.
#[derive(Debug)]
pub(crate) struct Helper<F> {
    /// `None` while it is dropped.
    work: Option<SyncSender<Work>>,
    done: Receiver<Done<F>>,
    pace: Arc<Pace>,
    thread: Option<JoinHandle<()>>,
}

impl<F: JournalFile> Helper<F> {
    pub(crate) fn start<D: Directory<File = F>>(directory: D, path: &Path) -> io::Result<Self> {
        let (work, todo) = sync_channel::<Work>(1);
        let (tell, done) = sync_channel(1);
        let pace = Arc::new(Pace::default());
        let kept = Arc::clone(&pace);
        let name = path.file_name().map_or_else(|| "journal".to_owned(), |name| name.to_string_lossy().into_owned());
        let thread = thread::Builder::new().name(format!("files-{name}")).spawn(move || {
            while let Ok(work) = todo.recv() {
                if tell.send(work.run(&directory, &kept)).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { work: Some(work), done, pace, thread: Some(thread) })
    }

    /// Begins work; the one before is done. A file is made as fast as [`allow`](Self::allow) lets it. `false` if there is
    /// no thread any more.
    pub(crate) fn begin(&self, work: Work) -> bool {
        self.pace.begin();
        self.work.as_ref().is_some_and(|queue| queue.try_send(work).is_ok())
    }

    /// So many bytes of the file that is made may be there by now.
    pub(crate) fn allow(&self, bytes: u64) {
        self.pace.allow(bytes);
    }

    /// What came of it, if it is done.
    pub(crate) fn poll(&self) -> Option<Done<F>> {
        match self.done.try_recv() {
            Ok(done) => Some(done),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(gone())),
        }
    }

    /// What came of it; blocks until then, and nothing holds it up.
    pub(crate) fn wait(&self) -> Done<F> {
        self.allow(u64::MAX);
        self.done.recv().unwrap_or_else(|_| Err(gone()))
    }
}

fn gone() -> io::Error {
    io::Error::other("the thread that prepares files is gone")
}

impl<F> Drop for Helper<F> {
    fn drop(&mut self) {
        drop(self.work.take());
        self.pace.give_up();
        if let Some(thread) = self.thread.take() {
            // What is not asked for is not told: the queue of answers has room for one.
            let _ended = thread.join();
        }
    }
}

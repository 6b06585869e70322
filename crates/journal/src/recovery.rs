//! What a directory says of the journal in it.

use std::io;

use crate::blocks::Blocks;
use crate::directory::{Directory, JournalFile, ReadFile};
use crate::error::Damage;
use crate::frame::{self, BLOCK, BLOCK_BYTES, FRAME_HEADER, FileId, FrameHeader, HeaderError};
use crate::helper::Full;

/// Read at once.
const WINDOW_BYTES: usize = 256 << 10;
const SUFFIX: &str = ".journal";
/// What is being prepared has it.
const UNFINISHED: &str = ".tmp";

/// The name of a file.
pub fn file_name(number: u64) -> String {
    format!("{number:010}{SUFFIX}")
}

/// The name of a file that is being prepared to be that one.
pub(crate) fn unfinished_name(number: u64) -> String {
    format!("{number:010}{UNFINISHED}")
}

/// Opens a file that was [kept](crate::JournalOptions::keeps_files), for reading.
///
/// # Errors
/// What the system says; [`io::ErrorKind::NotFound`] if it was discarded.
pub fn open_to_read<D: Directory>(directory: &D, number: u64) -> io::Result<D::Reader> {
    directory.open_to_read(&file_name(number))
}

/// Reads the groups of a file that takes no more, as far as they can be read, until `take` fails.
///
/// # Errors
/// What the system says.
pub fn read_groups<D: Directory, E>(
    directory: &D,
    number: u64,
    take: &mut dyn FnMut(Replayed<'_>) -> Result<(), E>,
) -> io::Result<Result<(), E>> {
    let file = open_to_read(directory, number)?;
    let mut block = [0; BLOCK_BYTES];
    let read = file.read(&mut block, 0)?;
    let Ok(id) = frame::decode_file_header(block.get(..read).unwrap_or_default()) else { return Ok(Ok(())) };
    let mut frames = Frames { file: &file, id, bytes: file.bytes()?, window: Vec::new(), window_at: 0 };
    let mut at = BLOCK;
    while let Some((header, bytes)) = frames.at(at)? {
        let group = Replayed { sequence: header.sequence, file: number, at: at + FRAME_HEADER, bytes };
        if let Err(stopped) = take(group) {
            return Ok(Err(stopped));
        }
        at += header.frame_bytes() as u64;
    }
    Ok(Ok(()))
}

/// Removes a file that was [popped](crate::Journal::pop_discarded).
///
/// # Errors
/// What the system says; it may be tried again.
pub fn remove_file<D: Directory>(directory: &D, number: u64) -> io::Result<()> {
    match directory.remove(&file_name(number)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Why it says nothing.
#[derive(Debug)]
pub(crate) enum ScanError {
    Io(io::Error),
    Foreign(String),
    NewerFormat(u32),
    Damaged(Damage),
    Replay(u64, Box<dyn std::error::Error + Send + Sync>),
}

impl From<io::Error> for ScanError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A file that has a header.
#[derive(Debug)]
pub(crate) struct Found<F> {
    pub(crate) id: FileId,
    pub(crate) file: F,
    pub(crate) bytes: u64,
    /// Where its frames end.
    pub(crate) end: u64,
    /// The last group in it.
    pub(crate) last: Option<u64>,
}

/// What is known of a journal that is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// The last group that is durable elsewhere.
    pub applied: u64,
    /// Groups up to this one are not replayed; at most `applied`.
    pub replayed_after: u64,
    /// Files before this one are complete, and not read: whoever [keeps](crate::JournalOptions::keeps_files) them knows what
    /// is in them, and some may be gone.
    pub first_file: u64,
    /// What lies before this place in the first file is not read either: the group `replayed_after` ends there. Zero, and the
    /// file is read from its start.
    pub at: u64,
}

impl Position {
    /// Of a journal whose files go when their groups are released.
    pub const fn applied(sequence: u64) -> Self {
        Self { applied: sequence, replayed_after: sequence, first_file: 0, at: 0 }
    }
}

/// Everything that a directory says. The groups end in the last file that has any.
#[derive(Debug)]
pub(crate) struct Scanned<F> {
    /// Those that are not read, in their order.
    pub(crate) before: Vec<Full>,
    /// The others, in their order.
    pub(crate) files: Vec<Found<F>>,
    /// The last group.
    pub(crate) last: Option<u64>,
    /// What an interrupted preparation left.
    pub(crate) leftovers: Vec<String>,
}

/// A group that is read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replayed<'a> {
    /// Its number.
    pub sequence: u64,
    /// The number of its file.
    pub file: u64,
    /// Where in the file its bytes begin.
    pub at: u64,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// Takes a group.
pub type Replay<'a> = dyn FnMut(Replayed<'_>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> + 'a;

/// Reads all files but those that are known, and hands over the groups that the position asks for.
pub(crate) fn scan<D: Directory>(
    directory: &D,
    position: Position,
    replay: &mut Replay<'_>,
) -> Result<Scanned<D::File>, ScanError> {
    let (numbers, leftovers) = sort_names(directory.names()?)?;
    let mut scanned = Scanned { before: Vec::new(), files: Vec::new(), last: None, leftovers };
    let (before, read): (Vec<u64>, Vec<u64>) = numbers.into_iter().partition(|number| *number < position.first_file);
    for number in before {
        let found = open(directory, number)?;
        scanned.before.push(Full { number, bytes: found.bytes, last: None });
    }
    for number in read {
        let before = scanned.files.last().map(|found| found.id.number);
        if before.is_some_and(|before| before + 1 != number) {
            return Err(ScanError::Damaged(Damage::FileMissing { number: number - 1 }));
        }
        let mut found = open(directory, number)?;
        if before.is_none() && position.at > 0 {
            begin_at(&mut found, position)?;
            scanned.last = found.last;
        }
        scan_file(&mut found, &mut scanned.last, position, replay)?;
        scanned.files.push(found);
    }
    if scanned.last.unwrap_or(0) < position.applied {
        return Err(ScanError::Damaged(Damage::Ends { known: position.applied, last: scanned.last }));
    }
    Ok(scanned)
}

fn sort_names(names: Vec<String>) -> Result<(Vec<u64>, Vec<String>), ScanError> {
    let (mut numbers, mut leftovers) = (Vec::new(), Vec::new());
    for name in names {
        if name.ends_with(UNFINISHED) {
            leftovers.push(name);
            continue;
        }
        let number = name.strip_suffix(SUFFIX).and_then(|number| number.parse().ok());
        match number.filter(|number| file_name(*number) == name && *number > 0) {
            Some(number) => numbers.push(number),
            None => return Err(ScanError::Foreign(name)),
        }
    }
    numbers.sort_unstable();
    Ok((numbers, leftovers))
}

fn open<D: Directory>(directory: &D, number: u64) -> Result<Found<D::File>, ScanError> {
    let name = file_name(number);
    let file = directory.open(&name)?;
    let mut block = [0; BLOCK_BYTES];
    let read = file.read(&mut block, 0)?;
    // Its header was durable before it had this name.
    match frame::decode_file_header(block.get(..read).unwrap_or_default()) {
        Ok(id) if id.number == number => Ok(Found { id, bytes: file.bytes()?, file, end: BLOCK, last: None }),
        Ok(_) | Err(HeaderError::Unreadable) => Err(ScanError::Damaged(Damage::Header { name })),
        Err(HeaderError::Version(found)) => Err(ScanError::NewerFormat(found)),
    }
}

/// Writes a frame once more, as it is, and syncs it, if there is none behind it in its file.
///
/// The last one may be there because it was synced, or because it is in a cache: of a process that was killed, or of one whose
/// fsync failed. After that no other fsync writes it, and all of them succeed. There is at most one such frame, since
/// nothing is appended after it.
fn settle_last<F: JournalFile>(file: &F, id: FileId, at: u64, bytes: usize) -> io::Result<()> {
    let next = at.saturating_add(bytes as u64);
    let mut block = [0; BLOCK_BYTES];
    let read = file.read(&mut block, next)?;
    if FrameHeader::decode(id, next, block.get(..read).unwrap_or_default()).is_some() {
        return Ok(());
    }
    let mut frame = vec![0; bytes];
    let read = file.read(&mut frame, at)?;
    let mut blocks = Blocks::with_capacity(bytes);
    blocks.put(frame.get(..read).unwrap_or_default());
    file.write(&blocks, at)?;
    file.sync()
}

/// What lies before the position is known.
fn begin_at<F>(found: &mut Found<F>, position: Position) -> Result<(), ScanError> {
    let Position { replayed_after, first_file, at, .. } = position;
    if found.id.number != first_file {
        return Err(ScanError::Damaged(Damage::FileMissing { number: first_file }));
    }
    if !at.is_multiple_of(BLOCK) || at > found.bytes {
        return Err(ScanError::Damaged(Damage::Ends { known: replayed_after, last: None }));
    }
    (found.end, found.last) = (at, Some(replayed_after));
    Ok(())
}

/// Reads the groups of a file, up to the first place where none is, and makes sure that none is behind it.
fn scan_file<F: JournalFile>(
    found: &mut Found<F>,
    last: &mut Option<u64>,
    position: Position,
    replay: &mut Replay<'_>,
) -> Result<(), ScanError> {
    let Position { applied, replayed_after, .. } = position;
    let mut frames = Frames { file: &found.file, id: found.id, bytes: found.bytes, window: Vec::new(), window_at: 0 };
    let name = || file_name(found.id.number);
    while let Some((header, group)) = frames.at(found.end)? {
        let sequence = header.sequence;
        match *last {
            Some(before) if before.checked_add(1) != Some(sequence) => {
                let damage = Damage::Frame { sequence: before + 1, name: name(), at: found.end, later: sequence };
                return Err(ScanError::Damaged(damage));
            }
            None if sequence > applied.saturating_add(1) => {
                return Err(ScanError::Damaged(Damage::Begins { needed: applied + 1, first: sequence }));
            }
            Some(_) | None => {}
        }
        // Before anybody hears of it, and makes something of it durable elsewhere.
        settle_last(&found.file, found.id, found.end, header.frame_bytes())?;
        if sequence > replayed_after {
            let replayed = Replayed { sequence, file: found.id.number, at: found.end + FRAME_HEADER, bytes: group };
            replay(replayed).map_err(|source| ScanError::Replay(sequence, source))?;
        }
        found.end += header.frame_bytes() as u64;
        (found.last, *last) = (Some(sequence), Some(sequence));
    }
    let mut at = found.end + BLOCK;
    while at < found.bytes {
        if let Some((header, _)) = frames.at(at)? {
            let sequence = last.map_or(1, |last| last.saturating_add(1));
            let damage = Damage::Frame { sequence, name: name(), at: found.end, later: header.sequence };
            return Err(ScanError::Damaged(damage));
        }
        at += BLOCK;
    }
    Ok(())
}

/// Reads frames of a file.
struct Frames<'a, F> {
    file: &'a F,
    id: FileId,
    bytes: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl<F: ReadFile> Frames<'_, F> {
    /// The frame at a place and its group, if there is one.
    fn at(&mut self, at: u64) -> io::Result<Option<(FrameHeader, &[u8])>> {
        let id = self.id;
        let Some(header) = FrameHeader::decode(id, at, self.bytes(at, BLOCK_BYTES)?) else { return Ok(None) };
        // No more memory than the file has bytes, whatever the header says.
        if header.frame_bytes() as u64 > self.bytes.saturating_sub(at) {
            return Ok(None);
        }
        let frame = self.bytes(at, header.frame_bytes())?;
        Ok(header.open(id, at, frame).map(|group| (header, group)))
    }

    /// Some bytes, fewer at the end of the file.
    fn bytes(&mut self, at: u64, length: usize) -> io::Result<&[u8]> {
        let inside = |window_at: u64, window: &[u8]| {
            let from = usize::try_from(at.checked_sub(window_at)?).ok()?;
            (from.checked_add(length)? <= window.len()).then_some(from)
        };
        if inside(self.window_at, &self.window).is_none() {
            let rest = usize::try_from(self.bytes.saturating_sub(at)).unwrap_or(usize::MAX);
            self.window.resize(length.max(WINDOW_BYTES).min(rest), 0);
            self.window_at = at;
            let read = self.file.read(&mut self.window, at)?;
            self.window.truncate(read);
        }
        let from = usize::try_from(at - self.window_at).unwrap_or(usize::MAX);
        let end = from.saturating_add(length).min(self.window.len());
        Ok(self.window.get(from..end).unwrap_or_default())
    }
}
